"""Asks key stores what reconcilers want to know, and gets credentials for them."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import TypeAlias

from kms.issuers.key_stores import KeyStoreNotReady, KeyStoreRefused, KeyStores
from kms.pki.ca import InvalidAuthority
from kms.resources.authorities import CertificateAuthority, VaultServer
from kms_operator.questions import Answer, FindKey, GetCredentials, MakeKey, Question

Credentials: TypeAlias = Callable[[CertificateAuthority, VaultServer], Awaitable[Mapping[str, bytes]]]
"""Returns what logs in to a server of Vault or OpenBao. Raises InvalidAuthority and ClusterError."""


async def answer(question: Question, stores: KeyStores, credentials: Credentials) -> Answer:
    """The answer; a failure that the CA has to state is one, too. Raises ClusterError."""
    try:
        match question:
            case FindKey(location=location):
                return await stores.find(location)
            case MakeKey(location=location, algorithm=algorithm, size=size):
                return await stores.make(location, algorithm, size)
            case GetCredentials(authority=authority, server=server):
                return await credentials(authority, server)
            case _:
                return await stores.sign(question.location, question.wanted)
    except (KeyStoreNotReady, KeyStoreRefused, InvalidAuthority) as error:
        return error
