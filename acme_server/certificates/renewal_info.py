"""Renewal information and replacement of certificates (RFC 9773), answered from memory: it is asked often, by anybody.

An administrator asks for early renewal by `spec.renewIssuedBefore` of a profile or of a CA; what was issued before that
time then has its window from that time on.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from acme_server.certificates.renewal_window import Window, parse_certificate_id, retry_after_of, suggest_window
from acme_server.model import Caller
from acme_server.orders.identifiers import identifier_of
from acme_server.problems import NotFound, ProblemType, Refused, Unavailable
from acme_server.profiles import Profile
from acme_server.state.certificates import CertificateRecord, Certificates
from kms.clock import Clock
from kms.cluster.informer import Informer
from kms.pki.names import Name
from kms.resources.authorities import CertificateAuthority

_COLD = 5
"""Seconds until an inventory that is being filled is worth asking again."""


@dataclass(frozen=True, slots=True)
class RenewalInfo:
    """When to renew, and when to ask again (RFC 9773, 4.2)."""

    window: Window
    retry_after: timedelta


class Renewals:
    """What there is to say about the renewal of certificates."""

    def __init__(
        self, *, certificates: Certificates, authorities: Informer[CertificateAuthority], clock: Clock
    ) -> None:
        self._certificates = certificates
        self._authorities = authorities
        self._clock = clock

    def info(self, profile: Profile, certificate_id: str) -> RenewalInfo:
        """When the certificate should be renewed. Costs no call to the API server.

        Raises Refused: malformed where it is no identifier of a certificate, with status 404 where the profile has
        issued none of that identifier. Raises Unavailable while that is not known yet.
        """
        certificate = self._find(profile, certificate_id)
        if certificate is None:
            raise NotFound("The profile has issued no certificate with that identifier.")
        early = self._early_renewals(profile, certificate)
        window = suggest_window(certificate, issued_before=early, now=self._clock())
        return RenewalInfo(window, retry_after_of(certificate))

    def predecessor(self, caller: Caller, certificate_id: str, names: Sequence[Name]) -> CertificateRecord:
        """The certificate that an order for `names` may replace.

        Raises Refused: malformed for one that the profile has not issued or that has other names, unauthorized for one
        of another account. Clients try again without `replaces`, so the details name it.
        """
        certificate = self._find(caller.profile, certificate_id)
        if certificate is None:
            raise Refused(ProblemType.MALFORMED, "replaces: the profile has issued no certificate of that identifier.")
        if certificate.account != caller.account.metadata.name:
            raise Refused(ProblemType.UNAUTHORIZED, "replaces: the certificate is one of another account.")
        if not {identifier_of(each) for each in names}.intersection(certificate.identifiers):
            raise Refused(ProblemType.MALFORMED, "replaces: the certificate has none of the names of this order.")
        return certificate

    def _find(self, profile: Profile, certificate_id: str) -> CertificateRecord | None:
        wanted = parse_certificate_id(certificate_id)
        found = self._certificates.certificate(profile.namespace, wanted.serial_number)
        if found is not None and (found.authority_key_id, found.profile) == (wanted.authority_key_id, profile.name):
            return found
        if not self._certificates.complete:
            raise Unavailable("The server is still reading which certificates there are.", _COLD)
        return None

    def _early_renewals(self, profile: Profile, certificate: CertificateRecord) -> list[datetime]:
        """The times before which certificates like this one were issued that are to be renewed early."""
        authorities = (
            each
            for each in self._authorities.values()
            if (each.metadata.namespace, each.status.subject_key_id)
            == (certificate.namespace, certificate.authority_key_id)
        )
        times = (profile.resource.spec.renew_issued_before, *(each.spec.renew_issued_before for each in authorities))
        return [each for each in times if each is not None]


def already_replaced() -> Refused:
    """The answer to a second order that would replace the same certificate (RFC 9773, 7.4)."""
    return Refused(ProblemType.ALREADY_REPLACED, "replaces: another order replaces the certificate already.")
