"""The issuers of external CAs: one for each CA, built on demand and closed when the CA goes."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Mapping
from typing import Final, NamedTuple, NoReturn

from kms.issuers.base import IssuerNotReady
from kms.issuers.protocol import RemoteIssuer
from kms.resources.authorities import CertificateAuthority, ExternalAuthority
from kms.resources.orders import AuthorityType

Build = Callable[[CertificateAuthority], RemoteIssuer]
"""Returns the issuer of this CA. Sends nothing."""

_EVERY: Final = 5.0


class _Entry(NamedTuple):
    """An issuer, and the specification that it was built from."""

    spec: ExternalAuthority
    issuer: RemoteIssuer


class RemoteIssuers:
    """The issuers of all external CAs.

    `authorities` returns the CAs that exist now. `builders` has a function for each supported type. `follow` is called
    with the external CAs, by type, whenever they may have changed: what is shared by the CAs of a type is started and
    stopped there. `every` is the time between two looks at the CAs, in seconds.
    """

    def __init__(
        self,
        *,
        authorities: Callable[[], Iterable[CertificateAuthority]],
        builders: Mapping[AuthorityType, Build],
        follow: Callable[[Mapping[AuthorityType, tuple[CertificateAuthority, ...]]], None] = lambda _: None,
        every: float = _EVERY,
    ) -> None:
        self._authorities = authorities
        self._builders = builders
        self._follow = follow
        self._every = every
        self._entries: dict[str, _Entry] = {}
        self._replaced: list[RemoteIssuer] = []

    def __len__(self) -> int:
        """The number of issuers in memory."""
        return len(self._entries)

    def of(self, authority: CertificateAuthority) -> RemoteIssuer:
        """The issuer of this CA, built again after its specification has changed; `run` closes the one before.

        Raises IssuerNotReady if the CA is not external, or of a type that this server does not support.
        """
        uid, spec = authority.metadata.uid, authority.spec.external
        entry = self._entries.get(uid)
        if entry is not None and entry.spec == spec:
            return entry.issuer
        type_ = authority_type(authority)
        if spec is None or type_ is None or type_ not in self._builders:
            name = f"{authority.metadata.namespace}/{authority.metadata.name}"
            raise IssuerNotReady(f"CertificateAuthority {name} is of a type that this server does not ask")
        issuer = self._builders[type_](authority)
        self._entries[uid] = _Entry(spec, issuer)
        if entry is not None:
            self._replaced.append(entry.issuer)
        return issuer

    async def run(self) -> NoReturn:
        """Follow the CAs until cancelled: close the issuers of those that are gone."""
        while True:
            await self.look()
            await asyncio.sleep(self._every)

    async def look(self) -> None:
        """Look at the CAs once."""
        existing = [each for each in self._authorities() if each.spec.external is not None]
        by_type: dict[AuthorityType, tuple[CertificateAuthority, ...]] = {}
        for each in existing:
            if (type_ := authority_type(each)) is not None:
                by_type[type_] = (*by_type.get(type_, ()), each)
        self._follow(by_type)
        uids = {each.metadata.uid for each in existing}
        gone = [self._entries.pop(uid).issuer for uid in tuple(self._entries) if uid not in uids]
        await _close(*gone, *self._take_replaced())

    async def close(self) -> None:
        """Close all issuers."""
        self._follow({})
        issuers = [each.issuer for each in self._entries.values()]
        self._entries.clear()
        await _close(*issuers, *self._take_replaced())

    def _take_replaced(self) -> list[RemoteIssuer]:
        replaced, self._replaced = self._replaced, []
        return replaced


async def _close(*issuers: RemoteIssuer) -> None:
    for each in issuers:
        await each.close()


def authority_type(authority: CertificateAuthority) -> AuthorityType | None:
    """The type of an external CA; None for one that signs at once."""
    external = authority.spec.external
    if external is None:
        return None
    if external.cert_manager is not None:
        return "CertManager"
    if external.signer is not None:
        return "Signer"
    return "Vault" if external.vault is not None else None
