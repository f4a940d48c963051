"""A cluster worth looking at: CAs in a tree, certificates that end at different times, failures and refusals."""

from __future__ import annotations

from datetime import timedelta

from cryptography.x509 import SubjectKeyIdentifier
from msgspec.structs import replace

from kms.pki.certificate import Signer, certificate_pem
from kms.resources.authorities import AuthoritySpec, AuthorityStatus, CertificateAuthority, InternalAuthority, Subject
from kms.resources.kinds import AUTHORITIES, PROFILES
from kms.resources.meta import Condition, LocalRef, ObjectMeta
from kms_acme.certificates import LISTED_ORDERS
from kms_acme.console.entries import EVENTS, Event
from tests.support import pki
from tests.support.apiserver import FakeApiServer
from tests.support.many_orders import listed
from tests.support.shown_cluster import AT, CLIENT, READY, fill

DAY = timedelta(days=1)


def fill_scene(api: FakeApiServer, *, orders: int = 240) -> None:
    """Put the objects into an API server."""
    fill(api)
    root = pki.root(common_name="Example Root")
    for name, signer, above, days in (
        ("root", root, None, 3_400),
        ("issuing", pki.below(root, common_name="Example Issuing CA"), "root", 700),
        ("machines", pki.below(root, common_name="Example Machines CA"), "root", 41),
    ):
        _put_authority(api, name, signer, above, days)
    _put_broken_profile(api)
    for number in range(orders):
        order = listed(number * 7)
        spec = replace(order.spec, profile_ref=LocalRef(name="web"), account_ref=LocalRef(name=CLIENT))
        status = replace(order.status, authority_key_id=_key_id(root)) if order.status.serial_number else order.status
        api.store.clock = lambda number=number: AT - timedelta(minutes=7 * number)  # type: ignore[misc]
        api.put(LISTED_ORDERS, replace(order, spec=spec, status=status))
    api.put(
        EVENTS,
        Event(
            metadata=ObjectMeta(namespace="pki", name="refused"),
            event_time=AT - timedelta(minutes=12),
            type="Warning",
            reason="OrderRefused",
            note='DNS name "admin.apps.example.com" is denied by policy pki/web (spec.dnsNames.denied)',
        ),
    )
    body = next(body for key, body in api.store.by_key.items() if key.plural == "events")
    body["reportingController"] = "pki.kms.hanzo.ai/server"
    body["regarding"] = {"kind": "EABCredential", "namespace": "pki", "name": "web"}


def _put_authority(api: FakeApiServer, name: str, signer: Signer, above: str | None, days: int) -> None:
    issuer = LocalRef(name=above) if above is not None else None
    common_name = f"Example {name.title()} CA"
    internal = InternalAuthority(subject=Subject(common_name=common_name), issuer_ref=issuer)
    status = AuthorityStatus(
        type="Internal",
        subject=f"CN={common_name}",
        certificate=certificate_pem(signer.certificate),
        subject_key_id=_key_id(signer),
        not_before=AT - 30 * DAY,
        not_after=AT + days * DAY,
        conditions=READY,
    )
    metadata = ObjectMeta(namespace="pki", name=name)
    api.put(AUTHORITIES, CertificateAuthority(metadata=metadata, spec=AuthoritySpec(internal=internal), status=status))


def _put_broken_profile(api: FakeApiServer) -> None:
    profile = api.read(PROFILES, "pki", "web")
    assert profile is not None
    condition = Condition(
        type="Ready",
        status="False",
        reason="PolicyNotFound",
        message="there is no CertificatePolicy pki/hosts",
        last_transition_time=AT - timedelta(hours=2),
    )
    status = replace(profile.status, conditions=(condition,))
    api.put(PROFILES, replace(profile, metadata=ObjectMeta(namespace="pki", name="hosts"), status=status))


def _key_id(signer: Signer) -> str:
    return SubjectKeyIdentifier.from_public_key(signer.certificate.public_key()).digest.hex()
