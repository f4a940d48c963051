"""Many patterns, and many networks, compared with a value at once.

A policy may have hundreds of them and an order a hundred names, and the server compares them while its clients wait.
So patterns are found by the literal labels at their end, and networks by their first address: what a value costs hardly
depends on their number. Patterns with stars in other places than the first label have to be tried one by one;
`PatternSet.cost` says how much that can take.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from kms.address import IPAddress, Network
from kms.pki.patterns import ANY_LABEL, ANY_LABELS, Pattern


@dataclass(frozen=True, slots=True)
class Value:
    """A value to compare, taken apart once for all sets.

    `labels` are in lower case. `ends[n]` is the value without its first n labels; None after the last one.
    """

    labels: tuple[str, ...]
    ends: tuple[str | None, ...]

    @classmethod
    def of(cls, text: str) -> Value:
        """The value in this text."""
        folded = text.casefold()
        ends = [folded]
        position = folded.find(".")
        while position >= 0:
            ends.append(folded[position + 1 :])
            position = folded.find(".", position + 1)
        return cls(tuple(folded.split(".")), (*ends, None))


class PatternSet:
    """Some patterns. Made by `PatternSet.of`; iterating gives their texts, in order.

    Of patterns that differ in case only, the first one stands for all.
    """

    __slots__ = ("_any_label", "_any_labels", "_literal", "_others", "_parents", "_tails", "_texts", "cost")

    def __init__(self, patterns: Iterable[Pattern] = ()) -> None:
        self._texts: list[str] = []
        self._literal: dict[str | None, str] = {}
        self._parents: dict[str | None, str] = {}
        """Literal patterns by what follows their first label: those that a wildcard name covers."""
        self._any_label: dict[str | None, str] = {}
        self._any_labels: dict[str | None, str] = {}
        self._others: dict[str | None, list[Pattern]] = {}
        for each in patterns:
            known = each.text
            if each.form is None:
                known = self._literal.setdefault(each.tail, each.text)
                _, dot, parent = (each.tail or "").partition(".")
                self._parents.setdefault(parent if dot else None, each.text)
            elif each.form is ANY_LABEL:
                known = self._any_label.setdefault(each.tail, each.text)
            elif each.form is ANY_LABELS:
                known = self._any_labels.setdefault(each.tail, each.text)
            else:
                self._others.setdefault(each.tail, []).append(each)
            if known == each.text:
                self._texts.append(each.text)
        self._tails = frozenset((*self._others, *self._any_labels))
        self.cost = _worst_cost(self._others)
        """The most that the patterns which have to be tried can cost for one value, in comparisons of two texts."""

    @classmethod
    def of(cls, *patterns: Pattern) -> PatternSet:
        """These patterns."""
        return cls(patterns)

    def __iter__(self) -> Iterator[str]:
        return iter(self._texts)

    def __len__(self) -> int:
        return len(self._texts)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, PatternSet) and self._texts == other._texts

    def __hash__(self) -> int:
        return hash(tuple(self._texts))

    def find(self, value: Value) -> str | None:
        """The text of a pattern that matches the value; None if there is none."""
        return next(self.find_all(value), None)

    def find_all(self, value: Value) -> Iterator[str]:
        """The texts of the patterns that match the value."""
        if (text := self._literal.get(value.ends[0])) is not None:
            yield text
        if (text := self._any_label.get(value.ends[1])) is not None:
            yield text
        for taken, end in self._meeting(value):
            if taken and (text := self._any_labels.get(end)) is not None:
                yield text
            if taken and (others := self._others.get(end)):
                labels = value.labels[:taken]
                yield from (each.text for each in others if each.form is not None and each.form.accepts(labels))

    def find_below(self, base: Value) -> str | None:
        """The text of a pattern that matches some name with exactly one label more than `base`.

        That is a pattern for a name that a certificate for the wildcard `*.base` would be good for.
        """
        for found in (self._parents, self._any_label):
            if (text := found.get(base.ends[0])) is not None:
                return text
        for taken, end in self._meeting(base):
            if (text := self._any_labels.get(end)) is not None:
                return text
            if others := self._others.get(end):
                labels = (None, *base.labels[:taken])
                if (text := next((p.text for p in others if p.form and p.form.accepts(labels)), None)) is not None:
                    return text
        return None

    def _meeting(self, value: Value) -> Iterable[tuple[int, str | None]]:
        """The ends of the value that are tails of patterns, each with the number of labels before it."""
        meeting = self._tails.intersection(value.ends)
        return sorted((value.ends.index(end), end) for end in meeting) if meeting else ()

    def costliest(self) -> str:
        """The pattern that costs most."""
        others = (pattern for patterns in self._others.values() for pattern in patterns)
        return max(others, key=lambda each: each.form.cost if each.form else 0.0).text


def _worst_cost(patterns: Mapping[str | None, Iterable[Pattern]]) -> float:
    """What a value can cost that meets the patterns of one tail, and those with all tails that this one ends in."""
    costs = {tail: sum(each.form.cost for each in found if each.form) for tail, found in patterns.items()}
    without_tail = costs.pop(None, 0.0)
    worst = 0.0
    for tail in costs:
        cost, end, dot = 0.0, tail or "", "."
        while dot:
            cost += costs.get(end, 0.0)
            _, dot, end = end.partition(".")
        worst = max(worst, cost)
    return worst + without_tail


class NetworkSet:
    """Some networks. Made by `NetworkSet.of`; iterating gives them in order."""

    __slots__ = ("_networks", "_outermost", "_starts")

    def __init__(self, networks: Iterable[Network] = ()) -> None:
        self._networks = tuple(networks)
        # Two networks are apart, or one is within the other: the outermost ones answer for all.
        self._outermost: dict[int, list[Network]] = {4: [], 6: []}
        for each in sorted(self._networks, key=lambda each: (each.version, int(each.network_address), each.prefixlen)):
            before = self._outermost[each.version][-1:]
            if not before or each.network_address not in before[0]:
                self._outermost[each.version].append(each)
        self._starts = {
            version: [int(each.network_address) for each in networks] for version, networks in self._outermost.items()
        }

    @classmethod
    def of(cls, *networks: Network) -> NetworkSet:
        """These networks."""
        return cls(networks)

    def __iter__(self) -> Iterator[Network]:
        return iter(self._networks)

    def __len__(self) -> int:
        return len(self._networks)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, NetworkSet) and self._networks == other._networks

    def __hash__(self) -> int:
        return hash(self._networks)

    def find(self, address: IPAddress) -> Network | None:
        """The widest network that the address is in; None if there is none."""
        position = bisect_right(self._starts[address.version], int(address)) - 1
        found = self._outermost[address.version][position] if position >= 0 else None
        return found if found is not None and address in found else None

    def find_empty(self, addresses: Iterable[IPAddress]) -> Iterator[Network]:
        """The networks that none of the addresses is in, in order."""
        numbers: dict[int, list[int]] = {4: [], 6: []}
        for address in addresses:
            numbers[address.version].append(int(address))
        for each in numbers.values():
            each.sort()
        for network in self._networks:
            known = numbers[network.version]
            position = bisect_left(known, int(network.network_address))
            if position == len(known) or known[position] > int(network.broadcast_address):
                yield network


NO_PATTERNS = PatternSet()
NO_NETWORKS = NetworkSet()
