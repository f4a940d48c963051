"""Ranges of IP addresses: which of them networks have in common, and what is left of some without others."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable
from dataclasses import dataclass

from kms.address import Network

_IPV6 = 1 << 32
"""Where the numbers of IPv6 addresses begin, behind those of IPv4."""


@dataclass(frozen=True, slots=True)
class AddressRanges:
    """Addresses of both versions. `_ranges` are disjoint pairs of first and last number, in order, none adjacent."""

    _ranges: tuple[tuple[int, int], ...] = ()

    @classmethod
    def of(cls, networks: Iterable[Network]) -> AddressRanges:
        """The addresses of the networks."""
        merged: list[tuple[int, int]] = []
        for first, last in sorted(map(_numbers, networks)):
            adjacent = merged and first <= merged[-1][1] + 1
            if adjacent and (merged[-1][0] >= _IPV6) == (first >= _IPV6):
                merged[-1] = (merged[-1][0], max(last, merged[-1][1]))
            else:
                merged.append((first, last))
        return cls(tuple(merged))

    def __bool__(self) -> bool:
        return bool(self._ranges)

    def covers(self, network: Network) -> bool:
        """Whether all addresses of the network are among these."""
        first, last = _numbers(network)
        position = bisect_right(self._ranges, (first, 1 << 200)) - 1
        return position >= 0 and self._ranges[position][1] >= last

    def meets(self, network: Network) -> bool:
        """Whether an address of the network is among these."""
        return bool(self & AddressRanges((_numbers(network),)))

    def __and__(self, other: AddressRanges) -> AddressRanges:
        """The addresses that are in both."""
        common, one, two = [], 0, 0
        while one < len(self._ranges) and two < len(other._ranges):
            (first, last), (begin, end) = self._ranges[one], other._ranges[two]
            if max(first, begin) <= min(last, end):
                common.append((max(first, begin), min(last, end)))
            if last < end:
                one += 1
            else:
                two += 1
        return AddressRanges(tuple(common))

    def __sub__(self, other: AddressRanges) -> AddressRanges:
        """These addresses without the others."""
        gaps, begin = [], 0
        for first, last in other._ranges:
            if begin < first:
                gaps.append((begin, first - 1))
            begin = last + 1
        return self & AddressRanges((*gaps, (begin, 1 << 200)))


def _numbers(network: Network) -> tuple[int, int]:
    offset = _IPV6 if network.version == 6 else 0  # noqa: PLR2004 - the version
    return offset + int(network.network_address), offset + int(network.broadcast_address)
