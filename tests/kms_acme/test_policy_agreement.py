"""`kms-acme policy test` and the server give the same answers, over generated policies, credentials and requests."""

from __future__ import annotations

import asyncio
from collections import Counter
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from acme_server.accounts.eab_credentials import Binding
from acme_server.problems import Refused, Unavailable
from kms.resources.accounts import ACMEAccount
from kms.resources.credentials import NameRules
from kms.resources.kinds import AUTHORITIES, CREDENTIALS, NAMESPACES, POLICIES, PROFILES
from kms.resources.meta import LocalRef
from kms.resources.policies import AttributeRules, DNSNameRules, PolicySpec, SubjectRules, ValueRules
from kms.resources.profiles import (
    CertificateContents,
    ClientNamespaces,
    DNSNameTemplates,
    NamespaceNames,
    NamespaceSettings,
    OrderProfile,
)
from kms_acme.configuration import Configuration
from kms_acme.policy_test import Request, Undecided, evaluate
from tests.support import pki
from tests.support.domain import KEY_ID_1, Key, World, running_world, wanted

NAMES = (
    *("www.example.com", "api.example.com", "*.example.com", "a.b.example.com", "www.example.org", "WWW.Example.COM"),
    *("bad_name.example.com", "team.example.com", "10.20.0.7", "10.9.0.1", "127.0.0.1", "2001:db8::1", "example.com"),
    *(f"{'a' * 60}.{'b' * 60}.example.com", "xn--bcher-kva.example.com", "-x.example.com", "www.example.com."),
)
PATTERNS = ("**.example.com", "*.example.com", "www.example.com", "*.*.example.com", "**", "api.example.com", "*.org")
KEYS = (("ECDSA", 256), ("ECDSA", 384), ("RSA", 2048), ("Ed25519", None))

patterns = st.lists(st.sampled_from(PATTERNS), max_size=2, unique=True).map(tuple)
dns_rules = st.builds(
    DNSNameRules,
    allowed=patterns.map(lambda some: ("**.example.com", *some)),
    denied=st.one_of(st.just(()), st.just(()), st.just(()), patterns),
    required=st.one_of(st.just(()), st.just(()), patterns),
    wildcards=st.sampled_from(("Allow", "Deny")),
)
networks = st.builds(
    ValueRules, allowed=st.sampled_from(((), ("10.0.0.0/8",), ("10.20.0.0/16", "127.0.0.0/8"), ("2001:db8::/32",)))
)
policies = st.builds(
    PolicySpec,
    dns_names=st.one_of(st.none(), dns_rules, dns_rules, dns_rules),
    ip_addresses=st.one_of(st.none(), networks),
    subject=st.sampled_from(
        (
            SubjectRules(common_name=AttributeRules(allowed=("**",))),
            SubjectRules(),
            SubjectRules(common_name=AttributeRules(requested="Require")),
            SubjectRules(common_name=AttributeRules(required=("www.*",), allowed=("**",))),
        )
    ),
    key_algorithms=st.sampled_from((("ECDSA-P256",), ("ECDSA-P256", "ECDSA-P384", "RSA-2048", "Ed25519"))),
    maximum_duration=st.sampled_from(("720h", "2160h")),
    maximum_names=st.sampled_from((1, 2, 100)),
)


@dataclass(frozen=True)
class Setting:
    """A policy, a profile, a credential and a request."""

    policy: PolicySpec
    other: PolicySpec
    acme: dict[str, Any]
    credential: dict[str, Any] | None
    names: tuple[str, ...]
    duration: timedelta | None
    order_profile: str | None
    csr: tuple[tuple[str, ...], tuple[str, int | None], str | None] | None


narrowed = st.one_of(st.none(), st.builds(NameRules, dns_names=st.one_of(st.none(), dns_rules)))
namespaces = st.builds(
    ClientNamespaces,
    from_=st.sampled_from(("All",) * 7 + ("Same",)),
    names=st.sampled_from(
        (None, None, NamespaceNames(dns_names=DNSNameTemplates(allowed=("{namespace}.example.com", "www.example.com"))))
    ),
    settings=st.sampled_from(((),) * 7 + ((NamespaceSettings(namespace="team", suspended=True),),)),
)
requested = st.one_of(
    st.lists(st.sampled_from(NAMES), min_size=1, max_size=3).map(tuple),
    st.lists(st.sampled_from(NAMES[:4]), min_size=1, max_size=2, unique=True).map(tuple),
)
generated = st.builds(
    Setting,
    policy=policies,
    other=policies,
    acme=st.fixed_dictionaries(
        {
            "challenges": st.sampled_from((("http-01",), ("http-01", "dns-01"), ("dns-01",), ("tls-alpn-01",))),
            "caa": st.sampled_from(("Off", "Report")),
            "allowed_namespaces": namespaces,
        }
    ),
    credential=st.one_of(
        st.none(),
        st.fixed_dictionaries(
            {
                "names": narrowed,
                "suspended": st.sampled_from((False,) * 7 + (True,)),
                "profiles": st.sampled_from((None, None, (), ("short",))),
            }
        ),
    ),
    names=requested,
    duration=st.sampled_from((None, None, timedelta(hours=24), timedelta(hours=800), timedelta(hours=9000))),
    order_profile=st.sampled_from((None, None, None, "short", "none")),
    csr=st.one_of(
        st.none(),
        st.tuples(
            st.one_of(st.just(()), requested), st.sampled_from(KEYS), st.sampled_from((None, "www.example.com", "x"))
        ),
    ),
)


def configuration_of(world: World) -> Configuration:
    """What the server has in its caches."""
    informers = (
        (PROFILES, world.profiles),
        (POLICIES, world.policies),
        (AUTHORITIES, world.authorities),
        (CREDENTIALS, world.credentials),
        (NAMESPACES, world.namespaces),
    )
    return Configuration.of(((kind, each) for kind, known in informers for each in known.values()), offline=False)


def configure(world: World, setting: Setting) -> None:
    acme = {
        **setting.acme,
        "external_account_binding": "Optional",
        "profiles": (OrderProfile(name="short", profile_ref=LocalRef(name="short")),),
    }
    world.configure(policy=setting.policy, **acme)
    world.lend("short", policy=setting.other, contents=CertificateContents(duration="24h"))
    if setting.credential is not None:
        world.change_credential(**setting.credential)


def request_of(setting: Setting) -> bytes | None:
    if setting.csr is None:
        return None
    names, (algorithm, size), common_name = setting.csr
    asked = names or tuple(dict.fromkeys(each.lower().rstrip(".") for each in setting.names))
    try:
        return pki.csr(*asked, common_name=common_name, signed_with=pki.key(algorithm, size))
    except ValueError:  # a name that no certificate request can have
        return None


async def served(world: World, account: ACMEAccount, setting: Setting, csr: bytes | None) -> str:
    """The answer of the server: to newOrder, and to finalize as far as the certificate request decides it."""
    ends = None if setting.duration is None else world.clock() + setting.duration
    try:
        caller = world.caller(account)
        new_order = replace(wanted(*setting.names, not_after=ends), profile=setting.order_profile)
        order = await world.services.orders.create(caller, new_order)
        if csr is not None:
            await world.services.orders._finalization._admission.admit(caller, order, csr)
    except Refused as refused:
        # A suspended credential is told to its account in other words than to a client that wants to open one.
        return f"{refused.type}: {refused.detail}" if refused.type != "unauthorized" else "unauthorized"
    except Unavailable:
        return "undecided"
    return "granted"


def policy_answer(world: World, setting: Setting, csr: bytes | None) -> str:
    """The answer of `kms-acme policy test`."""
    request = Request(
        profile=("pki", "web"),
        names=setting.names,
        credential=("team", "cred") if setting.credential is not None else None,
        csr=csr,
        duration=setting.duration,
        order_profile=setting.order_profile,
    )
    try:
        verdict = evaluate(configuration_of(world), request, now=world.clock(), objection=world.objection)
    except Undecided:
        return "undecided"
    if verdict.refused is None:
        return "granted"
    refused = verdict.refused
    return f"{refused.type}: {refused.detail}" if refused.type != "unauthorized" else "unauthorized"


@pytest.mark.requirement("P2")
def test_the_answers_are_those_of_the_server() -> None:
    answers: Counter[str] = Counter()
    with asyncio.Runner() as runner:
        context = running_world(lambda world: setattr(world, "offered", ("http-01", "dns-01", "tls-alpn-01")))
        world = runner.run(context.__aenter__())
        try:
            world.configure(external_account_binding="Optional")
            world.put_namespace("team")
            binding = Binding(world.put_credential(), KEY_ID_1)
            unbound = runner.run(world.account())
            bound = runner.run(world.account(Key(thumbprint="another"), binding))

            @settings(
                max_examples=120,
                deadline=None,
                derandomize=True,
                phases=(Phase.generate,),
                suppress_health_check=list(HealthCheck),
            )
            @given(generated)
            def agree(setting: Setting) -> None:
                configure(world, setting)
                csr = request_of(setting)
                account = unbound if setting.credential is None else bound
                answer = runner.run(served(world, account, setting, csr))
                assert policy_answer(world, setting, csr) == answer
                answers[answer.partition(":")[0]] += 1

            agree()
        finally:
            runner.run(context.__aexit__(None, None, None))
    assert {"granted", "rejectedIdentifier", "malformed", "badCSR", "invalidProfile", "unauthorized"} <= set(answers)
    assert answers["granted"] >= 5, answers
