"""Asks key stores and external CAs what reconcilers want to know, and runs reconcilers with the answers."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Hashable, Mapping
from dataclasses import replace
from datetime import datetime
from typing import Any, TypeAlias

from kms.clock import Entropy
from kms.issuers.key_stores import KeyStoreNotReady, KeyStoreRefused, KeyStores
from kms.pki.ca import InvalidAuthority
from kms.resources.authorities import CertificateAuthority, VaultServer
from kms_operator.plan import Plan
from kms_operator.questions import Answer, CertifyAuthority, FindKey, GetCredentials, MakeKey, Question, Unanswered
from kms_operator.snapshot import Snapshot

Credentials: TypeAlias = Callable[[CertificateAuthority, VaultServer], Awaitable[Mapping[str, bytes]]]
"""Returns what logs in to a server of Vault or OpenBao. Raises InvalidAuthority and ClusterError."""
Certify: TypeAlias = Callable[[CertifyAuthority], Awaitable[bytes]]
"""Returns what an external CA has answered. Raises InvalidAuthority and ClusterError."""


async def answer(question: Question, stores: KeyStores, credentials: Credentials, certify: Certify) -> Answer:
    """The answer; a failure that the CA has to state is one, too. Raises ClusterError."""
    try:
        match question:
            case FindKey(location=location):
                return await stores.find(location)
            case MakeKey(location=location, algorithm=algorithm, size=size):
                return await stores.make(location, algorithm, size)
            case GetCredentials(authority=authority, server=server):
                return await credentials(authority, server)
            case CertifyAuthority():
                return await certify(question)
            case _:
                return await stores.sign(question.location, question.wanted)
    except (KeyStoreNotReady, KeyStoreRefused, InvalidAuthority) as error:
        return error


class Busy(Exception):
    """Another plan of the same group is waiting for a key store; try again later."""


class AnsweredPlans:
    """Runs reconcilers until they have all answers: each time with one more, the same time and random values.

    One plan of a group waits at a time, so that slow stores or CAs of one namespace do not take all workers. A plan may
    ask `maximum_questions`.
    """

    def __init__(
        self, stores: KeyStores, credentials: Credentials, certify: Certify, *, maximum_questions: int = 8
    ) -> None:
        self._stores = stores
        self._credentials = credentials
        self._certify = certify
        self._maximum_questions = maximum_questions
        self._asking = set[Hashable]()

    async def plan(
        self,
        reconcile: Callable[..., Plan],
        subject: Any,
        snapshot: Snapshot,
        *,
        now: datetime,
        entropy: Entropy,
        group: Hashable,
    ) -> Plan:
        """The plan of the reconciler for the subject. Raises Busy, ClusterError, and what the reconciler raises."""
        answers = dict[Question, Answer]()

        def draw(octets: int) -> bytes:
            return snapshot.choices.once(lambda: entropy(octets))

        for _ in range(self._maximum_questions + 1):
            snapshot.choices.restart()
            try:
                return reconcile(subject, replace(snapshot, answers=answers), now=now, entropy=draw)
            except Unanswered as unanswered:
                question = unanswered.question
            if group in self._asking:
                raise Busy
            self._asking.add(group)
            try:
                answers[question] = await answer(question, self._stores, self._credentials, self._certify)
            finally:
                self._asking.discard(group)
        raise RuntimeError(f"a plan asks more than {self._maximum_questions} questions")
