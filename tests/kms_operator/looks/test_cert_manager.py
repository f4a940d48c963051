"""What an issuer of cert-manager, or of another group, says of itself, and what follows."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest

from kms.cluster.errors import Unavailable
from kms.resources.authorities import IssuerRef
from kms.resources.certmanager import ObservedIssuer
from kms.resources.kinds import CLUSTER_ISSUERS, ISSUERS, Kind
from kms_operator.looks.cert_manager import judge, look_at_issuer
from kms_operator.observation import Observation, foreign
from tests.support.apiserver import FakeApiServer, running_api
from tests.support.operated import SETTINGS, authority, metadata

REF = IssuerRef(name="corporate")
WHAT = "Issuer pki/corporate"
CA = {"ca": {"secretName": "corporate-ca"}}


def ready(status: str = "True", **more: Any) -> dict[str, Any]:
    return {"conditions": [{"type": "Other", "status": "True"}, {"type": "Ready", "status": status, **more}]}


def said(
    spec: Mapping[str, Any] = CA, status: Any = None, *, ref: IssuerRef = REF, settings: Any = SETTINGS
) -> Observation:
    issuer = ObservedIssuer(
        metadata=metadata("corporate", generation=3), spec=dict(spec), status=ready() if status is None else status
    )
    return judge(ref, issuer, settings, what=WHAT)


def test_an_issuer_that_says_so_is_ready() -> None:
    assert said() == Observation("True", "IssuerReady", "Issuer pki/corporate is ready")


@pytest.mark.requirement("X3")
@pytest.mark.parametrize(
    ("status", "message"),
    [
        ({}, "has no condition Ready yet; its controller may not be running"),
        ({"conditions": "none"}, "has no condition Ready yet; its controller may not be running"),
        ({"conditions": [None, {"type": "Other", "status": "True"}]}, "has no condition Ready yet; its controller"),
        (ready("False", reason="ErrGetKeyPair", message="no key\npair"), "is not ready: ErrGetKeyPair: no key pair"),
        (ready("Unknown"), "is not ready"),
        (ready("True", observedGeneration=2), "was changed, and its controller has not looked at it since"),
    ],
    ids=["none", "damaged", "other", "false", "unknown", "former generation"],
)
def test_an_issuer_that_does_not_say_so_is_not_ready(status: Any, message: str) -> None:
    found = said(status=status)
    assert (found.status, found.reason) == ("False", "IssuerNotReady")
    assert message in found.message


@pytest.mark.requirement("X3")
@pytest.mark.parametrize("generation", [3, 0, "2", None])
def test_a_generation_counts_only_where_it_is_told(generation: Any) -> None:
    assert said(status=ready("True", observedGeneration=generation)).status == "True"


@pytest.mark.requirement("X4")
@pytest.mark.parametrize(
    ("external_url", "server"),
    [
        ("https://acme.example.com", "https://acme.example.com/acme/pki/web/directory"),
        ("https://acme.example.com", "https://ACME.example.com.:443/acme/pki/web/directory"),
        ("https://acme.example.com:443", "https://acme.example.com/other"),
        ("https://acme.example.com:8443", "https://acme.example.com:8443/acme/pki/web/directory"),
        ("https://acme.example.com", "https://kms-acme.kms-acme.svc/acme/pki/web/directory"),
        ("https://acme.example.com", "https://kms-acme.kms-acme.svc.cluster.local:8443/acme/pki/web/directory"),
        ("https://[2001:db8::1]", "https://[2001:DB8::1]:443/directory"),
    ],
)
def test_an_acme_issuer_of_this_server_is_refused(external_url: str, server: str) -> None:
    found = said({"acme": {"server": server}}, settings=replace(SETTINGS, external_url=external_url))
    assert (found.status, found.reason, found.is_definite) == ("False", "IssuerLoops", True)
    assert server in found.message


@pytest.mark.requirement("X4")
@pytest.mark.parametrize(
    "server",
    [
        "https://acme-v02.api.letsencrypt.org/directory",
        "https://acme.example.com:14000/dir",
        "https://acme.example.com.evil.test/directory",
        "https://kms-acme.other.svc/directory",
        "no URL",
        "https://[bad",
        "https://acme.example.com:port/",
        7,
    ],
)
def test_an_acme_issuer_of_another_ca_is_not(server: Any) -> None:
    assert said({"acme": {"server": server}}).status == "True"


def test_a_self_signed_issuer_is_unsuitable_in_the_group_of_cert_manager_alone() -> None:
    found = said({"selfSigned": {}})
    assert (found.status, found.reason, found.is_definite) == ("False", "IssuerUnsuitable", True)
    assert said({"selfSigned": {}}, ref=IssuerRef(name="corporate", group="example.com")).status == "True"


def test_words_of_others_are_one_short_line() -> None:
    assert foreign("a\x1b[31m\r\n\u202eb\0c  d") == "a [31m b c d"
    assert len(foreign("x" * 10_000)) == 256


# The look itself


async def look(api: FakeApiServer, **ref: str) -> Observation:
    one = authority("corporate", external={"certManager": {"issuerRef": {"name": "corporate", **ref}}})
    return await look_at_issuer(SETTINGS, await api.cluster(), one, None)


def put(api: FakeApiServer, kind: Kind[Any]) -> None:
    observed = Kind(kind.group, kind.version, kind.kind, kind.plural, ObservedIssuer, kind.namespaced)
    meta = metadata("corporate", "pki" if kind.namespaced else "")
    api.put(observed, ObservedIssuer(metadata=meta, spec=CA, status=ready()))


@pytest.mark.requirement("X3")
@pytest.mark.parametrize(
    ("kind", "name"), [(ISSUERS, "Issuer pki/corporate"), (CLUSTER_ISSUERS, "ClusterIssuer corporate")]
)
async def test_issuers_of_cert_manager_are_read(kind: Kind[Any], name: str) -> None:
    async with running_api() as api:
        assert await look(api, kind=kind.kind) == Observation(
            "False", "IssuerNotFound", f"{name} does not exist; create it"
        )
        put(api, kind)
        assert await look(api, kind=kind.kind) == Observation("True", "IssuerReady", f"{name} is ready")
        assert {(each.verb, each.plural) for each in api.requests} == {("get", kind.plural)}


@pytest.mark.requirement("X3")
async def test_what_the_operator_may_not_read_is_assumed_to_be_ready() -> None:
    async with running_api() as api:
        api.fail_next("get", "issuers", 403)
        found = await look(api)
    assert (found.status, found.reason) == ("Unknown", "Forbidden")
    assert "bind a ClusterRole with the verb get on issuers.cert-manager.io to its ServiceAccount" in found.message


async def test_without_cert_manager_the_condition_says_so() -> None:
    async with running_api() as api:
        api.unserved.add("issuers")
        found = await look(api)
    assert (found.status, found.reason) == ("False", "CertManagerNotInstalled")


async def test_an_api_server_that_does_not_answer_is_no_observation() -> None:
    async with running_api() as api:
        api.fail_next("get", "issuers", 500, times=9)
        with pytest.raises(Unavailable):
            await look(api)


async def test_an_issuer_that_cannot_be_read_is_not_ready() -> None:
    async with running_api() as api:
        put(api, ISSUERS)
        api.store.by_key[next(each for each in api.store.by_key if each.plural == "issuers")]["spec"] = ["odd"]
        found = await look(api)
    assert (found.status, found.reason) == ("False", "IssuerNotReady")
