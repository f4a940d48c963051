"""Caddy, a web server that obtains its certificates itself and keeps them in a folder."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from cryptography import x509

from e2e.cluster import Process
from e2e.stories.sites import visit, wait_for
from e2e.stories.story import SITE_ADDRESS, Credential, Story

_STOP_LIMIT = 20.0
HELLO = "Hello from Caddy"
"""The page of its sites."""


@dataclass
class Caddy:
    """Caddy with an HTTPS site for each name.

    `challenge` is the only enabled challenge, in Caddy's terms: "http" or "tls-alpn".
    """

    program: Path
    story: Story
    folder: Path
    credential: Credential
    names: tuple[str, ...] = ()
    challenge: str = "http"
    issuer: dict[str, Any] = field(default_factory=dict)
    """Further members of Caddy's ACME issuer."""
    caddyfile: str = ""
    """A Caddyfile that replaces all other fields, except for addresses, ports and folder."""

    def __post_init__(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        (self.folder / "ca.crt").write_text(self.story.enrollment.authority)

    @contextmanager
    def serving(self) -> Iterator[None]:
        """Run it for the duration of the block; its certificates stay in its folder."""
        file = self._file()
        home = {"HOME": str(self.folder), "XDG_DATA_HOME": str(self.folder), "XDG_CONFIG_HOME": str(self.folder)}
        process = Process.start((self.program, "run", "--config", file), log=self.log, env=home)
        try:
            yield
        finally:
            process.stop(_STOP_LIMIT)

    @property
    def log(self) -> Path:
        """Its log over all runs."""
        return self.folder / "caddy.log"

    def certificate(self, name: str, *, other_than: x509.Certificate | None = None) -> x509.Certificate:
        """Wait until the site has a trusted certificate, other than `other_than`, and return it.

        Raises:
            ClientFailed: it gets none in time; the text has the end of its log.
        """
        return wait_for(
            lambda: self._served_certificate(name, other_than), f"Caddy serves no such certificate for {name}", self.log
        )

    def said(self, text: str) -> str:
        """Wait for a line with this text in its log.

        Raises:
            ClientFailed: there is none in time.
        """

        def found() -> str | None:
            return next((line for line in self.log.read_text().splitlines() if text in line), None)

        return wait_for(found, f"Caddy has not logged {text!r}", self.log)

    def hours_pass(self) -> None:
        """Let Caddy fetch renewal information again, as it does after a few hours."""
        before = (datetime.now(UTC) - timedelta(minutes=1)).isoformat()
        for file in (self.folder / "storage" / "certificates").glob("**/*.json"):
            kept = json.loads(file.read_text())
            kept["issuer_data"]["renewal_info"]["_retryAfter"] = before
            file.write_text(json.dumps(kept))

    def _served_certificate(self, name: str, other_than: x509.Certificate | None) -> x509.Certificate | None:
        """The certificate of the site for a client that trusts the profile's chain; None if the request fails."""
        try:
            with visit(self.story, name) as (connection, certificate):
                connection.sendall(f"GET / HTTP/1.1\r\nHost: {name}\r\nConnection: close\r\n\r\n".encode())
                page = b"".join(iter(lambda: connection.recv(4096), b""))
        except OSError:  # includes ssl.SSLError
            return None
        return certificate if HELLO.encode() in page and certificate != other_than else None

    def _file(self) -> Path:
        """Write its configuration file."""
        if self.caddyfile:
            file = self.folder / "Caddyfile"
            file.write_text(self.caddyfile.replace("{\n", f"{{\n{self._surroundings()}", 1))
        else:
            file = self.folder / "caddy.json"
            file.write_text(json.dumps(self._config()))
        return file

    def _surroundings(self) -> str:
        """Global options of a Caddyfile: address, ports and folder."""
        return (
            f"\tadmin off\n\tdefault_bind {SITE_ADDRESS}\n\tstorage file_system {self.folder / 'storage'}\n"
            f"\thttp_port {self.story.http01_port}\n\thttps_port {self.story.tls_alpn01_port}\n"
        )

    def _config(self) -> dict[str, Any]:
        port = self.story.tls_alpn01_port
        routes = [{"match": [{"host": list(self.names)}], "handle": [{"handler": "static_response", "body": HELLO}]}]
        issuer = {
            "module": "acme",
            "ca": self.story.enrollment.directory_url,
            "external_account": {"key_id": self.credential.kid, "mac_key": self.credential.secret},
            "trusted_roots_pem_files": [str(self.folder / "ca.crt")],
            "challenges": {other: {"disabled": other != self.challenge} for other in ("http", "tls-alpn")},
            **self.issuer,
        }
        return {
            "admin": {"disabled": True},
            "storage": {"module": "file_system", "root": str(self.folder / "storage")},
            "apps": {
                "http": {
                    "http_port": self.story.http01_port,
                    "https_port": port,
                    "servers": {"sites": {"listen": [f"{SITE_ADDRESS}:{port}"], "routes": routes}},
                },
                "tls": {
                    "automation": {
                        "renew_interval": "1s",
                        "policies": [{"subjects": list(self.names), "issuers": [issuer]}],
                    }
                },
            },
        }
