"""The clients, and the guide of each."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType

from kms.enrollment_guide import commands, files
from kms.enrollment_guide.facts import Enrollment, Guide, NotSupported, Step

_GUIDES: Mapping[str, tuple[str, Callable[[Enrollment], tuple[Step, ...]]]] = MappingProxyType(
    {
        "certbot": ("certbot", commands.certbot),
        "lego": ("lego", commands.lego),
        "caddy": ("Caddy", files.caddy),
        "acme.sh": ("acme.sh", commands.acme_sh),
        "uacme": ("uacme", commands.uacme),
        "apache": ("Apache", files.apache),
        "traefik": ("Traefik", commands.traefik),
        "win-acme": ("win-acme", commands.win_acme),
        "ansible": ("ansible", files.ansible),
        "cert-manager": ("cert-manager", files.cert_manager),
    }
)
CLIENTS = tuple(_GUIDES)
"""The clients that there are guides for."""


def guide(client: str, facts: Enrollment) -> Guide:
    """The guide for one of CLIENTS. Raises NotSupported if the client can answer no challenge of the profile."""
    title, steps = _GUIDES[client]
    return Guide(client, title, steps(facts))


def guides(facts: Enrollment) -> tuple[Guide, ...]:
    """The guides of all clients that can enroll with the profile."""
    found = []
    for client in CLIENTS:
        try:
            found.append(guide(client, facts))
        except NotSupported:
            continue
    return tuple(found)
