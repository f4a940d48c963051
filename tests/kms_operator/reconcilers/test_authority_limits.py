"""What a CA limits is told before certificates show it: their end, their usages, and flaws of an imported CA."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime, timedelta
from typing import Any

import pytest
from cryptography import x509
from cryptography.x509.oid import ExtendedKeyUsageOID

from kms.contract import DURATION_SHORTENED, WARNINGS
from kms.pki.certificate import Signer, sign
from kms.resources.meta import Condition, condition
from kms_operator.plan import Plan
from kms_operator.reconcilers import certificate_authority, certificate_profile
from tests.support import pki
from tests.support.operated import (
    DAY,
    NOW,
    SERVING,
    authority,
    entropy,
    event_reasons,
    pair,
    policy,
    profile,
    published,
    secret,
    snapshot_of,
    stated,
)

MINUTE, HOUR = timedelta(minutes=1), timedelta(hours=1)
SERVER, CLIENT, ANY = (
    ExtendedKeyUsageOID.SERVER_AUTH,
    ExtendedKeyUsageOID.CLIENT_AUTH,
    ExtendedKeyUsageOID.ANY_EXTENDED_KEY_USAGE,
)


def corporate(
    *, not_after: datetime = NOW + 365 * DAY, usages: Iterable[x509.ObjectIdentifier] = (), named: bool = True
) -> Signer:
    """A self-signed CA as an administrator may have made it with other tools."""
    key = pki.key(which="corporate")
    names = [x509.NameAttribute(x509.NameOID.COMMON_NAME, "Corporate CA")] if named else []
    builder = (
        x509.CertificateBuilder()
        .issuer_name(x509.Name(names))
        .subject_name(x509.Name(names))
        .public_key(key.public_key())
        .serial_number(7)
        .not_valid_before(NOW - DAY)
        .not_valid_after(not_after)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
    )
    if usages := list(usages):
        builder = builder.add_extension(x509.ExtendedKeyUsage(usages), critical=False)
    return Signer(sign(builder, key), key)


def imported(signer: Signer, *, now: datetime = NOW) -> Plan:
    one = authority("issuing", imported="corporate")
    snapshot = snapshot_of(one, secret("corporate", data=pair(signer)), profile())
    return certificate_authority.plan(one, snapshot, now=now, entropy=entropy())


def under(signer: Signer, *, now: datetime = NOW, usages: tuple[str, ...] = ("server auth",), **spec: Any) -> Plan:
    one = profile(certificate={"usages": ["digital signature", *usages], **spec})
    ca = authority("issuing", imported="corporate", status=published(signer))
    snapshot = snapshot_of(one, ca, policy(), SERVING)
    return certificate_profile.plan(one, snapshot, now=now, entropy=entropy())


def found(plan: Plan, type_: str) -> Condition | None:
    status: Any = plan.status
    return condition(status.conditions, type_)


def test_a_profile_says_that_certificates_end_with_the_ca_and_when_that_will_be() -> None:
    signer = corporate(not_after=NOW + 40 * DAY)
    early = under(signer)
    assert (found(early, DURATION_SHORTENED), early.requeue_at) == (None, NOW + 10 * DAY)
    plan = under(signer, now=NOW + 11 * DAY)
    told = stated(plan, DURATION_SHORTENED)
    assert (told.status, told.reason, stated(plan).status) == ("True", "CertificateAuthorityEnds", "True")
    assert f"{signer.not_after:%Y-%m-%dT%H:%M:%SZ}" in told.message
    assert "720h" in told.message
    assert plan.requeue_at == signer.not_after - HOUR
    assert "CertificateAuthorityEnds" in event_reasons(plan)
    assert {each.reason: each.type for each in plan.events}["CertificateAuthorityEnds"] == "Warning"
    late = under(signer, now=signer.not_after - 22 * timedelta(seconds=1))
    assert stated(late, DURATION_SHORTENED).reason == "CertificateAuthorityEndsTooSoon"


def test_the_first_certificate_of_the_chain_to_end_counts() -> None:
    above = pki.root(not_after=NOW + 5 * DAY)
    lower = corporate()
    chain = Signer(lower.certificate, lower.key, (above.certificate,))
    assert stated(under(chain), DURATION_SHORTENED).status == "True"


def test_a_duration_beyond_all_dates_is_told_as_well() -> None:
    assert found(under(corporate(), duration="99999999h"), DURATION_SHORTENED) is not None


@pytest.mark.parametrize(
    ("permitted", "usages", "refused"),
    [
        ((), ("server auth",), []),
        ((SERVER,), ("server auth",), []),
        ((ANY,), ("server auth", "client auth"), []),
        ((CLIENT,), ("server auth",), ["server auth"]),
        ((SERVER,), ("server auth", "client auth"), ["client auth"]),
    ],
)
def test_usages_that_the_ca_does_not_permit_are_named(
    permitted: tuple[x509.ObjectIdentifier, ...], usages: tuple[str, ...], refused: list[str]
) -> None:
    plan = under(corporate(usages=permitted), usages=usages)
    told = found(plan, WARNINGS)
    assert [each for each in usages if told is not None and f'usage "{each}"' in told.message] == refused
    assert told is None or 'extendedKeyUsage of the CA "CN=Corporate CA"' in told.message
    assert stated(plan).status == "True"


def test_an_imported_ca_without_a_subject_says_so() -> None:
    plan = imported(corporate(named=False))
    assert stated(plan).status == "True"
    assert "has an empty subject" in stated(plan, WARNINGS).message
    assert found(imported(corporate()), WARNINGS) is None


def test_an_imported_ca_that_ends_within_the_duration_of_certificates_says_so() -> None:
    plan = imported(corporate(not_after=NOW + 29 * DAY))
    assert (stated(plan).status, stated(plan, WARNINGS).reason) == ("True", "FlawedCertificate")
    assert "within the 720h that certificates last" in stated(plan, WARNINGS).message
