"""Renewal information (RFC 9773), answered from memory: clients ask often.

An administrator asks for early renewal by `spec.renewIssuedBefore` of a profile or of a CA; certificates that were
issued before that time then have their window from that time on.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta

from acme_server.certificates.renewal_window import Window, retry_after_of, suggest_window
from acme_server.model import Profile
from acme_server.problems import NotFound
from acme_server.state.certificates import CertificateRecord, Certificates
from kms.clock import Clock
from kms.cluster.informer import Informer
from kms.resources.authorities import CertificateAuthority


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

        Raises Refused (malformed) for a malformed identifier, NotFound if the profile has not issued the
        certificate, and Unavailable while the server does not know all certificates.
        """
        certificate = self._certificates.find(profile, certificate_id)
        if certificate is None:
            raise NotFound("The profile has issued no certificate with that identifier.")
        early = self._early_renewals(profile, certificate)
        window = suggest_window(certificate, issued_before=early, now=self._clock())
        return RenewalInfo(window, retry_after_of(certificate))

    def is_due(self, profile: Profile, certificate: CertificateRecord) -> bool:
        """Whether the certificate should be renewed now: its window has begun, and it has not expired."""
        now = self._clock()
        window = suggest_window(certificate, issued_before=self._early_renewals(profile, certificate), now=now)
        return window.start <= now <= certificate.not_after

    def _early_renewals(self, profile: Profile, certificate: CertificateRecord) -> list[datetime]:
        """The `renewIssuedBefore` times of the profile and of the CA that signed the certificate.

        An external CA may sign with another key tomorrow: it is known by its name.
        """
        authorities = (
            each
            for each in self._authorities.values()
            if each.metadata.namespace == certificate.namespace and _has_issued(each, certificate)
        )
        times = (profile.resource.spec.renew_issued_before, *(each.spec.renew_issued_before for each in authorities))
        return [each for each in times if each is not None]


def _has_issued(authority: CertificateAuthority, certificate: CertificateRecord) -> bool:
    if certificate.authority is None:
        return certificate.authority_key_id in authority.key_ids
    return authority.metadata.name == certificate.authority
