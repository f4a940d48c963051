"""A team's sites are served by Apache, whose mod_md gets and renews their certificates."""

from __future__ import annotations

import pytest
from cryptography import x509

from e2e.stories.apache import Apache, own_folder
from e2e.stories.snippets import CLIENTS, placed, snippets
from e2e.stories.story import SITE_ADDRESS, Credential, Story
from e2e.support import tools
from e2e.support.dns import Addresses


@pytest.mark.usefixtures("all_challenges")
def test_the_configuration_that_the_documentation_shows_is_all_it_takes(story: Story, credential: Credential) -> None:
    (shown,) = snippets(CLIENTS, "apache")
    name = story.name("apache", Addresses(SITE_ADDRESS))
    with own_folder() as folder:
        authority = folder / "ca.crt"
        authority.write_text(story.enrollment.authority)
        here = {
            "https://acme.example.com/acme/pki/web/directory": story.enrollment.directory_url,
            "/etc/ssl/kms-acme/ca.crt": str(authority),
            "6x3kq2v7m4hdnyp5tzbwrcsf": credential.kid,
            "SECRET-OF-WEB-EAB": credential.secret,
            "web.apps.example.com": name,
        }
        site = Apache(tools.required(tools.APACHE), story, folder, name, placed(shown, here))
        with site.serving():
            names = site.certificate().extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert names.get_values_for_type(x509.DNSName) == [name]
    (order,) = story.orders(name)
    assert order["status"]["state"] == "valid"
