"""The operator: reconciles the configuration resources into Secrets and conditions.

The story of one change. kopf (`watches`, in a thread of its own) sees an event and hands the object over. `memory`
keeps it; `targets` says what it may affect; those keys go into the `workqueue`, once each. A worker of the `controller`
takes a key, makes sure of the Secrets that seem to be absent, and calls the pure function of that kind:

    reconcile(resource, seen: Snapshot, *, now, entropy) -> Outcome

`authorities`, `policies`, `profiles` and `eab` are those functions; `installation` is one for what no resource asks
for (nonce key, TLS of the server), `sweep` finds what outlived its owner. The `applier` carries the outcome out, the
same way for all kinds: it deletes and writes Secrets, writes the status where it says something new, and posts Events.
An outcome may also say when to look again: at a renewal, at an expiry, in a minute where a Secret is not ours to watch.

What holds throughout:

* Level-triggered. What happened does not matter, only what is: after a crash, a lost event or a conflict the same
  function sees the same cluster and decides the same.
* Every write is a compare-and-swap. Cache may be stale; it never authorises anything.
* No finalizers and no annotations on users' objects. Deleting them never waits for the operator.
* Keys are written before anybody hears of them, only into Secrets, and never again anywhere else.
"""
