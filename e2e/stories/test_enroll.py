"""What `kms-acme enroll` prints is all that a client needs."""

from __future__ import annotations

import subprocess
import sys
import threading
from dataclasses import replace
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from cryptography import x509

from e2e.stories.apache import Apache, own_folder
from e2e.stories.caddy import HELLO, Caddy
from e2e.stories.clients import Certbot, Said, names_in, succeeded
from e2e.stories.story import CLIENT_ADDRESS, SITE_ADDRESS, Credential, Story
from e2e.support import tools
from e2e.support.dns import Addresses
from kms.enrollment_guide import Credential as Key
from kms.enrollment_guide import Enrollment, guide
from tests.support.installation import PROFILE


def printed(story: Story, client: str, name: str, authority_file: Path, *more: str) -> str:
    """The output of `kms-acme enroll`."""
    profile = f"{story.namespace}/{PROFILE}"
    line = ("enroll", f"--profile={profile}", f"--credential={profile}", f"--client={client}", f"--name={name}")
    done = subprocess.run(
        (sys.executable, "-m", "kms_acme", *line, f"--ca-file={authority_file}", *more),
        env={**story.installation.cluster.env},
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout


def kms_acme(story: Story, *line: str) -> Said:
    """Run a command as the administrator."""
    done = subprocess.run(
        (sys.executable, "-m", "kms_acme", *line),
        env={**story.installation.cluster.env},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    return Said(done.returncode, done.stdout)


def run(script: str, story: Story, folder: Path) -> Said:
    """Run a script in a folder, with the user's kubeconfig."""
    done = subprocess.run(
        ("bash", "-euo", "pipefail", "-c", script),
        cwd=folder,
        env={**story.installation.cluster.env, "XDG_CONFIG_HOME": str(folder), "HOME": str(folder)},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=180,
        check=False,
    )
    return Said(done.returncode, done.stdout)


@pytest.mark.requirement("P4")
def test_certbot_obtains_a_certificate_and_reads_the_key_from_its_secret(
    certbot: Certbot, story: Story, credential: Credential, tmp_path: Path
) -> None:
    name = story.name("enrolled")
    script = printed(story, "certbot", name, tmp_path / "trust" / "ca.crt")
    assert credential.secret not in script
    folders = " ".join(f"--{each}-dir={certbot.folder / each}" for each in ("config", "work", "logs"))
    here = f'certbot() {{ command {certbot.program} "$@" {" ".join(certbot.listening)} {folders}; }}\n'
    succeeded(run(here + script, story, tmp_path))
    assert names_in(certbot.file(name)) == {name}


@pytest.mark.requirement("P1", "P3", "P5")
def test_an_administrator_sees_why_it_was_issued_what_there_is_and_that_all_is_well(
    certbot: Certbot, story: Story, credential: Credential
) -> None:
    name, profile = story.name("seen"), f"{story.namespace}/{PROFILE}"
    succeeded(certbot.certonly(name, credential=credential))
    told = kms_acme(story, "explain", "certificate", str(certbot.file(name)))
    assert told.code == 0, told.output
    for said in (f"EABCredential {profile}", f"{name} was proven by http-01", "was issued, valid from"):
        assert said in told.output
    (order,) = story.orders(name)
    account = kms_acme(story, "explain", "account", order["spec"]["accountRef"]["name"])
    assert (account.code, "The account may order certificates." in account.output) == (0, True), account.output
    tried = kms_acme(story, "explain", "name", name, "-p", profile)
    assert (tried.code, order["status"]["serialNumber"] in tried.output) == (0, True), tried.output
    refused = kms_acme(story, "explain", "name", "www.example.org", "-p", profile)
    assert (refused.code, "spec.dnsNames.allowed" in refused.output) == (3, True), refused.output
    listed = kms_acme(story, "certificates", "--profile", profile, "--credential", profile, "--name", name, "-o", "csv")
    assert (listed.code, order["status"]["serialNumber"] in listed.output) == (0, True), listed.output
    well = kms_acme(story, "doctor", "--offline")
    assert "CustomResourceDefinition" not in well.output, well.output
    assert "ServiceAccount of" not in well.output, well.output


@pytest.mark.requirement("P4")
def test_lego_obtains_a_certificate(story: Story, credential: Credential, tmp_path: Path) -> None:
    program = tools.required(tools.LEGO)
    name = story.name("enrolled-lego")
    script = printed(story, "lego", name, tmp_path / "ca.crt", "--reveal")
    assert credential.secret in script
    port = f"--http.port {CLIENT_ADDRESS}:{story.http01_port}"
    resolvers = f"--dns.resolvers {story.nameserver}"
    here = f'lego() {{ command {program} --path {tmp_path / "lego"} {port} {resolvers} "$@"; }}\n'
    succeeded(run(here + script.partition("# Renew")[0], story, tmp_path))
    assert names_in(tmp_path / "lego" / "certificates" / f"{name}.crt") == {name}


def facts(story: Story, credential: Credential, name: str, authority_file: Path) -> Enrollment:
    """What `kms-acme enroll --reveal` reads."""
    return Enrollment(
        profile=f"{story.namespace}/{PROFILE}",
        directory_url=story.enrollment.directory_url,
        authority=story.enrollment.authority,
        challenges=("http-01", "tls-alpn-01"),
        credential=Key(story.namespace, f"{PROFILE}-eab", credential.kid, credential.secret),
        names=(name,),
        authority_file=str(authority_file),
    )


@pytest.mark.requirement("P4")
@pytest.mark.usefixtures("all_challenges")
def test_caddy_serves_a_site_with_the_caddyfile(caddy: Caddy, story: Story, credential: Credential) -> None:
    name = story.name("enrolled-caddy", Addresses(SITE_ADDRESS))
    steps = guide("caddy", facts(story, credential, name, caddy.folder / "ca.crt")).steps
    (caddyfile,) = (each.content for each in steps if each.language == "caddyfile")
    assert HELLO in caddyfile
    with replace(caddy, names=(name,), caddyfile=caddyfile).serving():
        assert replace(caddy, names=(name,)).certificate(name)


@pytest.mark.requirement("P4")
@pytest.mark.usefixtures("all_challenges")
def test_apache_serves_a_site_with_the_configuration(story: Story, credential: Credential) -> None:
    program = tools.required(tools.APACHE)
    name = story.name("enrolled-apache", Addresses(SITE_ADDRESS))
    with own_folder() as folder:
        (folder / "ca.crt").write_text(story.enrollment.authority)
        steps = guide("apache", facts(story, credential, name, folder / "ca.crt")).steps
        (configuration,) = (each.content for each in steps if each.language == "apache")
        site = Apache(program, story, folder, name, configuration)
        with site.serving():
            names = site.certificate().extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert names.get_values_for_type(x509.DNSName) == [name]


@pytest.mark.requirement("P4")
@pytest.mark.clients
def test_ansible_runs_the_playbook(story: Story, credential: Credential, tmp_path: Path) -> None:
    program = tools.required(tools.ANSIBLE)
    name = story.name("enrolled-ansible")
    keys, site = tmp_path / "private", tmp_path / "html"
    keys.mkdir()
    script = printed(story, "ansible", name, tmp_path / "ca.crt")
    script = script.replace("/etc/ssl/private", str(keys)).replace("/var/www/html", str(site))
    options = f"--inventory {name}, --connection local --extra-vars ansible_python_interpreter={sys.executable}"
    here = f'ansible-playbook() {{ command {program} {options} "$@"; }}\n'
    handler = partial(SimpleHTTPRequestHandler, directory=str(site))
    with ThreadingHTTPServer((CLIENT_ADDRESS, story.http01_port), handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        try:
            succeeded(run(here + script, story, tmp_path))
        finally:
            server.shutdown()
            thread.join()
    assert names_in(keys / f"{name}.pem") == {name}
    assert credential.kid in script
