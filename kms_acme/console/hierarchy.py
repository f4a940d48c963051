"""CAs as a tree, with their ends and keys. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime

from cryptography import x509

from kms.contract import READY
from kms.pki.certificate import issuer_id
from kms.pki.keys import key_algorithm
from kms.resources.authorities import CertificateAuthority
from kms.resources.meta import Condition, Key, condition, key_of


@dataclass(slots=True)
class Node:
    """A CA and those that it has signed."""

    authority: CertificateAuthority
    key: str
    """The algorithm of its key."""
    kept: str
    """Where its private key is."""
    children: list[Node] = field(default_factory=list)

    @property
    def ready(self) -> Condition | None:
        """Whether it can sign."""
        return condition(self.authority.status.conditions, READY)

    def days(self, now: datetime) -> int | None:
        """Whole days until it ends."""
        ends = self.authority.status.not_after
        return (ends - now).days if ends is not None else None


def tree(authorities: Iterable[CertificateAuthority]) -> list[Node]:
    """The CAs that no other one here has signed; the others are below them. Sorted by name."""
    nodes = {key_of(each): _node(each) for each in sorted(authorities, key=key_of)}
    by_key_id = {(key[0], key_id): key for key, node in nodes.items() for key_id in node.authority.key_ids}
    above = {key: _signer(node.authority, nodes, by_key_id) for key, node in nodes.items()}
    roots = []
    for key, node in nodes.items():
        parent = above[key]
        if parent is None or key in _path(parent, above):
            roots.append(node)
        else:
            nodes[parent].children.append(node)
    return roots


def flat(nodes: Iterable[Node]) -> Iterator[Node]:
    """All nodes, each before those below it."""
    waiting = list(nodes)[::-1]
    while waiting:
        node = waiting.pop()
        yield node
        waiting += node.children[::-1]


def _path(key: Key, above: Mapping[Key, Key | None]) -> set[Key]:
    """The CA and all above it: specs may name each other in a circle."""
    found: set[Key] = set()
    current: Key | None = key
    while current is not None and current not in found:
        found.add(current)
        current = above[current]
    return found


def _signer(authority: CertificateAuthority, nodes: Mapping[Key, Node], by_key_id: Mapping[Key, Key]) -> Key | None:
    namespace, internal = authority.metadata.namespace, authority.spec.internal
    if internal is not None and internal.issuer_ref is not None:
        named = namespace, internal.issuer_ref.name
        return named if named in nodes else None
    certificate = _certificate(authority)
    if certificate is None:
        return None
    try:
        found = by_key_id.get((namespace, issuer_id(certificate)))
    except ValueError:
        return None
    return found if found != key_of(authority) else None


def _node(authority: CertificateAuthority) -> Node:
    certificate = _certificate(authority)
    return Node(authority, _algorithm(certificate), _kept(authority))


def _algorithm(certificate: x509.Certificate | None) -> str:
    if certificate is None:
        return "not known"
    try:
        return key_algorithm(certificate.public_key()) or "not known"
    except ValueError:  # a curve or a point that cryptography does not know
        return "not known"


def _kept(authority: CertificateAuthority) -> str:
    spec = authority.spec
    if spec.external is not None:
        return "elsewhere: this CA is asked for each certificate"
    if spec.imported is not None:
        return f"Secret {authority.metadata.namespace}/{spec.imported.secret_ref.name}"
    store = spec.internal.key_store if spec.internal is not None else None
    if store is not None and store.transit is not None:
        return f"transit key {store.transit.key} at {store.transit.server}"
    if store is not None and store.pkcs11 is not None:
        return f"PKCS #11 key {store.pkcs11.key} of token {store.pkcs11.token}"
    return "Secret of the release namespace"


def _certificate(authority: CertificateAuthority) -> x509.Certificate | None:
    if authority.status.certificate is None:
        return None
    try:
        return x509.load_pem_x509_certificate(authority.status.certificate.encode())
    except ValueError:
        return None
