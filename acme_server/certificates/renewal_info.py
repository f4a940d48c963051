"""Renewal information and replacement of certificates (RFC 9773), answered from memory: clients ask often.

An administrator asks for early renewal by `spec.renewIssuedBefore` of a profile or of a CA; certificates that were
issued before that time then have their window from that time on.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from acme_server.certificates.renewal_window import Window, parse_certificate_id, retry_after_of, suggest_window
from acme_server.model import Caller, Profile
from acme_server.orders.identifiers import identifier_of
from acme_server.problems import NotFound, ProblemType, Refused, Unavailable
from acme_server.state.certificates import CertificateRecord, Certificates
from kms.clock import Clock
from kms.cluster.informer import Informer
from kms.pki.names import Name
from kms.resources.authorities import CertificateAuthority

_COLD = 5
"""Seconds until a client should try again while the index of certificates is incomplete."""


@dataclass(frozen=True, slots=True)
class RenewalInfo:
    """When to renew, and when to ask again (RFC 9773, 4.2)."""

    window: Window
    retry_after: timedelta


class Renewals:
    """Answers questions about the renewal of certificates."""

    def __init__(
        self, *, certificates: Certificates, authorities: Informer[CertificateAuthority], clock: Clock
    ) -> None:
        self._certificates = certificates
        self._authorities = authorities
        self._clock = clock

    def info(self, profile: Profile, certificate_id: str) -> RenewalInfo:
        """When to renew the certificate. Costs no request to the API server.

        Raises Refused (malformed) for a malformed identifier, NotFound where the profile has not issued the
        certificate, and Unavailable while the server does not know all certificates.
        """
        certificate = self._find(profile, certificate_id)
        if certificate is None:
            raise NotFound("The profile has issued no certificate with that identifier.")
        early = self._early_renewals(profile, certificate)
        window = suggest_window(certificate, issued_before=early, now=self._clock())
        return RenewalInfo(window, retry_after_of(certificate))

    def predecessor(self, caller: Caller, certificate_id: str, names: Sequence[Name]) -> CertificateRecord:
        """The certificate that an order for `names` may replace.

        Raises Refused: malformed where the profile has not issued it or it shares no name with the order, unauthorized
        where it belongs to another account. Clients try again without `replaces`, so the details name that member.
        """
        certificate = self._find(caller.profile, certificate_id)
        if certificate is None:
            raise Refused(
                ProblemType.MALFORMED, "replaces: the profile has issued no certificate with that identifier."
            )
        if certificate.account != caller.account.metadata.name:
            raise Refused(ProblemType.UNAUTHORIZED, "replaces: the certificate belongs to another account.")
        if not {identifier_of(each) for each in names}.intersection(certificate.identifiers):
            raise Refused(ProblemType.MALFORMED, "replaces: the certificate shares no name with this order.")
        return certificate

    def _find(self, profile: Profile, certificate_id: str) -> CertificateRecord | None:
        wanted = parse_certificate_id(certificate_id)
        found = self._certificates.certificate(profile.namespace, wanted.serial_number)
        if found is not None and (found.authority_key_id, found.profile) == (wanted.authority_key_id, profile.name):
            return found
        if not self._certificates.complete:
            raise Unavailable("The server is still reading its certificates.", _COLD)
        return None

    def _early_renewals(self, profile: Profile, certificate: CertificateRecord) -> list[datetime]:
        """The `renewIssuedBefore` times of the profile and of the CA that signed the certificate."""
        authorities = (
            each
            for each in self._authorities.values()
            if (each.metadata.namespace, each.status.subject_key_id)
            == (certificate.namespace, certificate.authority_key_id)
        )
        times = (profile.resource.spec.renew_issued_before, *(each.spec.renew_issued_before for each in authorities))
        return [each for each in times if each is not None]


def already_replaced() -> Refused:
    """The refusal of a second order that replaces the same certificate (RFC 9773, 7.4)."""
    return Refused(ProblemType.ALREADY_REPLACED, "replaces: another order already replaces the certificate.")
