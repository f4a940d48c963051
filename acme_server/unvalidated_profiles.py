"""Reports the profiles that skip the validation of ownership, in the log and as a metric."""

from __future__ import annotations

import logging

from kms.resources.meta import Key, key_of
from kms.resources.profiles import CertificateProfile

logger = logging.getLogger(__name__)


class UnvalidatedProfiles:
    """The profiles with `ownershipValidation: Skipped`."""

    def __init__(self) -> None:
        self._keys: set[Key] = set()

    def update(self, profile: CertificateProfile, deleted: bool) -> None:  # noqa: FBT001 - the signature that informers call
        """Log a warning once for each profile that skips validation; at the start, for all of them."""
        acme, key = profile.spec.enrollment.acme, key_of(profile)
        if deleted or acme is None or acme.validates_ownership:
            self._keys.discard(key)
        elif key not in self._keys:
            self._keys.add(key)
            logger.warning("ownership of names is not validated", extra={"profile": "/".join(key)})

    def count(self) -> int:
        """The number of profiles that skip validation."""
        return len(self._keys)
