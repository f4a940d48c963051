"""What a guide is made from, and what it consists of."""

from __future__ import annotations

import math
import shlex
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Literal

from kms.resources.orders import ChallengeType

AUTHORITY_FILE = "/etc/ssl/kms-acme/ca.crt"
"""Where the client keeps the CA of the server, as in the documentation."""
_UNKNOWN_KEY_ID, _UNKNOWN_KEY = "KID-OF-YOUR-CREDENTIAL", "SECRET-OF-YOUR-CREDENTIAL"
_DAY = timedelta(days=1)

Language = Literal["sh", "powershell", "yaml", "caddyfile", "apache", "pem"]


class NotSupported(ValueError):
    """The client cannot enroll with the profile; the message says why."""


@dataclass(frozen=True, slots=True)
class Credential:
    """The credential for external account binding (RFC 8555, 7.3.4).

    The HMAC key is in the Secret `secret_name` of `namespace`. With `key`, guides contain it; without, they refer to
    the Secret.
    """

    namespace: str
    secret_name: str
    key_id: str
    key: str | None = field(default=None, repr=False)

    @property
    def read_key(self) -> str:
        """The shell command that prints the HMAC key."""
        template = "{{.data.secret | base64decode}}"
        return f"kubectl -n {self.namespace} get secret {self.secret_name} -o go-template='{template}'"


@dataclass(frozen=True, slots=True)
class Enrollment:
    """The facts of a profile that clients need.

    `profile` is `namespace/name`. `authority` is the CA of the server (PEM), kept in `authority_file` at the client;
    None: clients trust the server anyway. `credential` of None is one that the reader has. `duration` is that of the
    certificates. `names` are examples.
    """

    profile: str
    directory_url: str
    authority: str | None
    challenges: tuple[ChallengeType, ...]
    binding: Literal["Required", "Optional", "Disabled"] = "Required"
    credential: Credential | None = None
    duration: timedelta = timedelta(days=30)
    names: tuple[str, ...] = ("www.example.com",)
    email: str = "team@example.com"
    authority_file: str = AUTHORITY_FILE

    @property
    def is_bound(self) -> bool:
        """Whether the guide registers with a credential."""
        return self.credential is not None or self.binding == "Required"

    @property
    def key_id(self) -> str:
        """The key identifier, or a word that the reader replaces."""
        return self.credential.key_id if self.credential is not None else _UNKNOWN_KEY_ID

    @property
    def key(self) -> str | None:
        """The HMAC key, or a word that the reader replaces; None: it is to be read from its Secret."""
        return self.credential.key if self.credential is not None else _UNKNOWN_KEY

    @property
    def renewal_days(self) -> int:
        """How many days before its end a certificate is to be renewed: a third of its duration."""
        return max(1, math.floor(self.duration / _DAY / 3))

    def challenge(self, client: str, supported: Sequence[ChallengeType]) -> ChallengeType:
        """The first supported challenge that the profile offers for the names. Raises NotSupported."""
        offered = set(self.challenges)
        if any(each.startswith("*.") for each in self.names):
            offered &= {"dns-01"}
        for each in supported:
            if each in offered:
                return each
        usable = ", ".join(each for each in self.challenges if each in offered) or "no challenge"
        raise NotSupported(
            f"{client} proves names with {' or '.join(supported)}, and profile {self.profile} offers {usable} for"
            f" {', '.join(self.names)}"
        )


@dataclass(frozen=True, slots=True)
class Step:
    """A sentence, and what to type; with `file`, what that file contains."""

    text: str
    content: str
    language: Language = "sh"
    file: str | None = None


@dataclass(frozen=True, slots=True)
class Guide:
    """The steps with one client. `client` is its name as an option, `title` as a heading."""

    client: str
    title: str
    steps: tuple[Step, ...]


def save_authority(facts: Enrollment) -> tuple[Step, ...]:
    """The step that keeps the CA of the server."""
    if facts.authority is None:
        return ()
    text = "Save the CA of the server, which the client has to trust."
    return (Step(text, facts.authority.strip() + "\n", "pem", facts.authority_file),)


def assign_values(facts: Enrollment) -> str:
    """Shell variables: DIRECTORY, and KID and SECRET with a credential."""
    lines = [f"DIRECTORY={shlex.quote(facts.directory_url)}"]
    if facts.is_bound:
        lines.append(f"KID={shlex.quote(facts.key_id)}")
        lines.append(assign_key(facts))
    return "".join(f"{line}\n" for line in lines)


def assign_key(facts: Enrollment) -> str:
    """The shell variable SECRET: the HMAC key, or where it is read from."""
    if facts.key is None and facts.credential is not None:
        return f"SECRET=$({facts.credential.read_key})"
    return f"SECRET={shlex.quote(facts.key or '')}"
