"""Says aloud which profiles take a credential for a proof: in the log, from the start on, and as a metric."""

from __future__ import annotations

import logging

from acme_server.state.cache import Key
from kms.resources.meta import key_of
from kms.resources.profiles import CertificateProfile

logger = logging.getLogger(__name__)


class UnvalidatedProfiles:
    """The profiles with `ownershipValidation: Skipped`, as the informer sees them."""

    def __init__(self) -> None:
        self._keys: set[Key] = set()

    def seen(self, profile: CertificateProfile, deleted: bool) -> None:  # noqa: FBT001 - the signature that informers call
        """Warn once of each profile that skips; at the start, that is of all that there are."""
        acme, key = profile.spec.enrollment.acme, key_of(profile)
        if deleted or acme is None or acme.validates_ownership:
            self._keys.discard(key)
        elif key not in self._keys:
            self._keys.add(key)
            logger.warning("ownership of names is not validated", extra={"profile": "/".join(key)})

    def count(self) -> int:
        """How many profiles skip."""
        return len(self._keys)
