"""The stand-in for a DNS provider, told by the program that clients start."""

from __future__ import annotations

import os
import subprocess
import sys
import urllib.request
from collections.abc import Iterator

import dns.message
import dns.query
import pytest

from e2e.support import dns as zones
from e2e.support import hooks, http01
from e2e.support.hooks import HOOK


class Provider:
    """A zone, an answerer of HTTP-01, and the address where both are told what to show."""

    def __init__(self, zone: zones.Zone, nameserver: str, http01_port: int, url: str) -> None:
        self.zone = zone
        self.url = url
        self._nameserver = nameserver
        self._http01_port = http01_port

    def texts(self, name: str) -> list[str]:
        host, _, port = self._nameserver.rpartition(":")
        response = dns.query.udp(dns.message.make_query(name, "TXT"), host, port=int(port), timeout=2)
        return sorted(record.to_text() for rrset in response.answer for record in rrset)

    def file(self, path: str) -> str:
        with urllib.request.urlopen(f"http://127.0.0.1:{self._http01_port}{path}", timeout=2) as answer:
            return str(answer.read().decode())

    def call(self, *arguments: str, **env: str) -> None:
        subprocess.run(
            [sys.executable, HOOK, *arguments], env={**os.environ, "STORY_HOOKS": self.url, **env}, check=True
        )


@pytest.fixture
def provider() -> Iterator[Provider]:
    zone, answerer = zones.Zone("demo.test"), http01.Answerer()
    with (
        zones.serving(zone) as nameserver,
        http01.serving(answerer) as port,
        hooks.serving(zone, answerer) as url,
    ):
        yield Provider(zone, nameserver, port, url)


def test_certbots_manual_plugin_publishes_a_record_beside_another_one_and_takes_its_own_back(
    provider: Provider,
) -> None:
    first = {"CERTBOT_DOMAIN": "a.demo.test", "CERTBOT_VALIDATION": "one"}
    second = {"CERTBOT_DOMAIN": "a.demo.test", "CERTBOT_VALIDATION": "two"}
    provider.call("present", **first)
    provider.call("present", **second)
    assert provider.texts("_acme-challenge.a.demo.test") == ['"one"', '"two"']
    provider.call("cleanup", **first)
    assert provider.texts("_acme-challenge.a.demo.test") == ['"two"']
    provider.call("cleanup", **second)
    provider.call("cleanup", **second)
    assert provider.texts("_acme-challenge.a.demo.test") == []


def test_legos_exec_provider_names_the_record_itself(provider: Provider) -> None:
    provider.call("present", "_acme-challenge.b.demo.test.", "text")
    assert provider.texts("_acme-challenge.b.demo.test") == ['"text"']
    provider.call("cleanup", "_acme-challenge.b.demo.test.", "text")
    assert provider.texts("_acme-challenge.b.demo.test") == []


def test_with_a_token_certbots_manual_plugin_shows_a_file(provider: Provider) -> None:
    shown = {"CERTBOT_DOMAIN": "c.demo.test", "CERTBOT_TOKEN": "token", "CERTBOT_VALIDATION": "token.thumbprint"}
    provider.call("present", **shown)
    assert provider.file("/.well-known/acme-challenge/token") == "token.thumbprint"
    assert provider.texts("_acme-challenge.c.demo.test") == []
