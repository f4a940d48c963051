"""Would it be granted? With manifests alone, and with the answers of a running server."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest
from click.testing import CliRunner, Result

from kms_acme.cli import main
from tests.support import pki

MANIFESTS = """
apiVersion: pki.kms.hanzo.ai/v1alpha1
kind: CertificateAuthority
metadata: {name: issuing, namespace: pki}
spec:
  internal:
    subject: {commonName: Example}
    nameConstraints:
      excluded: {dnsDomains: [secret.apps.example.com]}
---
apiVersion: pki.kms.hanzo.ai/v1alpha1
kind: CertificatePolicy
metadata: {name: web, namespace: pki}
spec:
  dnsNames:
    allowed: ["*.apps.example.com", "*.secret.apps.example.com"]
    denied: [admin.apps.example.com]
  ipAddresses:
    allowed: [10.20.0.0/16, 127.0.0.0/8]
  maximumDuration: 720h
---
apiVersion: pki.kms.hanzo.ai/v1alpha1
kind: CertificateProfile
metadata: {name: web, namespace: pki}
spec:
  issuerRef: {name: issuing}
  policyRef: {name: web}
  enrollment:
    acme:
      allowedNamespaces: {from: All}
---
apiVersion: v1
kind: List
items:
  - apiVersion: pki.kms.hanzo.ai/v1alpha1
    kind: EABCredential
    metadata: {name: web, namespace: team-a}
    spec:
      profileRef: {name: web, namespace: pki}
      names: {dnsNames: {allowed: [web.apps.example.com]}}
  - apiVersion: pki.kms.hanzo.ai/v1alpha1
    kind: EABCredential
    metadata: {name: ended, namespace: team-a}
    spec:
      profileRef: {name: web, namespace: pki}
      expiresAt: 2024-01-01T00:00:00Z
  - {apiVersion: v1, kind: ConfigMap, metadata: {name: other}, data: {spec: "{{"}}
"""

Run = Callable[..., Result]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "manifests"
    (made / "deeper").mkdir(parents=True)
    (made / "deeper" / "all.yaml").write_text(MANIFESTS)
    return made


@pytest.fixture
def run(folder: Path) -> Run:
    def run(*line: str) -> Result:
        return CliRunner().invoke(main.main, ["policy", "test", "-f", str(folder), *line])

    return run


@pytest.mark.requirement("P2")
@pytest.mark.parametrize(
    ("line", "code", "said"),
    [
        (
            ["web.apps.example.com"],
            0,
            'policy pki/web (spec.dnsNames.allowed: "*.apps.example.com"); the client proves it',
        ),
        (["--ip", "10.20.0.7"], 0, 'spec.ipAddresses.allowed: "10.20.0.0/16"'),
        (["web.example.org"], 3, 'web.example.org" is not allowed by policy pki/web (spec.dnsNames.allowed)'),
        (["admin.apps.example.com"], 3, 'it matches "admin.apps.example.com"'),
        (["*.apps.example.com"], 3, "spec.dnsNames.wildcards"),
        (["x.secret.apps.example.com"], 3, "is excluded by the nameConstraints of CertificateAuthority "),
        (["127.0.0.1"], 3, "is not certified by this server: it is loopback"),
        (["127.0.0.1", "--validation-allow", "127.0.0.0/8"], 0, "127.0.0.1"),
        (["web.apps.example.com", "--duration", "900h"], 3, "spec.maximumDuration"),
        (["web.apps.example.com", "--duration", "24h"], 0, "lasts 24h"),
        (["web_.apps.example.com"], 3, "web_.apps.example.com"),
        (["web.apps.example.com", "--credential", "team-a/web"], 0, "granted"),
        (
            ["api.apps.example.com", "--credential", "team-a/web"],
            3,
            "EAB credential team-a/web (spec.names.dnsNames.allowed)",
        ),
        (["web.apps.example.com", "--credential", "team-a/ended"], 3, "has expired"),
        (["web.apps.example.com", "--credential", "team-a/none"], 1, "there is no EABCredential team-a/none"),
        (["web.apps.example.com", "--order-profile", "short"], 3, 'offers no profile "short"'),
    ],
)
def test_a_name_is_granted_or_refused_by_the_rule_that_is_named(
    run: Run, line: list[str], code: int, said: str
) -> None:
    result = run("-p", "pki/web", *line)
    assert (result.exit_code, said in result.output) == (code, True), result.output


def test_what_helps_is_a_command(run: Run) -> None:
    output = run("-p", "pki/web", "web.example.org", "*.apps.example.com").output
    assert (
        "kubectl -n pki patch kpol/web --type=json"
        """ -p '[{"op": "add", "path": "/spec/dnsNames/allowed/-", "value": "web.example.org"}]'"""
    ) in output
    assert (
        """kubectl -n pki patch kpol/web --type=merge -p '{"spec": {"dnsNames": {"wildcards": "Allow"}}}'""" in output
    )


def test_a_certificate_request_is_held_against_names_and_policy(run: Run, tmp_path: Path) -> None:
    request = tmp_path / "web.csr"
    request.write_bytes(pki.csr("web.apps.example.com"))
    assert run("-p", "pki/web", "--csr", str(request)).exit_code == 0
    other = run("-p", "pki/web", "--csr", str(request), "api.apps.example.com")
    assert (other.exit_code, "names web.apps.example.com, not in the order" in other.output) == (3, True), other.output
    request.write_bytes(b"no request")
    assert (run("-p", "pki/web", "--csr", str(request)).exit_code) == 3


CASES = """
profile: pki/web
cases:
  - allow: [web.apps.example.com]
  - deny: [admin.apps.example.com]
    rule: spec.dnsNames.denied
  - description: a team keeps to its names
    deny: [api.apps.example.com]
    credential: team-a/web
    rule: EAB credential team-a/web
  - allow: []
    csr: web.csr
"""


@pytest.mark.requirement("P2")
def test_cases_are_a_test_suite_with_a_summary_and_junit_xml(run: Run, tmp_path: Path) -> None:
    cases, report = tmp_path / "cases.yaml", tmp_path / "results.xml"
    (tmp_path / "web.csr").write_bytes(pki.csr("web.apps.example.com"))
    cases.write_text(CASES)
    result = run("--cases", str(cases), "--junit", str(report))
    assert (result.exit_code, result.output.splitlines()[-1]) == (0, "4 of 4 cases passed."), result.output
    cases.write_text(
        CASES
        + "  - allow: [web.example.org]\n  - deny: [admin.apps.example.com]\n    rule: spec.dnsNames.allowed\n"
        + "  - deny: [web.apps.example.com]\n    profile: pki/gone\n"
    )
    result = run("--cases", str(cases), "--junit", str(report))
    assert (result.exit_code, result.output.splitlines()[-1]) == (3, "4 of 7 cases passed."), result.output
    assert "FAIL allow web.example.org\n     refused (rejectedIdentifier): web.example.org" in result.output
    suite = ET.parse(report).getroot()[0]  # noqa: S314 - our own
    assert {name: suite.attrib[name] for name in ("tests", "failures", "errors")} == {
        "tests": "7",
        "failures": "2",
        "errors": "1",
    }
    assert suite[2].attrib == {"classname": "pki/web", "name": "a team keeps to its names"}


@pytest.mark.parametrize(
    ("cases", "complaint"),
    [
        ("cases: [{allow: [a]}]", "cases[0] has no profile"),
        ("profile: pki/web\ncases: [{}]", "cases[0] needs either allow or deny"),
        ("profile: pki/web\ncases: [{allow: []}]", "cases[0] has neither names nor csr"),
        ("profile: web\ncases: [{allow: [a]}]", "profile: 'web' is not of the form NAMESPACE/NAME"),
        ("profile: pki/web\ncases: [{allow: [a], rules: x}]", "unknown field `rules`"),
        ("profile: pki/web\ncases: [{allow: [a], csr: none.pem}]", "none.pem"),
        ("profile: pki/web\ncases: [{allow: [a], duration: 7d}]", "7d"),
        ("cases: [", "expected"),
        ("cases: []", "there are no cases"),
    ],
)
def test_a_file_with_cases_that_is_wrong_says_where(run: Run, tmp_path: Path, cases: str, complaint: str) -> None:
    file = tmp_path / "cases.yaml"
    file.write_text(cases)
    result = run("--cases", str(file))
    assert (result.exit_code, complaint in result.output) == (1, True), result.output


@pytest.mark.parametrize(
    "change",
    [
        ("denied: [admin", "deny: [admin", "CertificatePolicy pki/web: there is no field spec.dnsNames.deny"),
        ('"*.apps.example.com", "', '"example..com", "', "CertificatePolicy pki/web: spec.dnsNames.allowed[0]"),
        ("policyRef: {name: web}", "policyRef: {name: none}", "there is no CertificatePolicy pki/none"),
        ("maximumDuration: 720h", "maximumDuration: 24h", "do not fit its policy"),
        ("from: All", "from: Some", "Invalid enum value 'Some'"),
        ("metadata: {name: ended", "metadata: {name: web", "is there twice"),
        ("metadata: {name: web, namespace: pki}", "metadata: {}", "has no metadata.name"),
        ("kind: List", "kind: [", "cannot be read"),
        (
            "nameConstraints:\n      excluded: {dnsDomains: [s",
            "nameConstraints:\n      excluded: {dnsDomains: [-",
            "Authority",
        ),
    ],
)
@pytest.mark.parametrize("line", [["-p", "pki/web", "admin.apps.example.com"], ["--cases", "cases.yaml"]], ids=" ".join)
def test_a_manifest_that_is_wrong_is_an_error_and_no_denial(
    folder: Path, run: Run, tmp_path: Path, line: list[str], change: tuple[str, str, str]
) -> None:
    """Or a suite of denials would pass for the wrong reason."""
    file = folder / "deeper" / "all.yaml"
    old, new, complaint = change
    assert old in MANIFESTS
    file.write_text(MANIFESTS.replace(old, new))
    cases = tmp_path / "cases.yaml"
    cases.write_text("profile: pki/web\ncases: [{deny: [admin.apps.example.com]}]")
    result = run(*(str(cases) if each == "cases.yaml" else each for each in line))
    assert result.exit_code != 0, result.output
    assert complaint in result.output
    assert "refused" not in result.output


@pytest.mark.parametrize(
    "line",
    [
        [],
        ["web.apps.example.com"],
        ["-p", "pki/web"],
        ["-p", "web", "a"],
        ["-p", "pki/web", "a", "--junit", "x"],
        ["-p", "pki/web", "a", "--duration", "7d"],
    ],
)
def test_wrong_usage_is_exit_code_2(run: Run, line: list[str]) -> None:
    assert run(*line).exit_code == 2


def test_json_has_the_rule_and_the_remedy(run: Run) -> None:
    granted = json.loads(run("-p", "pki/web", "-o", "json", "web.apps.example.com").output)
    assert granted["granted"] is True
    assert granted["policy"] == "pki/web"
    assert granted["duration"] == "720h"
    refused = json.loads(run("-p", "pki/web", "-o", "json", "web.example.org").output)
    assert refused["granted"] is False
    assert refused["type"] == "rejectedIdentifier"
    assert refused["remedies"]
