"""What the owner of a profile allows the clients of each namespace; kms.resources.client_namespaces has the rules.

Profile and labels count as they are now, for existing accounts too, and cost no read. What is not known denies: with a
503 if it may become known, because cert-manager takes any 4xx as final.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import lru_cache

from acme_server.problems import ProblemType, Refused, Unavailable
from kms.pki.policy import Narrowing
from kms.resources.client_namespaces import Clients, UnknownNamespace, names_of, narrowing_of, resolve
from kms.resources.compile import InvalidRules
from kms.resources.meta import Key
from kms.resources.profiles import AcmeEnrollment, NamespaceNames

LabelsOf = Callable[[str], Mapping[str, str] | None]
"""The labels of the namespace with this name; None: it does not exist, or is not known yet."""

_UNKNOWN = 5
"""Retry-After while a namespace is not known, in seconds."""
_NOT_READY = 30
"""Retry-After while the templates of a profile need repair, in seconds."""


class NamespaceRules:
    """Applies the rules of profiles for namespaces of clients. `capacity` is how many sets of names are kept."""

    def __init__(self, labels_of: LabelsOf, *, capacity: int = 512) -> None:
        self._labels_of = labels_of
        self._narrowing = lru_cache(maxsize=capacity)(_narrowing)

    def admit(self, clients: Clients, profile: Key, acme: AcmeEnrollment) -> None:
        """Check that the clients may act on the profile.

        Raises Refused (unauthorized) if it suspends their namespace or does not allow that of their credential, and
        Unavailable.
        """
        rule, (home, name) = acme.allowed_namespaces, profile
        if clients.home != home:
            labels = self._labels_of(clients.home) if rule.from_ == "Selector" else {}
            if labels is None:
                raise Unavailable("The namespace of the EAB credential is not known.", _UNKNOWN)
            if not rule.selects(clients.home, labels, home=home):
                raise Refused(
                    ProblemType.UNAUTHORIZED,
                    f"Profile {home}/{name} does not allow EAB credentials of namespace {clients.home}.",
                )
        settings = rule.settings_of(clients.namespace)
        if settings is not None and settings.suspended:
            raise Refused(
                ProblemType.UNAUTHORIZED,
                f"Profile {home}/{name} has suspended the clients of namespace {clients.namespace}.",
            )

    def narrowing(self, clients: Clients | None, profile: Key, acme: AcmeEnrollment) -> Narrowing | None:
        """The names that the profile gives the clients (None: of an account without credential).

        The result is None if the profile does not narrow. Raises Unavailable if the namespace is not known, or a
        template is invalid, which the operator reports.
        """
        found = names_of(acme.allowed_namespaces, clients)
        if found is None:
            return None
        labels = self._labels_of(clients.namespace) if clients is not None else None
        known = frozenset(labels.items()) if labels is not None else None
        try:
            return self._narrowing(*found, clients, known, "/".join(profile))
        except UnknownNamespace as error:
            raise Unavailable("The namespace of the account's EAB credential is not known.", _UNKNOWN) from error
        except InvalidRules as error:
            raise Unavailable("The rules of the profile for namespaces need repair.", _NOT_READY) from error


def _narrowing(
    names: NamespaceNames, path: str, clients: Clients | None, labels: frozenset[tuple[str, str]] | None, profile: str
) -> Narrowing:
    resolved = resolve(names, clients, dict(labels) if labels is not None else None, path=path)
    return narrowing_of(resolved, profile, path=path)
