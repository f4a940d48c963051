"""Cross-certificates in PEM, which any tenant may write into a CertificateAuthority."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from fuzz.target import Target
from kms.pki.ca import AuthorityTemplate, InvalidAuthority, check_cross, self_signed
from kms.pki.certificate import Signer
from kms.pki.keys import generate_key

NOW = datetime(2026, 11, 25, tzinfo=UTC)
TEMPLATE = AuthorityTemplate(
    common_name="Fuzzed", serial=1, not_before=NOW - timedelta(days=1), not_after=NOW + timedelta(days=9), path_length=1
)
_KEY = generate_key("ECDSA", 256)
SIGNER = Signer(self_signed(TEMPLATE, _KEY), _KEY)


def read(data: bytes) -> None:
    """Parse the text of the field."""
    check_cross(data.decode("utf-8", "replace"), SIGNER, now=NOW)


TARGET = Target(read, (InvalidAuthority,))
