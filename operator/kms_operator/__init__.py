"""The operator: reconciles the configuration resources into Secrets, issuers, published roots and conditions.

The way of one change. `list_watch` lists and has kopf watch; each object goes to the `controller`, which stores it in
its `cache`. `triggers` says which resources the change affects; a request for each goes into the `queue`. A worker
takes a request, reads from the API server what the reconciler needs and is not cached, and calls the reconciler, a pure
function:

    reads(resource, snapshot) -> Iterable[Read]
    plan(resource, snapshot, *, now, entropy) -> Plan

There is one for each kind in `reconcilers`, one for the roots that CertificateAuthorities publish
(`trust_distribution`), one for what belongs to no resource (`installation`: nonce key, TLS of the server), and one for
what outlived its owner (`orphans`). `apply` carries every plan out in the same way: it deletes and writes objects,
writes the status if it changed, and posts Events. A plan may also say when to reconcile again: at a renewal, at an
expiry, in eight seconds where a Secret is not watched. Issuers of external CAs are not watched either: the plan says
when to look, the `observer` looks beside the workers (`looks`), and the snapshot has what it found (`observation`).

Invariants:

* Level-triggered. Only the current state matters, not what happened: after a crash, a lost event or a conflict the same
  function sees the same cluster and decides the same.
* Every write is a compare-and-swap. The cache may be stale; it never authorizes anything.
* No finalizers and no annotations on users' objects. Their deletion never waits for the operator.
* Keys are written before a status mentions them, only into Secrets, and never anywhere else.
"""
