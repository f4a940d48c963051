"""Secrets that the installation needs without a resource: the nonce key and the TLS certificate of the server.

The server starts when they exist: a nonce key that all replicas share, a serving CA, and a certificate of that CA for
the names of the server. A serving certificate that was not made by the operator is left alone.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta
from ipaddress import ip_address
from urllib.parse import urlsplit

from cryptography import x509

from kms.clock import Entropy
from kms.contract import SERVING_CA_PATH, SERVING_LIST_PATH
from kms.pki.ca import renewal_time, serving_authority, serving_certificate
from kms.pki.certificate import Signer, certificate_pem, certifies, random_serial
from kms.pki.keys import generate_key, private_key_pem
from kms.pki.names import Name
from kms.resources.core import Secret
from kms.resources.kinds import SECRETS
from kms.resources.secret_names import (
    CA_CERTIFICATE,
    NONCE_KEY,
    NONCE_SECRET,
    SERVING_AUTHORITY,
    SERVING_CERTIFICATE,
    TLS_CERTIFICATE,
    TLS_PRIVATE_KEY,
)
from kms_operator.objects import TLS, is_managed, secret_changes, shared_secret, signer_in
from kms_operator.plan import Event, Plan, earliest
from kms_operator.settings import OperatorSettings
from kms_operator.snapshot import Read, Snapshot

NONCE_KEY_BYTES = 32
AUTHORITY_LIFETIME = timedelta(days=3650)
CERTIFICATE_LIFETIME = timedelta(days=90)
BACKDATED = timedelta(hours=1)
CURVE = 256
_LOCAL = (Name("dns", "localhost"), Name("ip", "127.0.0.1"))


@dataclass(frozen=True, slots=True)
class _KeyPair:
    """The Secret of a certificate and its key, and when the certificate is renewed."""

    secret: Secret
    renew_at: datetime
    events: tuple[Event, ...] = ()


def reads(_: None, snapshot: Snapshot) -> Iterable[Read]:
    """The three Secrets."""
    settings = snapshot.settings
    names = settings.nonce_secret, settings.serving_authority, settings.serving_secret
    return [Read(SECRETS, settings.namespace, name) for name in names]


def plan(_: None, snapshot: Snapshot, *, now: datetime, entropy: Entropy) -> Plan:
    """Create missing Secrets, and renew certificates that are due."""
    nonce = secret_changes(snapshot.internal_secret(snapshot.settings.nonce_secret), _nonce(snapshot, entropy))
    existing = snapshot.internal_secret(snapshot.settings.serving_secret)
    if existing is not None and not is_managed(existing):
        return Plan(apply=nonce)
    authority, signer = _plan_authority(snapshot, now=now, entropy=entropy)
    certificate = _plan_certificate(existing, signer, snapshot.settings, now=now, entropy=entropy)
    return Plan(
        apply=(
            *nonce,
            *secret_changes(snapshot.internal_secret(snapshot.settings.serving_authority), authority.secret),
            *secret_changes(existing, certificate.secret),
        ),
        events=(*authority.events, *certificate.events),
        requeue_at=earliest(authority.renew_at, certificate.renew_at),
    )


def serving_names(settings: OperatorSettings) -> tuple[Name, ...]:
    """The names that the server is reached by: the host of its URL, its Service, and this machine if that is local."""
    service = Name("dns", f"{settings.service_name}.{settings.namespace}.svc")
    external = _host(urlsplit(settings.external_url).hostname or "")
    local = external.value == "localhost" or (external.type == "ip" and ip_address(external.value).is_loopback)
    return tuple(dict.fromkeys((external, service, *(_LOCAL if local else ()))))


def _host(host: str) -> Name:
    try:
        return Name("ip", str(ip_address(host)))
    except ValueError:
        return Name("dns", host)


def _nonce(snapshot: Snapshot, entropy: Entropy) -> Secret:
    settings = snapshot.settings
    existing = snapshot.internal_secret(settings.nonce_secret)
    key = existing.data.get(NONCE_SECRET, b"") if existing else b""
    if len(key) != NONCE_KEY_BYTES:
        key = entropy(NONCE_KEY_BYTES)
    return shared_secret(settings.namespace, settings.nonce_secret, component=NONCE_KEY, data={NONCE_SECRET: key})


def _plan_authority(snapshot: Snapshot, *, now: datetime, entropy: Entropy) -> tuple[_KeyPair, Signer]:
    settings = snapshot.settings
    current = signer_in(snapshot.internal_secret(settings.serving_authority))
    events: tuple[Event, ...] = ()
    if current is None or now >= renewal_time(current.certificate):
        key = current.key if current else generate_key("ECDSA", CURVE)
        certificate = serving_authority(
            key, serial=random_serial(entropy), not_before=now - BACKDATED, not_after=now + AUTHORITY_LIFETIME
        )
        events = (Event("Renewed" if current else "Issued", "the serving CA has a new certificate"),)
        current = Signer(certificate, key)
    secret = shared_secret(
        settings.namespace,
        settings.serving_authority,
        component=SERVING_AUTHORITY,
        data={
            TLS_PRIVATE_KEY: private_key_pem(current.key),
            TLS_CERTIFICATE: certificate_pem(current.certificate).encode(),
        },
        type_=TLS,
    )
    return _KeyPair(secret, renewal_time(current.certificate), events), current


def _plan_certificate(
    existing: Secret | None, authority: Signer, settings: OperatorSettings, *, now: datetime, entropy: Entropy
) -> _KeyPair:
    names = serving_names(settings)
    current = signer_in(existing)
    events: tuple[Event, ...] = ()
    if current is None or now >= renewal_time(current.certificate) or not _serves(current, names, authority):
        key = generate_key("ECDSA", CURVE)
        certificate = serving_certificate(
            names,
            key.public_key(),
            authority,
            serial=random_serial(entropy),
            not_before=now - BACKDATED,
            not_after=min(now + CERTIFICATE_LIFETIME, authority.not_after),
            crl_url=settings.locations + SERVING_LIST_PATH,
            ca_url=settings.locations + SERVING_CA_PATH,
        )
        listed = ", ".join(each.value for each in names)
        events = (Event("Renewed" if current else "Issued", f"the server has a new certificate for {listed}"),)
        current = Signer(certificate, key)
    secret = shared_secret(
        settings.namespace,
        settings.serving_secret,
        component=SERVING_CERTIFICATE,
        data={
            TLS_PRIVATE_KEY: private_key_pem(current.key),
            TLS_CERTIFICATE: certificate_pem(current.certificate).encode(),
            CA_CERTIFICATE: certificate_pem(authority.certificate).encode(),
        },
        type_=TLS,
    )
    return _KeyPair(secret, renewal_time(current.certificate), events)


def _serves(current: Signer, names: tuple[Name, ...], authority: Signer) -> bool:
    alternatives = current.certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    present = {("dns", each) for each in alternatives.get_values_for_type(x509.DNSName)}
    present |= {("ip", str(each)) for each in alternatives.get_values_for_type(x509.IPAddress)}
    return present == set(names) and certifies(authority.certificate, current.certificate)
