"""What reconcilers ask key stores and external CAs. They do not wait: they ask, and are run again with the answer.

A reconciler that asks for the first time raises Unanswered. The controller asks and runs it again, with the same time
and the same random values, until there is nothing left to ask.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any, TypeAlias, TypeVar, cast

from kms.issuers.key_stores import KeyLocation, KeyStoreNotReady, KeyStoreRefused, StoredKey
from kms.pki.ca import InvalidAuthority
from kms.pki.stand_in import ToBeSigned
from kms.resources.authorities import CertificateAuthority, VaultServer

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class FindKey:
    """Which key is there?"""

    location: KeyLocation


@dataclass(frozen=True, slots=True)
class MakeKey:
    """Make a key there; the fields are the arguments of `kms.pki.keys.generate_key`."""

    location: KeyLocation
    algorithm: str
    size: int | None


@dataclass(frozen=True, slots=True)
class SignWith:
    """Sign a message with the key there."""

    location: KeyLocation
    wanted: ToBeSigned


@dataclass(frozen=True, slots=True)
class GetCredentials:
    """What logs in to this server of Vault or OpenBao, for the CA with that UID?"""

    server: VaultServer
    uid: str
    authority: CertificateAuthority = field(compare=False, repr=False)


@dataclass(frozen=True, slots=True)
class CertifyAuthority:
    """What does an external CA, `issuer`, answer to the request (PEM) of an internal one, `authority`?

    `issuer_version` is its UID and generation. `replaces` is the serial number of the certificate that the answer takes
    the place of; 0: there is none. The answer is PEM that nobody has checked.
    """

    request: str
    issuer_version: tuple[str, int]
    replaces: int
    issuer: CertificateAuthority = field(compare=False, repr=False)
    authority: CertificateAuthority = field(compare=False, repr=False)
    duration: timedelta = field(compare=False)


Question: TypeAlias = FindKey | MakeKey | SignWith | GetCredentials | CertifyAuthority
Found: TypeAlias = StoredKey | bytes | Mapping[str, bytes] | None
Failure: TypeAlias = KeyStoreNotReady | KeyStoreRefused | InvalidAuthority
Answer: TypeAlias = Found | Failure


class Unanswered(Exception):
    """The question has not been asked yet. Only the controller catches this."""

    def __init__(self, question: Question) -> None:
        super().__init__(type(question).__name__)
        self.question = question


class Choices:
    """Random values of one reconciliation: the same ones, in the same order, each time it is run."""

    def __init__(self) -> None:
        self._made: list[Any] = []
        self._position = 0

    def restart(self) -> None:
        """The reconciler is run again."""
        self._position = 0

    def once(self, make: Callable[[], T]) -> T:
        """What `make` returned the first time."""
        if self._position == len(self._made):
            self._made.append(make())
        self._position += 1
        return cast("T", self._made[self._position - 1])


def answered(question: Question, answers: Mapping[Question, Answer]) -> Found:
    """The answer. Raises Unanswered, and the failure if the answer is one."""
    if question not in answers:
        raise Unanswered(question)
    answer = answers[question]
    if isinstance(answer, Failure):
        raise answer
    return answer
