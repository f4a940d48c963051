"""Secrets of the release namespace that outlived their owner.

Owner references do not cross namespaces, and a finalizer would leave users' objects stuck whenever the operator is
down. So a Secret says whose it is, and is swept when that resource is gone. A signing key is worth more than tidiness:
nothing goes before the API server has been asked for the very resource that the Secret names.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

from kms.resources.core import Secret
from kms.resources.kinds import AUTHORITIES, CREDENTIALS, Kind
from kms.resources.secrets import COMPONENT, OWNER, OWNER_UID, SIGNING_KEY, VERIFICATION_KEY
from kms_operator.observed import Key, Observed, is_managed

_OWNER = re.compile(r"(\S+) ([^/\s]+)/([^/\s]+)")
_KINDS: dict[str | None, Kind[Any]] = {SIGNING_KEY: AUTHORITIES, VERIFICATION_KEY: CREDENTIALS}


@dataclass(frozen=True, slots=True)
class Stray:
    """A Secret whose owner is not known here, and where to ask whether it exists."""

    secret: Secret
    kind: Kind[Any]
    owner: Key
    uid: str


def strays(seen: Observed) -> tuple[Stray, ...]:
    """Secrets that may have lost their owner.

    Only what says by label and annotation whose it is, and only for namespaces that this operator watches: another
    installation may share the release namespace.
    """
    alive = {each.metadata.uid for known in (seen.authorities, seen.credentials) for each in known.values()}
    found = (_stray(each) for each in seen.secrets.values() if each.metadata.namespace == seen.settings.namespace)
    return tuple(
        each for each in found if each is not None and each.uid not in alive and seen.settings.watches(each.owner[0])
    )


def _stray(secret: Secret) -> Stray | None:
    labels = secret.metadata.labels
    kind = _KINDS.get(labels.get(COMPONENT))
    uid = labels.get(OWNER_UID)
    named = _OWNER.fullmatch(secret.metadata.annotations.get(OWNER, ""))
    if not is_managed(secret) or kind is None or not uid or named is None or named[1] != kind.kind:
        return None
    return Stray(secret, kind, (named[2], named[3]), uid)
