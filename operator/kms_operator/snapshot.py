"""The cluster as one reconciliation sees it: the only input of the reconcilers beside the resource itself."""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from kms.resources.authorities import CertificateAuthority
from kms.resources.core import Secret
from kms.resources.deletions import Deletions
from kms.resources.kinds import AUTHORITIES, POLICIES, PROFILES, SECRETS, Kind
from kms.resources.meta import Key, LocalRef, Resource, Unreadable, key_of
from kms.resources.policies import CertificatePolicy
from kms.resources.profiles import CertificateProfile
from kms_operator.indexes import INDEXES, OWNER, ObjectIndex, Unavailability
from kms_operator.observation import Observed
from kms_operator.plan import Denial
from kms_operator.questions import Answer, Choices, Found, Question, answered
from kms_operator.settings import OperatorSettings


class Read(NamedTuple):
    """An object that a reconciler needs: read from the API server if it is not cached, or, with `live`, in any case.

    If an `optional` one cannot be read, the reconciler plans without it, and runs again later; `Snapshot.denial` says
    why.
    """

    kind: Kind[Any]
    namespace: str
    name: str
    live: bool = False
    optional: bool = False

    @property
    def key(self) -> Key:
        """(namespace, name)."""
        return self.namespace, self.name


@dataclass(frozen=True, slots=True)
class Snapshot:
    """The cache, and objects that were read from the API server for this reconciliation (None: they do not exist).

    An object that a reconciler names in its `reads` and that is not here does not exist. Reconcilers do not wait, so
    the cache does not change while one runs. Of Secrets, issuers and objects with roots, the cache has those with the
    operator's label.
    """

    settings: OperatorSettings
    index: ObjectIndex
    live: Mapping[tuple[str, Key], Any | None] = field(default_factory=dict)
    deletions: Deletions = field(default_factory=Deletions)
    """Of objects whose predecessors of the same name left something, by (plural, key)."""
    denials: Mapping[tuple[str, Key], Denial] = field(default_factory=dict)
    """Why optional objects could not be read."""
    observations: Mapping[str, Observed] = field(default_factory=dict)
    """The latest looks at the issuers of external CAs, by UID of the CA."""
    answers: Mapping[Question, Answer] = field(default_factory=dict)
    """What key stores have answered in this reconciliation."""
    choices: Choices = field(default_factory=Choices)

    def ask(self, question: Question) -> Found:
        """Return the answer. Raises Unanswered the first time; the reconciler is then run again.

        Raises KeyStoreNotReady, KeyStoreRefused and InvalidAuthority if that is the answer.
        """
        return answered(question, self.answers)

    def denial(self, kind: Kind[Any], key: Key) -> Denial | None:
        """Return why an optional object could not be read; None if it was read or is cached."""
        return self.denials.get((kind.plural, key))

    def get(self, kind: Kind[Any], key: Key) -> Any | None:
        """Return the object with that namespace and name, if it exists."""
        if (kind.plural, key) in self.live:
            return self.live[kind.plural, key]
        return self.index.get(kind, key)

    def all(self, kind: Kind[Any]) -> Iterator[Any]:
        """Return all objects of the kind."""
        read = self._read_live(kind)
        yield from (each for key, each in self.index.all(kind).items() if key not in read)
        yield from (each for each in read.values() if each is not None)

    def by_index(self, kind: Kind[Any], index: str, value: Hashable) -> list[Any]:
        """Return the objects of the kind that the index of the cache has under `value`."""
        read = self._read_live(kind)
        cached = [each for each in self.index.by_index(kind, index, value) if key_of(each) not in read]
        matches = INDEXES[kind.plural][index]
        return [*cached, *(each for each in read.values() if each is not None and value in matches(each))]

    def owned_by(self, kind: Kind[Any], owner: Resource) -> list[Any]:
        """Return the objects of the kind that refer to `owner`, by label or by owner reference."""
        return self.by_index(kind, OWNER, owner.metadata.uid)

    def unreadable(self, kind: Kind[Any], key: Key) -> Unreadable | None:
        """Return what is known of the object if it exists and does not fit its model. `get` then returns None."""
        return None if self.get(kind, key) is not None else self.index.unreadable(kind, key)

    def authority(self, ref: LocalRef, *, namespace: str) -> CertificateAuthority | None:
        """Return the CertificateAuthority that a resource of `namespace` refers to."""
        return self.get(AUTHORITIES, (namespace, ref.name))

    def policy(self, ref: LocalRef, *, namespace: str) -> CertificatePolicy | None:
        """Return the CertificatePolicy that a resource of `namespace` refers to."""
        return self.get(POLICIES, (namespace, ref.name))

    def profile(self, key: Key) -> CertificateProfile | None:
        """Return the CertificateProfile with that namespace and name."""
        return self.get(PROFILES, key)

    def secret(self, namespace: str, name: str) -> Secret | None:
        """Return the Secret with that name, if it exists."""
        return self.get(SECRETS, (namespace, name))

    def internal_secret(self, name: str) -> Secret | None:
        """Return the Secret of the release namespace with that name, if it exists."""
        return self.secret(self.settings.namespace, name)

    def unavailable(self, kind: Kind[Any]) -> Unavailability | None:
        """Return why an optional kind is not available; None if it is."""
        return self.index.unavailable.get(kind.plural)

    def served_version(self, newest: Kind[Any]) -> Kind[Any]:
        """Return the version of the kind that the API server serves, as far as known."""
        return self.index.served.get(newest.plural, newest)

    def _read_live(self, kind: Kind[Any]) -> dict[Key, Any | None]:
        return {key: each for (plural, key), each in self.live.items() if plural == kind.plural}
