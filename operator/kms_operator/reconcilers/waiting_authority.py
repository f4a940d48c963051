"""What the operator writes for a CA by request that waits for its certificate: the key, and the request for it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime

import msgspec

from kms.contract import NOTIFICATIONS, TRUST_PUBLISHED
from kms.resources.authorities import CertificateAuthority
from kms.resources.kept import FORMER_KEYS, FORMER_ROOT_CERTIFICATES, FORMER_ROOTS, LONGEST_CERTIFICATE, SERVED_PROFILES
from kms.resources.kinds import AUTHORITIES, SECRETS
from kms.resources.secret_names import (
    CERTIFICATE_REQUEST,
    SIGNING_KEY,
    TLS_CERTIFICATE,
    signing_key_name,
)
from kms_operator.objects import internal_secret, secret_changes
from kms_operator.plan import (
    RESYNC,
    Event,
    Manifest,
    Plan,
    Refusal,
    earliest,
    merge_conditions,
    not_ready,
    transition_events,
)
from kms_operator.reconcilers.kept_keys import predecessors
from kms_operator.reconcilers.requested_authority import WaitingAuthority
from kms_operator.reconcilers.stored_keys import has_key, key_data, load_stored_key, state_protection
from kms_operator.snapshot import Snapshot

RESTORED = "Restored"
_LASTING = (LONGEST_CERTIFICATE, FORMER_ROOTS, FORMER_ROOT_CERTIFICATES, FORMER_KEYS, SERVED_PROFILES)
"""Annotations of a CA whose certificate has ended: they are needed again when it has another one."""


def plan_waiting(
    authority: CertificateAuthority,
    waiting: WaitingAuthority,
    snapshot: Snapshot,
    *,
    now: datetime,
    on_refusals: Callable[[Sequence[Refusal]], Plan],
) -> Plan:
    """Keep the key, publish the request, and state what the CA waits for.

    The request is in the Secret, too: by that, an object that is created again after this one was deleted finds its
    key, although no certificate says whose it is.
    """
    name, old = signing_key_name(authority.metadata.uid), authority.status.conditions
    existing, stored = snapshot.internal_secret(name), load_stored_key(authority, snapshot)
    key = key_data(waiting.key, stored)
    before = predecessors(authority, AUTHORITIES, SIGNING_KEY, snapshot)
    taken = [each for each in before if has_key(each, key)]
    source = existing or next(iter(taken), None)
    annotations = {} if source is None else source.metadata.annotations
    chain = b"" if source is None else source.data.get(TLS_CERTIFICATE, b"")
    wanted = internal_secret(
        snapshot.settings.namespace,
        name,
        component=SIGNING_KEY,
        owner=authority,
        kind=AUTHORITIES,
        annotations={each: annotations[each] for each in _LASTING if each in annotations},
        data={
            **key,
            CERTIFICATE_REQUEST: waiting.request.encode(),
            **({TLS_CERTIFICATE: chain} if chain else {}),
        },
    )
    update = not_ready(waiting.reason, waiting.message)
    updates = (update, *((state_protection(stored),) if stored is not None else ()))
    generation = authority.metadata.generation
    status = msgspec.structs.replace(
        authority.status,
        observed_generation=generation,
        type="Intermediate",
        request=waiting.request,
        key_version=stored.version if stored is not None else None,
        conditions=merge_conditions(
            old, updates, generation=generation, now=now, keep=(TRUST_PUBLISHED, NOTIFICATIONS)
        ),
    )
    events = tuple(event for each in updates for event in transition_events(old, each))
    if existing is None and taken:
        events = (*events, Event(RESTORED, f"uses the key of Secret {taken[0].metadata.name} again"))
    return Plan(
        # Only once this CA has the key in a Secret of its own.
        delete=tuple(Manifest(SECRETS, each) for each in taken) if existing is not None else (),
        apply=secret_changes(existing, wanted),
        status=status,
        events=events,
        requeue_at=earliest(waiting.requeue_at, now + RESYNC if stored is not None else None),
        on_refusals=on_refusals,
    )
