"""Runs the commands of the documentation in order, in one shell."""

from __future__ import annotations

import os
import re
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path

import pytest
from cryptography import x509

from e2e.cluster import Cluster
from e2e.cluster.ports import free_port
from e2e.stories.clients import names_in
from e2e.stories.snippets import (
    CERT_MANAGER,
    CONTRIBUTING,
    CORPORATE_ROOT,
    EXTERNAL_CAS,
    FIRST_CERTIFICATE,
    HELM,
    KEY_STORES,
    OPERATIONS,
    README,
    ROOT,
    Snippet,
    documents,
    snippets,
)
from e2e.stories.traces import MARK, left_running
from e2e.support import dns, tools
from kms.resources.kinds import CLUSTER_ISSUERS, ISSUERS
from tests.support.definitions import definition
from tests.support.manifests import text

LIMIT = 180.0
"""Seconds for all commands of one terminal."""
PORT = 8443
"""The port of the server in the documentation."""

# On a reader's machine, certbot writes to /etc and listens on port 80, and names resolve to that machine. Here both
# programs get other options. All other commands run unchanged.
PRELUDE = """
set -euo pipefail
trap 'jobs -p | xargs --no-run-if-empty kill 2>/dev/null; wait' EXIT
certbot() {
    local command=$1; shift
    command certbot "$command" "$@" --http-01-address 127.0.0.1 --http-01-port "$HTTP01_PORT" \
        --config-dir "$PWD/certbot" --work-dir "$PWD/certbot/work" --logs-dir "$PWD/certbot/logs"
}
kms-acme() {
    exec kms-acme "$@" $TEST_OPTIONS
}
"""
IN_THE_BACKGROUND = """
kms-acme() {
    (exec kms-acme "$@" $TEST_OPTIONS) >kms-acme.log 2>&1 &
}
"""
"""For the README, where the reader opens a second terminal."""

OPERATING = """
began() {
    (exec kms-acme dev --external-url https://localhost:8443 $TEST_OPTIONS) >>kms-acme.log 2>&1 &
}
kms-acme() {
    command kms-acme "$@"
}
kubectl() {
    case "$*" in
        *"scale deployment kms-acme --replicas=0")
            jobs -p | xargs kill; wait
            command kubectl -n pki delete kca,kpol,kprof,eab,acmeaccounts,acmeorders,certificatechains --all
            command kubectl -n kms-acme delete revocationrecords --all
            command kubectl -n kms-acme delete secrets -l pki.kms.hanzo.ai/component ;;
        *"scale deployment kms-acme --replicas=1") began ;;
        *) command kubectl "$@" ;;
    esac
}
began
curl --silent --fail --insecure --retry 90 --retry-delay 1 --retry-all-errors >/dev/null \\
    https://localhost:8443/acme/pki/web/directory
kubectl -n pki wait --for=condition=Ready --timeout=60s kca/issuing kpol/web kprof/web eab/web
"""
"""For operations.md: `dev` replaces the Deployment, and this cluster, emptied, replaces another one."""
KEY_IDENTIFIER = "kubectl -n pki get kca issuing -o jsonpath='{.status.subjectKeyID}{\"\\n\"}'\n"
LISTED = """
URL=$(openssl x509 -in certbot/live/web.apps.example.com/cert.pem -noout -ext crlDistributionPoints | sed -n 's/.*URI://p')
for attempt in $(seq 20); do
    curl --silent --fail "$URL" | openssl crl -inform DER -noout -text | grep -i "Serial Number: 0*$SERIAL" && break
    sleep 1
done
"""
"""Whether the certificate that was revoked is on the list of its CA."""
RENEWED = """
kubectl -n pki wait --for=condition=Ready --timeout=60s kprof/web
certbot renew --force-renewal --no-random-sleep-on-renew
kubectl -n pki get acmeaccounts -o name | wc -l | sed 's/^/accounts: /'
"""
"""With the account from before."""
ANNOTATED = """
kubectl get secrets -A -o jsonpath='{.items[*].metadata.annotations}' >annotations
grep -q last-applied annotations || echo "no annotation of kubectl apply"
"""
"""Whether kubectl has copied a Secret into an annotation."""
VERIFIED = """
kubectl -n pki get kca corporate -o jsonpath='{.status.certificate}' >issuing.crt
openssl verify -x509_strict -CAfile root/root.crt renewed.crt
openssl verify -x509_strict -CAfile other/root.crt cross.crt issuing.crt
openssl verify -crl_check -CAfile root/root.crt -CRLfile root/root.crl corporate.crt || true
"""
"""Whether OpenSSL accepts what the corporate CA has signed and the CA uses."""
LOSE_THE_KEY = """
kubectl -n kms-acme delete secret "ca-$(kubectl -n pki get kca issuing -o jsonpath='{.metadata.uid}')"
kubectl -n pki wait --for=condition=Ready=false --timeout=90s kca/issuing
"""

ONLY_SHOWN = {
    "make demo\n": "test_demo.py runs what it calls",
    "make demo KUBECONFIG=$HOME/.kube/config CONTEXT=kind-kind\n": "test_demo.py runs what it calls on such a cluster",
    "make test\n": "is what runs this",
    "pip install 'kms-acme[console]'\nkms-acme console\n": "tests/kms_acme/console runs the command",
    "KMS_ACME_E2E_ORDERS=120 .venv/bin/pytest -s -m soak tests/integration/test_external_speed.py\n": (
        "test_external_speed.py is a test"
    ),
    "make setup\nmake check\nmake test\n": "make test and make check are what CI runs",
    "KMS_ACME_E2E_ORDERS=1000 .venv/bin/pytest -s tests/integration/test_replicas.py\n": "test_replicas.py is a test",
    **dict.fromkeys(
        (
            ".venv/bin/python -m e2e.load.retained --orders 100000 --expired 10000\n",
            ".venv/bin/python -m e2e.load.retained --orders 100000 --quiet 660\n",
        ),
        "test_retained.py runs it with less",
    ),
    ".venv/bin/python -m e2e.load.schema --rounds 24 --orders 48 --trial no-rules --trial atomic --trial no-schema\n": (
        "test_schema.py runs it with less"
    ),
    ".venv/bin/python -m e2e.load --compare step-ca,pebble\n": ("test_peers.py and test_compare.py run its parts"),
    **dict.fromkeys(
        (
            ".venv/bin/python -m e2e.load --markdown --rows 0 --servers 0\n",
            ".venv/bin/python -m e2e.load --markdown --orders 1000 --rows 50 --servers 1,2,3\n",
        ),
        "tests/load runs its parts",
    ),
    ".venv/bin/python -m e2e.load.workers\n": "test_workers.py runs it with less",
    **dict.fromkeys(
        (".venv/bin/python -m e2e.load.growth\n", ".venv/bin/python -m e2e.load.growth --orders 500\n"),
        "test_growth.py runs it with less",
    ),
    **dict.fromkeys(
        (
            ".venv/bin/python -m e2e.load.capacity\n",
            ".venv/bin/python -m e2e.load.capacity --certificates 25000 --lifetime 45\n",
            ".venv/bin/python -m e2e.load.capacity --cpu 6.5 --written 8\n",
        ),
        "test_capacity.py runs it with others",
    ),
}
"""Snippets that no test here runs, with the reason."""
LOOKED_AT = ("install.md", "cert-manager.md", "clients.md", "troubleshooting.md")
"""Pages about other machines and clusters. A test checks the options of their commands."""
RUN = (FIRST_CERTIFICATE, README, OPERATIONS, CORPORATE_ROOT, KEY_STORES, EXTERNAL_CAS)
"""Pages that tests run: those here, and others in tests/integration (test_openbao.py)."""


@dataclass(frozen=True)
class Terminal:
    """A shell in a checkout of the project, on a machine with a cluster."""

    folder: Path
    environment: dict[str, str]

    def type(self, *parts: str) -> subprocess.CompletedProcess[str]:
        """Run all parts in one shell."""
        script = "".join(parts)
        if not _free(PORT):
            script = script.replace(str(PORT), str(free_port()))
        return subprocess.run(
            ("bash", "-c", script),
            cwd=self.folder,
            env=self.environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=LIMIT,
            check=False,
        )


def _free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("", port))
        except OSError:
            return False
    return True


@pytest.fixture(scope="module")
def terminal(
    clusters: Callable[[], AbstractContextManager[Cluster]], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Terminal]:
    """A terminal with an empty cluster."""
    for tool in (tools.CERTBOT, tools.CURL):
        tools.required(tool)
    folder = tmp_path_factory.mktemp("checkout")
    for name in ("crds", "deploy"):
        (folder / name).symlink_to(ROOT / name)
    with dns.serving(dns.Zone("example.com")) as nameserver, clusters() as cluster:
        if not cluster.is_ours:
            pytest.skip("the first page needs an empty cluster, and this one is not ours")
        http01_port = free_port()
        options = (
            f"--http-listen 127.0.0.1:{free_port()} --metrics-listen 127.0.0.1:{free_port()}"
            f" --operator-metrics-listen 127.0.0.1:{free_port()}"
            f" --dns-server {nameserver} --http01-port {http01_port} --validation-allow 127.0.0.0/8"
        )
        environment = {**os.environ, **cluster.env, "HTTP01_PORT": str(http01_port), "TEST_OPTIONS": options}
        environment["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{environment['PATH']}"
        environment[MARK] = str(folder)
        yield Terminal(folder, environment)
        assert left_running(str(folder)) == []


def test_the_first_certificate_is_obtained_as_the_page_says(terminal: Terminal) -> None:
    blocks = [block.text for block in snippets(FIRST_CERTIFICATE)]
    assert len(blocks) >= 9
    done = terminal.type(PRELUDE, *blocks)
    assert done.returncode == 0, done.stdout + (terminal.folder / "kms-acme.log").read_text()[-4000:]
    live = terminal.folder / "certbot" / "live" / "web.apps.example.com"
    assert names_in(live / "fullchain.pem") == {"web.apps.example.com"}
    leaf = x509.load_pem_x509_certificate((live / "cert.pem").read_bytes())
    issuers = x509.load_pem_x509_certificates((terminal.folder / "chain.crt").read_bytes())
    leaf.verify_directly_issued_by(issuers[0])
    for said in ("FIELD: acme", "Successfully received certificate", "all renewals succeeded", "Authorizations"):
        assert said in done.stdout


def test_the_readme_leads_to_a_server_with_a_directory_and_a_credential(terminal: Terminal) -> None:
    assert left_running(str(terminal.folder)) == []
    install, look = (block.text for block in snippets(README) if block.text not in ONLY_SHOWN)
    directory = f"https://localhost:{PORT}/acme/pki/web/directory"
    answers = f"curl --silent --fail --insecure --retry 60 --retry-delay 1 --retry-all-errors {directory}\n"
    done = terminal.type(PRELUDE, IN_THE_BACKGROUND, install, answers, look)
    assert done.returncode == 0, done.stdout
    assert '"newOrder":' in done.stdout
    assert "/acme/pki/web/directory" in done.stdout


@pytest.mark.soak  # tests/kms_acme/backup and test_deletion.py restore what was lost, too
def test_keys_survive_their_loss_and_another_cluster_as_the_page_about_operations_says(terminal: Terminal) -> None:
    assert left_running(str(terminal.folder)) == []
    backup, *after = (block.text for block in snippets(OPERATIONS) if not block.text.startswith(HELM))
    revoke = next(each for each in after if "kms-acme revoke" in each)
    after = [each.replace("team-a/web", "pki/web") for each in after if each is not revoke]
    restored = next(each for each in after if "--replicas=1" in each)
    at = after.index(restored) + 1
    enroll = [block.text for block in snippets(FIRST_CERTIFICATE) if "DIRECTORY" in block.text]
    prepare = "kubectl apply -f crds/ -f deploy/rbac.yaml\nkubectl apply -f deploy/samples/\n"
    before = (PRELUDE, "rm -rf certbot\n", prepare, OPERATING, *enroll, revoke, LISTED)
    lost = (backup, KEY_IDENTIFIER, LOSE_THE_KEY, *after[:at], LISTED, RENEWED, ANNOTATED)
    done = terminal.type(*before, *lost, *after[at:], "grep -c BEGIN fullchain.pem | sed 's/^/whole chain: /'\n")
    assert done.returncode == 0, done.stdout + (terminal.folder / "kms-acme.log").read_text()[-4000:]
    assert "whole chain: 2\n" in done.stdout
    assert re.search("^subject=.*CN ?= ?Example Issuing CA\nnotAfter=", done.stdout, re.MULTILINE)
    assert "so the CA's private key is lost" in done.stdout
    identifiers = [line for line in done.stdout.splitlines() if re.fullmatch("[0-9a-f]{40}", line)]
    assert len(identifiers) == 2
    assert identifiers[0] == identifiers[1]
    assert "1 certificate would be revoked (superseded)" in done.stdout
    assert "1 of 1 certificate revoked." in done.stdout
    assert len(re.findall("Serial Number: ", done.stdout)) == 2, "before and after"
    assert "no annotation of kubectl apply\n" in done.stdout, "a private key is in an annotation"
    assert "all renewals succeeded" in done.stdout
    assert re.search(r"accounts: [1-9]\n", done.stdout)


@pytest.mark.soak  # test_openssl_ceremony.py runs what the corporate CA does
def test_a_ca_is_certified_and_renewed_as_the_page_about_corporate_roots_says(terminal: Terminal) -> None:
    assert left_running(str(terminal.folder)) == []
    blocks = [block.text for block in snippets(CORPORATE_ROOT)]
    prepare = "kubectl apply -f crds/ -f deploy/rbac.yaml\nkubectl apply -f deploy/samples/\n"
    done = terminal.type(PRELUDE, prepare, OPERATING, *blocks, VERIFIED)
    assert done.returncode == 0, done.stdout + (terminal.folder / "kms-acme.log").read_text()[-4000:]
    assert "This is the first certificate of the CA." in done.stdout
    (fingerprint,) = re.findall(r"^Key: .* SHA-256 ([0-9a-f]{64})$", done.stdout, re.MULTILINE)[:1]
    assert f"= {fingerprint}" in done.stdout, "both sides show the same"
    assert done.stdout.count("CertificateAuthority pki/corporate signs with the certificate.") == 3
    assert re.search(r"^20[0-9-]+T[0-9:]+Z$", done.stdout, re.MULTILINE), "the former root"
    assert {"renewed.crt: OK", "cross.crt: OK", "issuing.crt: OK"} <= set(done.stdout.splitlines())
    assert "certificate revoked" in done.stdout


def test_a_profile_gets_the_cluster_issuer_that_the_page_about_cert_manager_begins_with(terminal: Terminal) -> None:
    """This cluster has cert-manager's kinds without schemas; tests/cert_manager runs cert-manager itself."""
    assert left_running(str(terminal.folder)) == []
    commands = next(block.text for block in snippets(CERT_MANAGER) if not block.text.startswith(HELM))
    shown = next(snippets(CERT_MANAGER, "yaml")).text
    (terminal.folder / "profile.yaml").write_text(shown)
    (terminal.folder / "kinds.yaml").write_text(text(definition(CLUSTER_ISSUERS), definition(ISSUERS)))
    prepare = "kubectl apply -f crds/ -f deploy/rbac.yaml -f kinds.yaml\nkubectl apply -f deploy/samples/\n"
    prepare += "kubectl create namespace cert-manager --dry-run=client -o yaml | kubectl apply -f -\n"
    prepare += f"kms-acme dev --external-url https://localhost:{PORT} --cluster-issuers-from pki\n"
    trusted = "kubectl get clusterissuer kms-acme -o jsonpath='{.spec.acme.caBundle}' | base64 -d >bundle.crt\n"
    server = "kubectl get clusterissuer kms-acme -o jsonpath='{.spec.acme.server}'"
    asked = f'curl --silent --fail --cacert bundle.crt --retry 60 --retry-delay 1 --retry-all-errors "$({server})"\n'
    done = terminal.type(PRELUDE, IN_THE_BACKGROUND, prepare, commands, trusted, asked)
    assert done.returncode == 0, done.stdout + (terminal.folder / "kms-acme.log").read_text()[-4000:]
    assert "certificateprofile.pki.kms.hanzo.ai/web condition met" in done.stdout
    assert '"newOrder":' in done.stdout


@pytest.mark.parametrize("snippet", [each for file in documents() for each in snippets(file)], ids=str)
def test_every_snippet_is_run_by_a_test_or_there_is_a_reason_why_not(snippet: Snippet) -> None:
    if snippet.file in RUN or snippet.text in ONLY_SHOWN or snippet.file.name in LOOKED_AT:
        return
    assert snippet.file == CONTRIBUTING, f"no test runs {snippet}"
    for line in snippet.text.splitlines():
        _shown_in_contributing(line.partition("#")[0].split())


def _shown_in_contributing(words: list[str]) -> None:
    """Check that paths and targets of a command exist: running it would run the tests again, or never end."""
    program, *rest = words
    match program:
        case ".venv/bin/pytest":
            for path in (each for each in rest if "/" in each):
                assert (ROOT / path).exists(), path
        case ".venv/bin/python":
            assert rest[:2] == ["-m", "e2e.cluster"], words  # tests/e2e/cluster runs it
        case "make":
            assert f"\n{rest[0]}:" in (ROOT / "Makefile").read_text(), words
        case _:
            pytest.fail(f"no test runs {' '.join(words)}")


HELP = {
    "certbot": "certbot --help all",
    "lego": "lego --help; lego run --help; lego renew --help; lego revoke --help",
    "kubectl": "command kubectl {verb} --help; command kubectl options",
}
"""Commands that print the options of a program. test_documented_words.py checks kms-acme; tests/chart runs helm."""
UNTOLD = ("--register-unsafely-without-email",)
"""Options that certbot's help omits."""


def test_the_commands_that_are_only_shown_have_options_that_their_programs_know(terminal: Terminal) -> None:
    tools.required(tools.LEGO)
    helps: dict[str, str] = {}
    for snippet in (each for file in documents() if file.name in LOOKED_AT for each in snippets(file)):
        assert subprocess.run(("bash", "-n", "-c", snippet.text), check=False).returncode == 0, snippet
        for command in re.findall(
            r"^(?:\w+=\$\()?((?:certbot|lego|kubectl) .*)$", snippet.text.replace("\\\n", " "), re.MULTILINE
        ):
            program, *rest = command.split()
            verb = (
                next(each for each in rest if each in {"get", "describe", "apply", "wait", "patch"})
                if program == "kubectl"
                else ""
            )
            ask = HELP[program].format(verb=verb)
            if ask not in helps:
                helps[ask] = terminal.type("export COLUMNS=300\n", ask, "\n").stdout
            for option in re.findall(r"(?<![\w-])--[a-z][a-z.0-9-]+", command):
                assert option in helps[ask] or option in UNTOLD, f"{snippet}: {option}"


def test_the_manifests_that_pages_show_are_taken_by_the_api_server(terminal: Terminal) -> None:
    prepare = "set -e\nkubectl apply -f crds/ -f deploy/samples/0-namespace.yaml\n"
    prepare += "kubectl wait --for=condition=Established -f crds/\n"
    shown = [each.text for file in documents() for each in snippets(file, "yaml")]
    ours = [each for text in shown for each in text.split("---\n") if "apiVersion: pki.kms.hanzo.ai/" in each]
    assert len(ours) >= 5
    (terminal.folder / "shown.yaml").write_text("---\n".join(ours))
    prepare += "kubectl create namespace cert-manager --dry-run=client -o yaml | kubectl apply -f -\n"
    done = terminal.type(prepare, "kubectl apply --dry-run=server --validate=strict -f shown.yaml\n")
    assert done.returncode == 0, done.stdout


def test_every_target_that_make_help_tells_of_is_there_and_says_what_it_does() -> None:
    done = subprocess.run(
        ("make", "help"), cwd=ROOT, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=60, check=True
    )
    lines = [line.split(maxsplit=2) for line in done.stdout.splitlines()]
    assert {"demo", "test", "check", "bench", "dev"} <= {words[1] for words in lines}
    assert all(len(words) == 3 for words in lines)
