"""What the installation needs: a nonce key, a serving CA and a certificate for the server."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime
from typing import Any

import pytest
from cryptography import x509

from kms.pki.ca import load_signer, renewal_time
from kms.pki.certificate import Signer, certifies
from kms.resources.core import Secret
from kms_operator.plan import Plan
from kms_operator.reconcilers import installation
from kms_operator.settings import OperatorSettings
from tests.support.operated import (
    DAY,
    NOW,
    RELEASE,
    SETTINGS,
    entropy,
    event_reasons,
    names,
    objects,
    secret,
    snapshot_of,
    stored,
)


def reconciled(*secrets: Secret, now: datetime = NOW, settings: OperatorSettings = SETTINGS) -> Plan:
    return installation.plan(None, snapshot_of(*secrets, settings=settings), now=now, entropy=entropy(str(now)))


def made(**more: Any) -> tuple[Secret, Secret, Secret]:
    nonce, authority, serving = (stored(each) for each in objects(reconciled(**more).apply))
    return nonce, authority, serving


def signer_in(one: Secret) -> Signer:
    return load_signer(one.data["tls.crt"], one.data["tls.key"])


def test_everything_is_made_where_nothing_is() -> None:
    plan = reconciled()
    nonce, authority, serving = objects(plan.apply)
    assert names(objects(plan.apply)) == [f"{RELEASE}/kms-acme-{each}" for each in ("nonce", "serving-ca", "serving")]
    assert len(nonce.data["key"]) == 32
    assert (authority.type, serving.type) == ("kubernetes.io/tls", "kubernetes.io/tls")
    assert certifies(signer_in(authority).certificate, signer_in(serving).certificate)
    assert serving.data["ca.crt"] == authority.data["tls.crt"]
    assert event_reasons(plan) == ["Issued", "Issued"]
    assert plan.requeue_at == renewal_time(signer_in(serving).certificate)


def test_two_installations_in_one_namespace_share_no_key_and_leave_each_other_alone() -> None:
    other = OperatorSettings(
        external_url=SETTINGS.external_url, namespace=RELEASE, service_name="shop", serving_secret="shop-serving"
    )
    ours = made()
    theirs = [stored(each) for each in objects(reconciled(*ours, settings=other).apply)]
    assert names(theirs) == [f"{RELEASE}/shop-{each}" for each in ("nonce", "serving-ca", "serving")]
    assert certifies(signer_in(theirs[1]).certificate, signer_in(theirs[2]).certificate)
    for settings in (SETTINGS, other):
        assert objects(reconciled(*ours, *theirs, settings=settings).apply) == ()


@pytest.mark.parametrize(
    ("settings", "base"),
    [
        (SETTINGS, "http://acme.example.com"),
        (replace(SETTINGS, external_url="https://localhost:8443"), "http://localhost:8080"),
        (replace(SETTINGS, http_url="http://pki.example.com"), "http://pki.example.com"),
    ],
)
def test_the_serving_certificate_names_the_list_and_the_certificate_of_its_ca(
    settings: OperatorSettings, base: str
) -> None:
    *_, serving = made(settings=settings)
    extensions = signer_in(serving).certificate.extensions
    (point,) = extensions.get_extension_for_class(x509.CRLDistributionPoints).value
    (access,) = extensions.get_extension_for_class(x509.AuthorityInformationAccess).value
    assert point.full_name is not None
    assert point.full_name[0].value == f"{base}/crl/serving.crl"
    assert access.access_location.value == f"{base}/ca/serving.crt"
    moved = replace(settings, http_url="http://elsewhere.example.com")
    assert objects(reconciled(*made(settings=settings), settings=moved).apply) == (), "it waits for its renewal"


def test_what_stands_is_left_alone() -> None:
    plan = reconciled(*made())
    assert (objects(plan.apply), plan.events) == ((), ())


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("https://acme.example.com", {"acme.example.com", "kms-acme.kms-acme.svc"}),
        ("https://localhost:8443", {"localhost", "127.0.0.1", "kms-acme.kms-acme.svc"}),
        ("https://127.0.0.2:8443", {"127.0.0.2", "localhost", "127.0.0.1", "kms-acme.kms-acme.svc"}),
        ("https://[2001:db8::1]", {"2001:db8::1", "kms-acme.kms-acme.svc"}),
    ],
)
def test_the_server_has_a_certificate_for_the_names_it_is_reached_by(url: str, expected: set[str]) -> None:
    *_, serving = made(settings=OperatorSettings(external_url=url, namespace=RELEASE))
    alternatives = signer_in(serving).certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    dns = alternatives.get_values_for_type(x509.DNSName)
    assert {*dns, *map(str, alternatives.get_values_for_type(x509.IPAddress))} == expected


def test_other_names_make_another_certificate_under_the_same_ca() -> None:
    parts = made()
    moved = OperatorSettings(external_url="https://new.example.com", namespace=RELEASE)
    plan = reconciled(*parts, settings=moved)
    assert names(objects(plan.apply)) == [f"{RELEASE}/kms-acme-serving"]
    assert event_reasons(plan) == ["Renewed"]


def test_the_serving_certificate_is_renewed_in_time() -> None:
    nonce, authority, serving = made()
    assert objects(reconciled(nonce, authority, serving, now=NOW + 59 * DAY).apply) == ()
    (renewed,) = objects(reconciled(nonce, authority, serving, now=NOW + 61 * DAY).apply)
    assert signer_in(renewed).not_after > signer_in(serving).not_after
    assert renewed.data["tls.key"] != serving.data["tls.key"]


@pytest.mark.requirement("SEC65")
def test_the_serving_ca_is_renewed_with_its_key_so_that_clients_go_on_trusting() -> None:
    nonce, authority, serving = made()
    renewed, again = objects(reconciled(nonce, authority, serving, now=NOW + 2500 * DAY).apply)
    assert renewed.data["tls.key"] == authority.data["tls.key"]
    assert certifies(signer_in(authority).certificate, signer_in(again).certificate)


def test_a_serving_certificate_of_another_ca_is_replaced() -> None:
    nonce, _, serving = made()
    plan = reconciled(nonce, serving)
    assert names(objects(plan.apply)) == [f"{RELEASE}/kms-acme-serving-ca", f"{RELEASE}/kms-acme-serving"]


def test_a_serving_certificate_from_elsewhere_is_left_alone() -> None:
    foreign = secret("kms-acme-serving", RELEASE, data={"tls.crt": b"theirs"}, type_="kubernetes.io/tls")
    plan = reconciled(foreign)
    assert names(objects(plan.apply)) == [f"{RELEASE}/kms-acme-nonce"]
    assert plan.requeue_at is None


def test_damaged_secrets_are_made_anew() -> None:
    parts = made()
    for each in parts:
        each.data.update(dict.fromkeys(each.data, b"damaged"))
    plan = reconciled(*parts)
    assert len(objects(plan.apply)) == 3
    assert len(objects(plan.apply)[0].data["key"]) == 32


def test_the_controller_is_told_which_secrets_to_be_sure_of() -> None:
    assert [f"{each.namespace}/{each.name}" for each in installation.reads(None, snapshot_of())] == names(made())
