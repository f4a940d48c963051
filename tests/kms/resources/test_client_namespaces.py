"""Whose clients a credential has, and which names the profile gives them."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from kms.pki.names import dns_name
from kms.pki.policy import Policy, name_violations
from kms.resources.accounts import CredentialRecord
from kms.resources.client_namespaces import (
    Clients,
    UnknownNamespace,
    check_templates,
    clients_at,
    clients_of,
    names_of,
    narrowing_of,
    resolve,
)
from kms.resources.compile import InvalidRules, compile_policy
from kms.resources.profiles import ClientNamespaces, NamespaceNames
from tests.support.operated import NOW, credential, policy
from tests.support.processor import least_time

TEAM = Clients("team", "team")


def rule(**members: Any) -> ClientNamespaces:
    return msgspec.convert(members, ClientNamespaces)


def names(*allowed: str) -> NamespaceNames:
    return msgspec.convert({"dnsNames": {"allowed": allowed}}, NamespaceNames)


@pytest.fixture
def anything() -> Policy:
    return compile_policy(policy(dnsNames={"allowed": ["**"], "wildcards": "Allow"}))


@pytest.mark.requirement("SEC78")
@pytest.mark.parametrize(
    ("namespace", "spec", "clients"),
    [
        ("team", {}, Clients("team", "team")),
        ("team", {"clientNamespace": "other"}, Clients("team", "team")),
        ("team", {"clientNamespace": "other", "shared": True}, Clients("team", "team", shared=True)),
        ("pki", {}, Clients("pki", "pki")),
        ("pki", {"clientNamespace": "other"}, Clients("pki", "other")),
        ("pki", {"shared": True}, Clients("pki", "pki", shared=True)),
    ],
)
def test_only_a_credential_beside_its_profile_speaks_for_another_namespace(
    namespace: str, spec: dict[str, Any], clients: Clients
) -> None:
    assert clients_of(credential(namespace=namespace, spec=spec), profile_namespace="pki") == clients
    last = msgspec.convert({"state": "Deleted", "uid": "1", "changedAt": NOW, **spec}, CredentialRecord)
    assert clients_at(namespace, last, profile_namespace="pki") == clients


def test_the_exceptions_of_a_namespace_take_the_place_of_what_is_for_all() -> None:
    one = rule(
        names={"dnsNames": {"allowed": ["a"]}},
        settings=[{"namespace": "other", "suspended": True}, {"namespace": "team", "names": {"dnsNames": {}}}],
    )
    found = names_of(one, TEAM)
    assert found is not None
    assert found[1] == "spec.enrollment.acme.allowedNamespaces.settings[1].names"
    for clients in (None, Clients("other", "other"), Clients("x", "x")):
        assert names_of(one, clients) == (one.names, "spec.enrollment.acme.allowedNamespaces.names")
    assert names_of(rule(), TEAM) is None


@pytest.mark.requirement("SEC78")
def test_templates_without_a_value_allow_nothing_and_others_what_they_say(anything: Policy) -> None:
    resolved = resolve(names("*.{namespace}.test", "*.{labels.team}.test", "*.open.test"), TEAM, {})
    assert len(resolved.unresolved) == 1
    narrowing = narrowing_of(resolved, "pki/web")
    for name, allowed in (("a.team.test", True), ("a.open.test", True), ("a.shop.test", False), ("a.test", False)):
        assert bool(name_violations([dns_name(name)], anything, narrowing)) is not allowed
    for clients in (None, Clients("team", "team", shared=True)):
        nothing = resolve(names("*.{namespace}.test", "*.{labels.team}.test"), clients, {"team": "shop"})
        assert nothing.names == names()
        assert name_violations([dns_name("a.team.test")], anything, narrowing_of(nothing, "pki/web"))


@pytest.mark.requirement("SEC78")
def test_wildcards_need_the_permission_of_the_profile_and_of_the_policy(anything: Policy) -> None:
    members = {"dnsNames": {"allowed": ["{namespace}.test"], "wildcards": "Allow"}}
    allowing = resolve(msgspec.convert(members, NamespaceNames), TEAM, {})
    assert not name_violations([dns_name("*.team.test")], anything, narrowing_of(allowing, "pki/web"))
    denying = resolve(names("{namespace}.test"), TEAM, {})
    assert name_violations([dns_name("*.team.test")], anything, narrowing_of(denying, "pki/web"))


@pytest.mark.requirement("SEC78")
def test_a_namespace_that_is_not_known_gives_names_only_if_none_depends_on_it() -> None:
    assert resolve(names("a.test"), TEAM, None).names == names("a.test")
    with pytest.raises(UnknownNamespace):
        resolve(names("a.test", "{namespace}.test"), TEAM, None)


def test_the_first_invalid_template_is_told_with_its_field() -> None:
    check_templates(rule(names={"dnsNames": {"allowed": ["{namespace}.test"]}}))
    with pytest.raises(InvalidRules) as refused:
        check_templates(rule(settings=[{"namespace": "a", "names": {"ipAddresses": {"allowed": ["10.{labels.x}/8"]}}}]))
    assert refused.value.field == "spec.enrollment.acme.allowedNamespaces.settings[0].names.ipAddresses.allowed[0]"


@pytest.mark.requirement("SEC78")
def test_the_most_templates_that_the_schema_admits_take_a_few_milliseconds() -> None:
    dns = [f"**.{'x*y' * 20}.{number}.{{labels.key-{number}}}.{{namespace}}.test" for number in range(32)]
    blocks = [f"10.{{labels.key-{number}}}.0.0/16" for number in range(32)]
    members = {"dnsNames": {"allowed": dns}, "ipAddresses": {"allowed": blocks}}
    largest = msgspec.convert(members, NamespaceNames)
    labels = {f"key-{number}": str(number) for number in range(32)}

    assert least_time(lambda: narrowing_of(resolve(largest, TEAM, labels), "pki/web")) < 0.05
