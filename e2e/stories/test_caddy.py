"""A team serves its sites with Caddy, which gets and renews certificates by itself."""

from __future__ import annotations

from dataclasses import replace

import pytest
from cryptography import x509

from e2e.stories.caddy import Caddy
from e2e.stories.snippets import CLIENTS, placed, snippets
from e2e.stories.story import SITE_ADDRESS, Credential, Story
from e2e.support.dns import Addresses

pytestmark = pytest.mark.usefixtures("all_challenges")
HERE = Addresses(SITE_ADDRESS)


def names_of(certificate: x509.Certificate) -> list[str]:
    names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    return names.get_values_for_type(x509.DNSName)


@pytest.mark.parametrize(("challenge", "type_"), [("http", "http-01"), ("tls-alpn", "tls-alpn-01")])
def test_its_sites_have_certificates_that_visitors_trust_as_soon_as_it_runs(
    caddy: Caddy, story: Story, challenge: str, type_: str
) -> None:
    names = tuple(story.name(f"{label}-{challenge}", HERE) for label in ("web", "api"))
    site = replace(caddy, names=names, challenge=challenge)
    with site.serving():
        assert [names_of(site.certificate(name)) for name in names] == [[name] for name in names]
    orders = [order for name in names for order in story.orders(name)]
    assert len({order["spec"]["accountRef"]["name"] for order in orders}) == 1
    valid = [
        each["type"]
        for order in orders
        for each in order["status"]["authorizations"][0]["challenges"]
        if each["state"] == "valid"
    ]
    assert valid == [type_, type_]


def test_the_caddyfile_that_the_documentation_shows_is_all_it_takes(
    caddy: Caddy, story: Story, credential: Credential
) -> None:
    (shown,) = snippets(CLIENTS, "caddyfile")
    name = story.name("documented", HERE)
    here = {
        "https://acme.example.com/acme/pki/web/directory": story.enrollment.directory_url,
        "/etc/ssl/kms-acme/ca.crt": str(caddy.folder / "ca.crt"),
        "6x3kq2v7m4hdnyp5tzbwrcsf": credential.kid,
        "<secret of web-eab>": credential.secret,
        "web.apps.example.com": name,
    }
    site = replace(caddy, names=(name,), caddyfile=placed(shown, here))
    with site.serving():
        assert names_of(site.certificate(name)) == [name]
    (order,) = story.orders(name)
    assert order["status"]["state"] == "valid"


def test_a_certificate_is_kept_over_a_restart(caddy: Caddy, story: Story) -> None:
    name = story.name("kept", HERE)
    site = replace(caddy, names=(name,))
    with site.serving():
        before = site.certificate(name)
    with site.serving():
        assert site.certificate(name) == before
    assert len(story.orders(name)) == 1


def test_without_its_credential_it_says_that_one_is_needed(caddy: Caddy, story: Story) -> None:
    name = story.name("no-credential", HERE)
    site = replace(caddy, names=(name,), issuer={"external_account": None})
    with site.serving():
        assert "externalAccountRequired" in site.said("will retry")
    assert story.orders(name) == []


def test_without_the_ca_of_the_server_it_does_not_trust_the_directory(caddy: Caddy, story: Story) -> None:
    name = story.name("no-trust", HERE)
    site = replace(caddy, names=(name,), issuer={"trusted_roots_pem_files": []})
    with site.serving():
        assert story.enrollment.directory_url in site.said("certificate signed by unknown authority")
    assert story.orders(name) == []


def test_a_name_that_the_policy_does_not_allow_is_refused_with_name_rule_and_policy(caddy: Caddy) -> None:
    site = replace(caddy, names=("www.example.org",))
    with site.serving():
        said = site.said("will retry")
    assert "rejectedIdentifier" in said
    assert "spec.dnsNames.allowed" in said
