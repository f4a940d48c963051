"""The exceptions that cryptography raises for malformed bytes: more than its documentation says."""

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
    # A warning of attributes longer than RFC 5280 allows, where warnings are errors.
    UserWarning,
)
"""For requests and certificates; some are raised only when a part is accessed."""
