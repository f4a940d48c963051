"""Asks key stores what reconcilers want to know."""

from __future__ import annotations

from kms.issuers.key_stores import KeyStoreNotReady, KeyStoreRefused, KeyStores
from kms_operator.questions import Answer, FindKey, MakeKey, Question


async def answer(question: Question, stores: KeyStores) -> Answer:
    """The answer of the key store; its error is one, too."""
    try:
        match question:
            case FindKey(location=location):
                return await stores.find(location)
            case MakeKey(location=location, algorithm=algorithm, size=size):
                return await stores.make(location, algorithm, size)
            case _:
                return await stores.sign(question.location, question.wanted)
    except (KeyStoreNotReady, KeyStoreRefused) as error:
        return error
