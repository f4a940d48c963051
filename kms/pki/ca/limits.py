"""Whether a chain limits a CA as much as was asked for: path length and name constraints (RFC 5280, 4.2.1.9 and 10).

A certificate may have thousands of subtrees, so they are found by the ends of a name, and by the address of a network.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Sequence

from cryptography import x509

from kms.address import Network
from kms.pki.ca.internal import NameConstraints, path_length_below
from kms.pki.extensions import find_extension
from kms.pki.pattern_sets import NetworkSet

_SHOWN = 3
"""Subtrees that a message lists."""


def missing_limits(
    chain: Sequence[x509.Certificate], path_length: int | None, constraints: NameConstraints | None
) -> Iterator[str]:
    """The limits that were asked for and that clients would not enforce, since no certificate of the chain has them."""
    length = path_length_below(chain)
    if path_length is not None and (length is None or length > path_length):
        found = "no path length" if length is None else f"path length {length}"
        yield (
            f"it has {found}, and spec.internal.pathLength is {path_length}; have it signed with pathlen:{path_length},"
            " or remove spec.internal.pathLength"
        )
    if constraints is None:
        return
    values = [value for each in chain if (value := find_extension(each, x509.NameConstraints)) is not None]
    permitted = [tuple(each.permitted_subtrees or ()) for each in values]
    excluded = [one for each in values for one in each.excluded_subtrees or ()]
    for what, subtrees in (
        ("permitted", _not_limited(constraints, permitted)),
        ("excluded", _not_excluded(constraints, excluded)),
    ):
        if subtree := next(subtrees, None):
            yield (
                f"its nameConstraints allow more than spec.internal.nameConstraints.{what} does: {subtree}; have it"
                " signed with the nameConstraints of the request, or change spec.internal.nameConstraints"
            )


def _not_limited(asked: NameConstraints, found: Iterable[Collection[x509.GeneralName]]) -> Iterator[str]:
    """The types of names that no certificate limits to what is to be permitted; `found` is by certificate."""
    domains, networks = frozenset(asked.permitted_domains), NetworkSet(asked.permitted_networks)
    if domains and not any(
        (own := _domains(each)) and all(_is_within(one.removeprefix("."), domains) for one in own) for each in found
    ):
        yield f"DNS names outside of {', '.join(asked.permitted_domains[:_SHOWN])}"
    if len(networks) and not any(
        (parts := _networks(each)) and all(_is_part(one, networks) for one in parts) for each in found
    ):
        yield f"IP addresses outside of {', '.join(map(str, asked.permitted_networks[:_SHOWN]))}"


def _not_excluded(asked: NameConstraints, found: Collection[x509.GeneralName]) -> Iterator[str]:
    # A domain with a dot in front is not part of its own subtree.
    domains = frozenset(each for each in _domains(found) if not each.startswith("."))
    yield from (each for each in asked.excluded_domains if not _is_within(each, domains))
    networks = NetworkSet(_networks(found))
    yield from (str(each) for each in asked.excluded_networks if not _is_part(each, networks))


def _domains(names: Iterable[x509.GeneralName]) -> list[str]:
    return [each.value.lower() for each in names if isinstance(each, x509.DNSName)]


def _networks(names: Iterable[x509.GeneralName]) -> list[Network]:
    return [each.value for each in names if isinstance(each, x509.IPAddress) and isinstance(each.value, Network)]


def _is_within(domain: str, subtrees: Collection[str]) -> bool:
    """Whether the domain and all below it are within one of the subtrees; the empty one is the whole tree."""
    while domain:
        if domain in subtrees:
            return True
        domain = domain.partition(".")[2]
    return "" in subtrees


def _is_part(network: Network, others: NetworkSet) -> bool:
    widest = others.find(network.network_address)
    return widest is not None and widest.prefixlen <= network.prefixlen
