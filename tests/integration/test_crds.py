"""What a real API server makes of manifests: it takes the good ones, and says what is wrong with the bad ones."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from kubernetes.client import ApiException, CustomObjectsApi
from kubernetes.config import new_client_from_config

from e2e.cluster.cluster import Cluster
from kms.resources.kinds import AUTHORITIES, CREDENTIALS, ORDERS, POLICIES, PROFILES, Kind
from tests.support.crds import KINDS, SAMPLES
from tests.support.manifests import Manifest, manifest, text

HERE = Path(__file__).parent
BY_NAME = {kind.kind: kind for kind in KINDS}

CREATE = ("create", "--namespace=default", "--dry-run=server", "--filename=-")
"""Ask what the API server would say, and leave nothing behind."""

Ask = Callable[[Manifest], str]
"""Asks as CREATE does, which takes kubectl fifty times as long; returns the refusal, or an empty string."""

PATTERNS = [f"{number:03}.{'x' * 12}.*.{'y' * 12}" for number in range(500)]
SHORT_PATTERNS = [f"{number:03}.*.example" for number in range(500)]
"""Lists as long as a policy and a credential may have."""


def good() -> Iterator[Any]:
    table: dict[str, dict[str, dict[str, Any]]] = yaml.safe_load((HERE / "good-manifests.yaml").read_text())
    for kind, manifests in table.items():
        for what, changes in manifests.items():
            yield pytest.param(manifest(BY_NAME[kind], changes), id=what)


def bad() -> Iterator[Any]:
    table: dict[str, list[dict[str, Any]]] = yaml.safe_load((HERE / "bad-manifests.yaml").read_text())
    for kind, cases in table.items():
        for case in cases:
            spoiled = manifest(BY_NAME[kind], case["with"])
            yield pytest.param(spoiled, case.get("field", ""), case["says"], id=f"{kind}-{'-'.join(case['with'])}")


@pytest.fixture(scope="module")
def ask(installed: Cluster) -> Iterator[Ask]:
    with new_client_from_config(str(installed.kubeconfig)) as client:
        api = CustomObjectsApi(client)

        def refusal(body: Manifest) -> str:
            kind = BY_NAME[body["kind"]]
            try:
                api.create_namespaced_custom_object(
                    *(kind.group, kind.version, "default", kind.plural, body),
                    dry_run="All",
                    field_validation="Strict",
                )
            except ApiException as refused:
                return str(json.loads(refused.body or "{}").get("message", refused))
            return ""

        yield refusal


@pytest.mark.parametrize("body", list(good()))
def test_a_good_manifest_is_taken(ask: Ask, body: Manifest) -> None:
    assert ask(body) == ""


@pytest.mark.requirement("X1")
@pytest.mark.parametrize(("body", "field", "says"), list(bad()))
def test_a_bad_manifest_is_refused_with_the_field_and_the_fix(ask: Ask, body: Manifest, field: str, says: str) -> None:
    answer = ask(body)
    assert answer
    assert re.search(f"{re.escape(field)}: .*{re.escape(says)}", answer), answer


def test_the_samples_are_taken(installed: Cluster, namespace: str) -> None:
    bodies = [each for file in sorted(SAMPLES.iterdir()) for each in yaml.safe_load_all(file.read_text())]
    for body in bodies[1:]:
        body["metadata"]["namespace"] = namespace
    assert installed.kubectl("apply", "--filename=-", stdin=text(*bodies[1:])).count("created") == 4


def test_the_largest_manifests_stay_within_the_cost_limits_of_the_rules(installed: Cluster) -> None:
    names = [f"{number:02}.{'x' * 252}" for number in range(100)]
    types = ("http-01", "dns-01", "tls-alpn-01")
    tokens = [{"authorization": each, "type": type_, "token": "t" * 43} for each in range(100) for type_ in types]
    moment = "2026-11-23T12:00:00Z"
    authorizations = [
        {"authorization": each, "order": "o" * 32, "position": each, "validated": moment, "expires": moment}
        for each in range(100)
    ]
    profiles = [
        {"name": f"{each:02}{'n' * 61}", "description": "d" * 500, "profileRef": {"name": "p" * 253}}
        for each in range(16)
    ]
    rules = {"allowed": PATTERNS, "denied": PATTERNS, "required": PATTERNS}
    blocks = [f"10.{number // 256}.{number % 256}.0/24" for number in range(500)]
    addresses = {"allowed": blocks, "denied": blocks, "required": blocks}
    narrowing = {
        "dnsNames": dict.fromkeys(rules, SHORT_PATTERNS),
        "ipAddresses": dict.fromkeys(rules, blocks[:300]),
    }
    anchor = "-----BEGIN CERTIFICATE-----\n".ljust(16_384, "A")
    external = {
        "vault": {
            "server": f"https://{'v' * 500}",
            "path": f"{'m' * 500}/sign/r",
            "caBundle": anchor * 4,
            "auth": {"kubernetes": {"role": "r", "serviceAccountRef": {"name": "s" * 253}, "audiences": ["a" * 512]}},
        },
        "trustAnchors": [anchor] * 8,
    }
    largest = (
        manifest(AUTHORITIES, {"internal": None, "external": external}),
        manifest(POLICIES, {"dnsNames": rules, "ipAddresses": addresses}),
        manifest(CREDENTIALS, {"names": narrowing}),
        manifest(
            ORDERS,
            {
                "identifiers": [{"type": "dns", "value": each} for each in names],
                "tokens": tokens,
                "authorized": authorizations,
                "names": "x" * 3000,
            },
        ),
        manifest(PROFILES, {"enrollment.acme.profiles": profiles}),
    )
    assert installed.kubectl(*CREATE, stdin=text(*largest)).count("created") == 5


def test_a_list_that_is_too_long_is_refused(installed: Cluster) -> None:
    body = manifest(POLICIES, {"dnsNames.allowed": [*PATTERNS, "example.com"]})
    answer = installed.kubectl(*CREATE, stdin=text(body), check=False)
    assert "spec.dnsNames.allowed: Too many: 501: must have at most 500 items" in answer


@pytest.mark.requirement("SEC72")
@pytest.mark.parametrize(
    ("kind", "field", "maximum"),
    [(POLICIES, "spec.dnsNames.denied", 16384), (CREDENTIALS, "spec.names.dnsNames.denied", 8192)],
    ids=["policy", "credential"],
)
def test_the_total_length_of_a_list_is_limited(installed: Cluster, kind: Kind[Any], field: str, maximum: int) -> None:
    names = [f"{number:03}.{'x' * 60}.{'y' * 60}.example" for number in range(maximum // 133)]
    path = field.removeprefix("spec.")
    fits = manifest(kind, {path: names})
    assert "created" in installed.kubectl(*CREATE, stdin=text(fits))
    answer = installed.kubectl(
        *CREATE, stdin=text(manifest(kind, {path: [*names, "z" * 63, "y" * 63, "w" * 63]})), check=False
    )
    assert re.search(rf"{field}: .*must have at most {maximum} characters in all; combine names", answer), answer


@pytest.mark.requirement("SEC72")
def test_the_quota_of_the_documentation_limits_what_a_team_may_create(installed: Cluster, namespace: str) -> None:
    blocks = re.findall(r"```yaml\n(.*?)```", Path("docs/operations.md").read_text(), re.DOTALL)
    (quota,) = (each for each in map(yaml.safe_load, blocks) if each.get("kind") == "ResourceQuota")
    hard = quota["spec"]["hard"]
    quota["metadata"]["namespace"] = namespace
    installed.kubectl("apply", "--filename=-", stdin=text(quota))
    # What the controller for quotas does, which does not run here: with nothing left but one policy.
    counted = "count/certificatepolicies.pki.kms.hanzo.ai"
    used = {**dict.fromkeys(hard, "0"), counted: str(int(hard[counted]) - 1)}
    status = yaml.safe_dump({"status": {"hard": hard, "used": used}})
    installed.kubectl(
        "patch",
        "resourcequota",
        quota["metadata"]["name"],
        f"--namespace={namespace}",
        "--subresource=status",
        "--type=merge",
        f"--patch={status}",
    )
    create = ("create", f"--namespace={namespace}", "--filename=-")
    assert "created" in installed.kubectl(*create, stdin=text(manifest(POLICIES, name="last")))
    refused = installed.kubectl(*create, stdin=text(manifest(POLICIES, name="beyond")), check=False)
    assert "exceeded quota" in refused
    for kind in (CREDENTIALS, PROFILES):
        assert f"count/{kind.plural}.{kind.group}" in hard


@pytest.mark.parametrize(
    ("kind", "longest", "secret"), [(PROFILES, 248, "acme"), (CREDENTIALS, 249, "eab")], ids=["profile", "credential"]
)
def test_a_name_leaves_room_for_that_of_the_secret(
    installed: Cluster, kind: Kind[Any], longest: int, secret: str
) -> None:
    fits, too_long = (manifest(kind, name="n" * length) for length in (longest, longest + 1))
    assert "created" in installed.kubectl(*CREATE, stdin=text(fits))
    answer = installed.kubectl(*CREATE, stdin=text(too_long), check=False)
    assert f'metadata.name must have at most {longest} characters, because the Secret "<name>-{secret}" is' in answer
