"""What a policy, a profile and a credential leave to be issued, and which of their rules have no effect.

Rules may contradict each other: a name is allowed and denied, no offered challenge can prove an address, a credential
has names outside of the policy. The operator tells that in conditions, before the first order is refused. Each function
takes what earlier rules leave, and reports the rules that it applies.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, replace

from kms.pki.address_ranges import AddressRanges
from kms.pki.constraints import Constraints, Domains
from kms.pki.names import MAXIMUM_LABEL, InvalidName, dns_name
from kms.pki.pattern_overlap import Effort, PatternIndex
from kms.pki.policy import Narrowing, NetworkRules, Policy, Rules
from kms.pki.required_names import NO_DEMANDS, Demands, too_many
from kms.pki.subject_effect import subject_contradictions, subject_without_effect

_FOR_ADDRESSES = frozenset({"http-01", "tls-alpn-01"})
_FOR_WILDCARDS = "dns-01"


@dataclass(frozen=True, slots=True)
class Issuable:
    """What can be issued: `names` are DNS patterns, `addresses` ranges.

    `denied` are the patterns with which the policy denies names, and `demands` what it requires. `without_effect` are
    the rules that allow nothing, and why. `objection` says why no certificate can be issued at all; None: some can.
    """

    names: tuple[str, ...]
    addresses: AddressRanges
    without_effect: tuple[str, ...] = ()
    objection: str | None = None
    denied: tuple[str, ...] = ()
    demands: Demands = NO_DEMANDS


def issuable_by_policy(policy: Policy, *, effort: Effort | None = None) -> Issuable:
    """What the rules of the policy leave."""
    effort = effort or Effort()
    notes = list(_impossible(policy))
    names = _allowed_names(policy.dns_names, "spec.dnsNames", effort, notes)
    addresses = _allowed_addresses(policy.ip_addresses, "spec.ipAddresses", notes)
    notes += subject_without_effect(policy.subject, effort)
    if "*" in names:
        notes.append(
            'spec.dnsNames.allowed: "*" matches names of a single label only, such as "localhost"; write "**" for names'
            " of any number of labels"
        )
    denied = tuple(policy.dns_names.denied) if policy.dns_names is not None else ()
    demands = Demands.of(policy.dns_names, policy.ip_addresses, policy.maximum_names)
    left = Issuable(names, addresses, tuple(notes), denied=denied, demands=demands)
    return _judge(
        left,
        next(_contradictions(policy, names, effort), None)
        or _unmet(policy.dns_names, policy.ip_addresses, left, "spec", effort)
        or too_many(demands, "spec", effort),
        otherwise="no name is allowed (spec.dnsNames.allowed, spec.ipAddresses.allowed)",
    )


def issuable_by_profile(
    left: Issuable,
    policy: Policy,
    *,
    challenges: Collection[str] | None,
    constraints: Sequence[Constraints] = (),
    effort: Effort | None = None,
) -> Issuable:
    """What the profile's challenges (None: names need no proof) and the name constraints of its CA leave."""
    effort = effort or Effort()
    notes: list[str] = []
    names, addresses = left.names, left.addresses
    if challenges is not None:
        offered = ", ".join(challenges)
        if addresses and not _FOR_ADDRESSES & set(challenges):
            notes.append(
                f"policy {policy.name} allows IP addresses (spec.ipAddresses), and no offered challenge proves control"
                f" of one (spec.enrollment.acme.challenges: {offered}); add http-01 or tls-alpn-01"
            )
            addresses = AddressRanges()
        if policy.wildcards and _FOR_WILDCARDS not in challenges:
            notes.append(
                f"policy {policy.name} allows wildcards (spec.dnsNames.wildcards), and no offered challenge proves"
                f" control of one (spec.enrollment.acme.challenges: {offered}); add dns-01"
            )
    for each in constraints:
        names = _constrained_names(names, each, policy, effort, notes)
        addresses = _constrained_addresses(addresses, each, policy, notes)
    after = replace(left, names=names, addresses=addresses, without_effect=tuple(notes))
    unmet = _unmet(policy.dns_names, policy.ip_addresses, after, f"policy {policy.name}: spec", effort)
    return _judge(after, unmet, otherwise=f"policy {policy.name} allows no name")


def issuable_by_narrowing(left: Issuable, narrowing: Narrowing, *, effort: Effort | None = None) -> Issuable:
    """What the names of a credential, or of a profile for some clients, leave."""
    effort = effort or Effort()
    notes: list[str] = []
    names, addresses = left.names, left.addresses
    if narrowing.dns_names is not None:
        field = f"{narrowing.path}.dnsNames"
        own = _allowed_names(narrowing.dns_names, field, effort, notes)
        before = PatternIndex(left.names, effort)
        outside = dict.fromkeys(each for each in own if not before.find_overlapping(each))
        notes += [f'{field}.allowed: "{each}" is outside of the names that the profile can certify' for each in outside]
        by_policy = PatternIndex(left.denied, effort)
        covers = {each: by_policy.find_cover(each) for each in own if each not in outside}
        refused = {each: cover for each, cover in covers.items() if cover is not None}
        notes += [
            f'{field}.allowed: "{each}" is denied by "{cover}" of the policy (spec.dnsNames.denied)'
            for each, cover in refused.items()
        ]
        within = [each for each in own if each not in refused and before.find_cover(each) is not None]
        # What is neither outside nor within has a part in common with patterns of both; the wider one stands for it.
        known = {*outside, *within, *refused}
        across = PatternIndex([each for each in own if each not in known], effort)
        denied = PatternIndex(narrowing.dns_names.denied, effort)
        common = (*within, *(each for each in left.names if across.find_overlapping(each)))
        names = tuple(each for each in common if denied.find_cover(each) is None)
    if narrowing.ip_addresses is not None:
        field = f"{narrowing.path}.ipAddresses"
        ranges = _allowed_addresses(narrowing.ip_addresses, field, notes)
        notes += [
            f"{field}.allowed: {each} is outside of the addresses that the profile can certify"
            for each in narrowing.ip_addresses.allowed
            if ranges.meets(each) and not left.addresses.meets(each)
        ]
        addresses &= ranges
    demands = left.demands.and_those_of(narrowing.dns_names, narrowing.ip_addresses)
    after_all = replace(left, names=names, addresses=addresses, without_effect=tuple(notes), demands=demands)
    unmet = (
        _unmet(narrowing.dns_names, narrowing.ip_addresses, after_all, narrowing.path, effort)
        or _excluded(after_all, left.demands, narrowing, effort)
        or too_many(demands, narrowing.path, effort)
    )
    return _judge(after_all, unmet, otherwise=f"{narrowing.path} allows no name")


def _judge(left: Issuable, unmet: str | None, *, otherwise: str) -> Issuable:
    """`left` with its objection: `unmet`, or that no name is left, and why."""
    objection = unmet
    if objection is None and not left.names and not left.addresses:
        objection = shorten(left.without_effect) or otherwise
    return replace(left, objection=objection)


def shorten(messages: Sequence[str], shown: int = 5) -> str:
    """The first messages in one text, and how many more there are."""
    more = f"; and {len(messages) - shown} more" if len(messages) > shown else ""
    return "; ".join(messages[:shown]) + more


def _allowed_names(rules: Rules | None, field: str, effort: Effort, notes: list[str]) -> tuple[str, ...]:
    """The patterns that some name can match and that are not denied altogether."""
    if rules is None:
        return ()
    denied = PatternIndex(rules.denied, effort)
    names = []
    for each in rules.allowed:
        if flaw := _flaw(each):
            notes.append(f'{field}.allowed: "{each}" matches no DNS name: {flaw}')
        elif (cover := denied.find_cover(each)) is not None:
            notes.append(f'{field}.allowed: "{each}" is denied by "{cover}" ({field}.denied)')
        else:
            names.append(each)
    return tuple(names)


def _flaw(pattern: str) -> str | None:
    """Why no DNS name matches the pattern; None if one may."""
    if "*" not in pattern:
        try:
            dns_name(pattern, wildcard=False)
        except InvalidName as error:
            return str(error).removesuffix(".").partition(": ")[2] or str(error).removesuffix(".")
        return None
    labels = pattern.split(".")
    if labels[-1].isdecimal():
        return "it ends in a number, as an IP address does"
    if any(each.startswith("-") or each.endswith("-") for each in labels):
        return 'a label begins or ends with "-"'
    if any(len(each.replace("*", "")) > MAXIMUM_LABEL for each in labels):
        return f"a label is longer than {MAXIMUM_LABEL} characters"
    return None


def _allowed_addresses(rules: NetworkRules | None, field: str, notes: list[str]) -> AddressRanges:
    if rules is None:
        return AddressRanges()
    denied = AddressRanges.of(rules.denied)
    notes += [
        f"{field}.allowed: all addresses of {each} are denied ({field}.denied)"
        for each in rules.allowed
        if denied.covers(each)
    ]
    return AddressRanges.of(rules.allowed) - denied


def _unmet(
    names: Rules | None, addresses: NetworkRules | None, left: Issuable, path: str, effort: Effort
) -> str | None:
    """Which required name or address no certificate can have; None if all are possible."""
    if names is not None:
        index = PatternIndex(left.names, effort)
        denied = PatternIndex(names.denied, effort)
        for each in names.required:
            if not index.find_overlapping(each) or denied.find_cover(each) is not None:
                return (
                    f'{path}.dnsNames.required: "{each}" is required in every certificate, and no name that matches it'
                    " can be issued"
                )
    if addresses is not None:
        for network in addresses.required:
            if not left.addresses.meets(network):
                return (
                    f"{path}.ipAddresses.required: an address of {network} is required in every certificate, and none"
                    " can be issued"
                )
    return None


def _excluded(left: Issuable, demands: Demands, narrowing: Narrowing, effort: Effort) -> str | None:
    """Which name or address that the policy requires the narrowing leaves out; None if it leaves all."""
    index = PatternIndex(left.names, effort)
    denied = PatternIndex(narrowing.dns_names.denied if narrowing.dns_names is not None else (), effort)
    for each in demands.names:
        if not index.find_overlapping(each) or denied.find_cover(each) is not None:
            return f'{narrowing.path}.dnsNames allows no name that matches "{each}", which the policy requires'
    for network in demands.networks:
        if not left.addresses.meets(network):
            return f"{narrowing.path}.ipAddresses allows no address of {network}, which the policy requires"
    return None


def _contradictions(policy: Policy, names: Sequence[str], effort: Effort) -> Iterator[str]:
    """Rules beside those for names that no certificate, or no request for one, can satisfy."""
    usages = policy.usages
    for usage in sorted(usages.required - (usages.allowed - usages.denied)):
        yield f'spec.usages.required: "{usage}" is not allowed, so no profile can have it'
    if not usages.allowed - usages.denied:
        yield "spec.usages.allowed: no usage is allowed, and every profile has one"
    if not any(_has_signature(each, policy) for each in policy.key_algorithms):
        yield "spec.keyAlgorithms: no key is allowed for which spec.signatureAlgorithms has an algorithm"
    wildcards = [f"*.{each}" for each in names] if policy.wildcards else []
    common_names = [*names, *wildcards] if policy.ip_addresses is None else None
    yield from subject_contradictions(policy.subject, common_names, effort)


def _impossible(policy: Policy) -> Iterator[str]:
    """Usages and keys that are allowed in vain."""
    for usage in sorted(policy.usages.allowed & policy.usages.denied):
        yield f'spec.usages.allowed: "{usage}" is denied (spec.usages.denied)'
    for algorithm in sorted(policy.key_algorithms):
        if not _has_signature(algorithm, policy):
            yield f"spec.keyAlgorithms: {algorithm} keys sign no request (spec.signatureAlgorithms)"


def _has_signature(key_algorithm: str, policy: Policy) -> bool:
    kind = key_algorithm.partition("-")[0]
    return any(each.partition("-")[0] == kind for each in policy.signature_algorithms)


def _constrained_names(
    names: tuple[str, ...], constraints: Constraints, policy: Policy, effort: Effort, notes: list[str]
) -> tuple[str, ...]:
    permitted = PatternIndex(_domain_patterns(constraints.permitted.domains), effort)
    excluded = PatternIndex(_domain_patterns(constraints.excluded.domains), effort)
    left = []
    for each in names:
        if excluded.find_cover(each) is not None:
            how = "excluded"
        elif len(constraints.permitted.domains) and not permitted.find_overlapping(each):
            how = "not permitted"
        else:
            left.append(each)
            continue
        notes.append(
            f'policy {policy.name} allows "{each}" (spec.dnsNames), which is {how} by the nameConstraints of'
            f" {constraints.holder}"
        )
    return tuple(left)


def _domain_patterns(domains: Domains) -> Iterator[str]:
    for each in domains:
        domain = each.removeprefix(".")
        yield f"**.{domain}" if domain else "**"
        if domain and not each.startswith("."):
            yield domain


def _constrained_addresses(
    addresses: AddressRanges, constraints: Constraints, policy: Policy, notes: list[str]
) -> AddressRanges:
    left = addresses - AddressRanges.of(constraints.excluded.networks)
    if len(constraints.permitted.networks):
        left &= AddressRanges.of(constraints.permitted.networks)
    if addresses and not left:
        notes.append(
            f"policy {policy.name} allows IP addresses (spec.ipAddresses), and the nameConstraints of"
            f" {constraints.holder} permit none of them"
        )
    return left
