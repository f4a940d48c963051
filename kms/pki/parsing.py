"""What cryptography raises at bytes that are not what they should be: more than its documentation says."""

from __future__ import annotations

from typing import Final

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm

PARSER_ERRORS: Final = (
    ValueError,
    TypeError,
    OverflowError,
    KeyError,  # a TLS feature (RFC 7633) that it does not know
    UnsupportedAlgorithm,
    x509.InvalidVersion,
    x509.DuplicateExtension,
    x509.UnsupportedGeneralNameType,
    # It warns of attributes longer than RFC 5280 allows; where warnings are errors, that is one.
    UserWarning,
)
"""For requests and certificates; any of them may come as late as when a part is looked at."""
