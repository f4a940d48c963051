"""Where a CA of the PKI secrets engine signs."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

_SEGMENT: Final = r"[A-Za-z0-9_][A-Za-z0-9_.-]*"
_PATH: Final = re.compile(
    rf"(?P<mount>{_SEGMENT}(?:/{_SEGMENT})*?)(?:/issuer/(?P<issuer>{_SEGMENT}))?/sign/(?P<role>{_SEGMENT})"
)


class InvalidPath(ValueError):
    """No path of a role that signs."""


@dataclass(frozen=True, slots=True)
class SigningPath:
    """The parts of `<mount>/sign/<role>` or `<mount>/issuer/<issuer>/sign/<role>`."""

    mount: str
    role: str
    issuer: str | None = None


def signing_path(path: str) -> SigningPath:
    """Read `spec.external.vault.path`. Raises InvalidPath; `sign-verbatim` is one, since it ignores the role."""
    found = _PATH.fullmatch(path)
    if found is None:
        raise InvalidPath(f"{path!r} is neither MOUNT/sign/ROLE nor MOUNT/issuer/ISSUER/sign/ROLE")
    return SigningPath(found["mount"], found["role"], found["issuer"])
