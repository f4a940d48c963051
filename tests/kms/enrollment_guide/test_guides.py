"""The guides of all clients; e2e/stories runs those whose client is there."""

from __future__ import annotations

import subprocess
from dataclasses import replace
from datetime import timedelta

import pytest
import yaml

from kms.enrollment_guide import CLIENTS, Credential, Enrollment, NotSupported, guide, guides, script

KEY = "aG1hYy1rZXk"
CREDENTIAL = Credential("team-a", "web-eab", "6x3kq2v7m4hdnyp5tzbwrcsf")
FACTS = Enrollment(
    profile="pki/web",
    directory_url="https://acme.example.com/acme/pki/web/directory",
    authority="-----BEGIN CERTIFICATE-----\nMII=\n-----END CERTIFICATE-----\n",
    challenges=("http-01", "tls-alpn-01", "dns-01"),
    credential=CREDENTIAL,
)
READ = "kubectl -n team-a get secret web-eab -o go-template='{{.data.secret | base64decode}}'"


@pytest.mark.requirement("P4")
@pytest.mark.parametrize("client", CLIENTS)
def test_a_guide_names_directory_and_key_identifier_and_refers_to_the_secret(client: str) -> None:
    text = script(guide(client, FACTS))
    assert FACTS.directory_url in text
    assert CREDENTIAL.key_id in text
    assert KEY not in text
    if client not in {"win-acme", "cert-manager"}:
        assert READ in text
    else:
        assert "web-eab" in text


@pytest.mark.requirement("P4")
@pytest.mark.parametrize("client", [each for each in CLIENTS if each != "cert-manager"])
def test_a_guide_has_the_key_only_where_it_is_revealed(client: str) -> None:
    text = script(guide(client, replace(FACTS, credential=replace(CREDENTIAL, key=KEY))))
    assert KEY in text
    assert "kubectl" not in text
    assert KEY not in repr(replace(FACTS, credential=replace(CREDENTIAL, key=KEY)))


@pytest.mark.parametrize("client", CLIENTS)
def test_without_a_known_credential_the_reader_sees_what_to_replace(client: str) -> None:
    text = script(guide(client, replace(FACTS, credential=None)))
    assert "KID-OF-YOUR-CREDENTIAL" in text
    assert "SECRET-OF-YOUR-CREDENTIAL" in text


@pytest.mark.parametrize("client", CLIENTS)
def test_without_a_binding_there_is_no_credential(client: str) -> None:
    text = script(guide(client, replace(FACTS, credential=None, binding="Disabled", authority=None)))
    assert "CREDENTIAL" not in text
    assert "eab" not in text.lower()
    assert "ca.crt" not in text


@pytest.mark.parametrize("client", [each for each in CLIENTS if each != "win-acme"])
@pytest.mark.parametrize("key", [None, KEY])
def test_a_script_is_one_that_a_shell_can_read(client: str, key: str | None) -> None:
    text = script(guide(client, replace(FACTS, credential=replace(CREDENTIAL, key=key))))
    done = subprocess.run(("bash", "-n"), input=text, text=True, capture_output=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("client", ["ansible", "cert-manager"])
def test_a_file_in_yaml_is_yaml_with_all_names(client: str) -> None:
    facts = replace(FACTS, names=("a.example.com", "b.example.com"))
    (step,) = (each for each in guide(client, facts).steps if each.language == "yaml")
    documents = list(yaml.safe_load_all(step.content))
    assert documents[0]
    assert all(f"{each}" in step.content for each in facts.names)


def test_a_playbook_reads_the_key_from_its_environment() -> None:
    (step,) = (each for each in guide("ansible", FACTS).steps if each.language == "yaml")
    ((play,),) = yaml.safe_load_all(step.content)
    (account,) = (
        each["community.crypto.acme_account"] for each in play["tasks"] if "community.crypto.acme_account" in each
    )
    assert account["external_account_binding"] == {
        "kid": CREDENTIAL.key_id,
        "alg": "HS256",
        "key": "{{ lookup('ansible.builtin.env', 'SECRET') }}",
    }


def test_a_playbook_makes_the_folder_that_it_copies_into() -> None:
    (step,) = (each for each in guide("ansible", FACTS).steps if each.language == "yaml")
    ((play,),) = yaml.safe_load_all(step.content)
    modules = [next(iter(each)) for each in play["tasks"]]
    folder = play["tasks"][modules.index("ansible.builtin.file")]["ansible.builtin.file"]
    assert folder == {"path": "/var/www/html/.well-known/acme-challenge", "state": "directory"}
    assert modules.index("ansible.builtin.file") < modules.index("ansible.builtin.copy")


def test_powershell_passes_several_names_as_one_argument() -> None:
    text = script(guide("win-acme", replace(FACTS, names=("a.example.com", "b.example.com"))))
    assert "--host 'a.example.com,b.example.com'" in text


def test_a_client_that_has_no_challenge_of_the_profile_says_so_and_is_left_out() -> None:
    facts = replace(FACTS, challenges=("dns-01",))
    with pytest.raises(
        NotSupported, match="Caddy proves names with http-01 or tls-alpn-01, and profile pki/web offers dns-01"
    ):
        guide("caddy", facts)
    assert [each.client for each in guides(facts)] == [
        each for each in CLIENTS if each not in {"caddy", "win-acme", "ansible"}
    ]
    assert len(guides(FACTS)) == len(CLIENTS)


def test_a_wildcard_is_proven_by_dns_records() -> None:
    facts = replace(FACTS, names=("*.apps.example.com",))
    assert "--dns rfc2136 --domains '*.apps.example.com'" in script(guide("lego", facts))
    with pytest.raises(NotSupported):
        guide("caddy", facts)


def test_renewals_fit_the_duration_of_the_certificates() -> None:
    facts = replace(FACTS, duration=timedelta(hours=168))
    assert "renew --days 2" in script(guide("lego", facts))
    assert "certificatesduration=168" in script(guide("traefik", facts))
    assert "--days 5" in script(guide("acme.sh", facts))
    assert "--days 2" in script(guide("uacme", facts))
