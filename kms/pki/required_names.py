"""Names that every certificate must have: whether one certificate has room for all of them."""

from __future__ import annotations

from dataclasses import dataclass, replace

from kms.address import Network
from kms.pki.pattern_overlap import Effort, PatternIndex
from kms.pki.policy import NetworkRules
from kms.pki.rules import Rules


@dataclass(frozen=True, slots=True)
class Demands:
    """The patterns and networks that a name of each certificate must match, and how many names it may have.

    `maximum` of 0 is no limit.
    """

    names: tuple[str, ...] = ()
    networks: tuple[Network, ...] = ()
    maximum: int = 0

    @classmethod
    def of(cls, names: Rules | None, addresses: NetworkRules | None, maximum: int) -> Demands:
        """Return what these rules require."""
        return cls(maximum=maximum).and_those_of(names, addresses)

    def and_those_of(self, names: Rules | None, addresses: NetworkRules | None) -> Demands:
        """Return these demands, and what the rules require beside them."""
        return replace(
            self,
            names=(*self.names, *(names.required if names is not None else ())),
            networks=(*self.networks, *(addresses.required if addresses is not None else ())),
        )


NO_DEMANDS = Demands()


def too_many(demands: Demands, path: str, effort: Effort) -> str | None:
    """Why no certificate can meet all demands; None if one may. `path` is the field of the rules.

    Counted are demands of which no name meets two.
    """
    if not demands.maximum or len(demands.names) + len(demands.networks) <= demands.maximum:
        return None
    apart = PatternIndex((), effort)
    names = 0
    # Those without a star first: more of them have nothing in common.
    for each in sorted(demands.names, key=lambda pattern: "*" in pattern):
        if not apart.find_overlapping(each):
            apart.add(each)
            names += 1
    networks: list[Network] = []
    for network in sorted(demands.networks, key=lambda each: -each.prefixlen):
        # Of two networks, one contains the other or they have nothing in common.
        if not any(each.version == network.version and each.overlaps(network) for each in networks):
            networks.append(network)
    number = names + len(networks)
    if number <= demands.maximum:
        return None
    fields = [f"{path}.dnsNames.required"] * bool(names) + [f"{path}.ipAddresses.required"] * bool(networks)
    return (
        f"{' and '.join(fields)}: {number} names are required in every certificate, and spec.maximumNames of the policy"
        f" allows {demands.maximum}"
    )
