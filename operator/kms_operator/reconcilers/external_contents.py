"""What of a profile an external CA cannot apply: it gets requests unchanged, and may decide otherwise."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from typing import Final

from kms.pki.usages import EXTENDED_KEY_USAGES
from kms.resources.authorities import ExternalAuthority
from kms.resources.durations import format_duration, parse_duration
from kms.resources.profiles import CertificateContents

CONTENTS_NOT_APPLICABLE: Final = "ContentsNotApplicable"
SHORTEST_OF_SIGNERS: Final = timedelta(seconds=600)
"""The minimum of spec.expirationSeconds of a CertificateSigningRequest."""


def inapplicable_contents(contents: CertificateContents, external: ExternalAuthority) -> Iterator[str]:
    """Return what to change, one clause for each field. Raises ValueError if the duration is none."""
    if contents.common_name != "Requested":
        yield (
            f"spec.certificate.commonName is {contents.common_name}, but an external CA gets the request of the client"
            " unchanged; write Requested"
        )
    purposes = {each for each in contents.usages if each in EXTENDED_KEY_USAGES}
    if "any" in purposes:
        yield 'spec.certificate.usages has "any", which is never accepted from an external CA; list the usages'
    elif not purposes:
        yield (
            "spec.certificate.usages has no extended key usage, without which certificates of an external CA are not"
            ' accepted; add one, such as "server auth"'
        )
    duration = parse_duration(contents.duration)
    if external.signer is not None and duration < SHORTEST_OF_SIGNERS:
        yield (
            f"spec.certificate.duration is {format_duration(duration)}, and signers of Kubernetes issue for at least"
            f" {format_duration(SHORTEST_OF_SIGNERS)}; write 10m or more"
        )
