"""The real clients, each in its own folder, without the configuration of the machine."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from cryptography import x509

from e2e.stories.story import CLIENT_ADDRESS, Credential, Story
from e2e.support.hooks import HOOK
from kms.pki.keys import key_algorithm

LIMIT = 180.0
"""Time limit of a client command in seconds."""


@dataclass(frozen=True, slots=True)
class Said:
    """The exit code and output of a client."""

    code: int
    output: str

    @property
    def words(self) -> str:
        """The output without line breaks, since clients wrap sentences."""
        return " ".join(self.output.split())


class ClientFailed(Exception):
    """A client did not behave as expected; the text has its output."""


def run(command: Sequence[str | Path], *, folder: Path, environment: Mapping[str, str]) -> Said:
    """Run a program in its folder."""
    done = subprocess.run(
        [str(each) for each in command],
        cwd=folder,
        env={**os.environ, **environment},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=LIMIT,
        check=False,
    )
    return Said(done.returncode, done.stdout)


def succeeded(said: Said) -> Said:
    """Return the result if the client succeeded.

    Raises:
        ClientFailed: it failed.
    """
    if said.code:
        raise ClientFailed(f"exit code {said.code}:\n{said.output}")
    return said


def refused(said: Said) -> str:
    """Return the output on one line if the client failed.

    Raises:
        ClientFailed: it succeeded.
    """
    if not said.code:
        raise ClientFailed(f"it was not refused:\n{said.output}")
    return said.words


def names_in(pem: Path) -> set[str]:
    """The DNS names of the first certificate in a file."""
    leaf = x509.load_pem_x509_certificate(pem.read_bytes())
    names = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    return set(names.get_values_for_type(x509.DNSName))


def addresses_in(pem: Path) -> set[str]:
    """The IP addresses of the first certificate in a file."""
    leaf = x509.load_pem_x509_certificate(pem.read_bytes())
    names = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    return {str(each) for each in names.get_values_for_type(x509.IPAddress)}


def serial_in(pem: Path) -> int:
    """The serial number of the first certificate in a file."""
    return x509.load_pem_x509_certificate(pem.read_bytes()).serial_number


def key_in(pem: Path) -> str | None:
    """The key algorithm of the first certificate in a file, as in a policy: RSA-2048."""
    return key_algorithm(x509.load_pem_x509_certificate(pem.read_bytes()).public_key())


@dataclass(frozen=True)
class Certbot:
    """certbot with its accounts and certificates on one machine. For `hooks`, see e2e.support.hooks."""

    program: Path
    story: Story
    folder: Path
    hooks: str = ""
    trust: Path = field(init=False)

    def __post_init__(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        object.__setattr__(self, "trust", self.folder / "ca.crt")
        self.trust.write_text(self.story.enrollment.authority)

    def run(self, *args: str | Path) -> Said:
        """Run a certbot command."""
        return run(
            (
                self.program,
                *args,
                "--non-interactive",
                f"--server={self.story.enrollment.directory_url}",
                *(f"--{each}-dir={self.folder / each}" for each in ("config", "work", "logs")),
            ),
            folder=self.folder,
            environment={
                "REQUESTS_CA_BUNDLE": str(self.trust),
                "XDG_CONFIG_HOME": str(self.folder),
                "COLUMNS": "200",
                "STORY_HOOKS": self.hooks,
            },
        )

    def register(self, credential: Credential | None, *args: str) -> Said:
        """Run `certbot register`, without an e-mail address unless `args` has one."""
        contact = () if any(each.startswith("--email") for each in args) else ("--register-unsafely-without-email",)
        return self.run("register", "--agree-tos", *contact, *_binding(credential), *args)

    def certonly(self, *names: str, args: Sequence[str | Path] = (), credential: Credential | None = None) -> Said:
        """Run `certbot certonly --standalone` for these names; it opens an account if there is none."""
        return self.run(
            "certonly",
            "--standalone",
            *self.listening,
            "--agree-tos",
            "--register-unsafely-without-email",
            *_binding(credential),
            *(f"--domain={name}" for name in names),
            *args,
        )

    def manual(
        self, challenge: str, *names: str, args: Sequence[str | Path] = (), credential: Credential | None = None
    ) -> Said:
        """Run `certbot certonly --manual` with challenges of one type, such as "dns", which hooks answer."""
        return self.run(
            "certonly",
            "--manual",
            f"--preferred-challenges={challenge}",
            f"--manual-auth-hook={sys.executable} {HOOK} present",
            f"--manual-cleanup-hook={sys.executable} {HOOK} cleanup",
            "--agree-tos",
            "--register-unsafely-without-email",
            *_binding(credential),
            *(f"--domain={name}" for name in names),
            *args,
        )

    def revoke(self, *args: str | Path) -> Said:
        """Run `certbot revoke`; the files stay."""
        return self.run("revoke", "--no-delete-after-revoke", *args)

    def renew(self, *args: str) -> Said:
        """Run `certbot renew` for all certificates."""
        return self.run("renew", "--no-random-sleep-on-renew", *args)

    @property
    def listening(self) -> tuple[str, ...]:
        """The options for the address of challenge responses."""
        return (f"--http-01-address={CLIENT_ADDRESS}", f"--http-01-port={self.story.http01_port}")

    def file(self, name: str, kind: str = "fullchain") -> Path:
        """The path of a file for a name: cert, chain, fullchain or privkey."""
        return self.folder / "config" / "live" / name / f"{kind}.pem"

    @property
    def accounts(self) -> list[Path]:
        """The folders of its accounts on the server of the story."""
        return [each.parent for each in (self.folder / "config" / "accounts").glob("**/regr.json")]


def _binding(credential: Credential | None) -> tuple[str, ...]:
    return (f"--eab-kid={credential.kid}", f"--eab-hmac-key={credential.secret}") if credential else ()


@dataclass(frozen=True)
class Lego:
    """lego on one machine. For `hooks`, see e2e.support.hooks."""

    program: Path
    story: Story
    folder: Path
    hooks: str = ""

    def __post_init__(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        (self.folder / "ca.crt").write_text(self.story.enrollment.authority)

    def run(
        self,
        command: str,
        *names: str,
        challenge: str = "http",
        args: Sequence[str] = (),
        credential: Credential | None = None,
    ) -> Said:
        """Run `lego run`, `renew` or `revoke` for these names; `args` are global options.

        `challenge` is http, tls, or lego's DNS provider: exec or httpreq.
        """
        binding = ("--eab", f"--kid={credential.kid}", f"--hmac={credential.secret}") if credential else ()
        return run(
            (
                self.program,
                f"--server={self.story.enrollment.directory_url}",
                f"--path={self.folder}",
                "--accept-tos",
                "--email=team@example.com",
                *self._solving(challenge),
                *binding,
                *(f"--domains={name}" for name in names),
                *args,
                *command.split(),
            ),
            folder=self.folder,
            environment={
                "LEGO_CA_CERTIFICATES": str(self.folder / "ca.crt"),
                "STORY_HOOKS": self.hooks,
                "EXEC_PATH": str(HOOK),
                "HTTPREQ_ENDPOINT": self.hooks,
                **dict.fromkeys(("EXEC_POLLING_INTERVAL", "EXEC_SEQUENCE_INTERVAL", "HTTPREQ_POLLING_INTERVAL"), "0"),
            },
        )

    def _solving(self, challenge: str) -> tuple[str, ...]:
        match challenge:
            case "http":
                return ("--http", f"--http.port={CLIENT_ADDRESS}:{self.story.http01_port}")
            case "tls":
                return ("--tls", f"--tls.port={CLIENT_ADDRESS}:{self.story.tls_alpn01_port}")
        return (f"--dns={challenge}", f"--dns.resolvers={self.story.nameserver}", "--dns.disable-cp")

    def file(self, name: str, kind: str = "crt") -> Path:
        """The path of a file for a name: crt or key."""
        return self.folder / "certificates" / f"{name.replace('*', '_')}.{kind}"
