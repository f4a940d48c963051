"""The budget of policies and credentials for comparing names with patterns.

The server compares all names of an order with all patterns while other clients wait. The product is what counts: few
names may be compared with costly patterns, and many names with cheap ones. The operator judges it when a policy or a
credential becomes Ready, and the server applies no rules beyond it.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

from kms.pki.csr import MAXIMUM_SUBJECT
from kms.pki.pattern_sets import PatternSet
from kms.pki.policy import Rules

MAXIMUM_RULES = 1200
"""Patterns and networks of one policy or credential."""
MAXIMUM_CHARACTERS = 64_000
"""Characters of all of them."""
MAXIMUM_STARRED = 16_000
"""Characters before the last star of patterns, in all patterns with stars behind their first label."""
POLICY_COMPARISONS = 50_000
"""Comparisons of two texts for one order or certificate request: about 5 ms."""
CREDENTIAL_COMPARISONS = 20_000
MAXIMUM_NAMES = 100
"""Names of an order."""


class InvalidRules(ValueError):
    """An invalid rule. `field` is its path (`spec.dnsNames.allowed[0]`), `message` says what to write."""

    def __init__(self, field: str, message: str) -> None:
        super().__init__(f"{field}: {message}")
        self.field = field
        self.message = message


class RulesTooCostly(InvalidRules):
    """Valid rules that would take too long to apply. The message says what to shorten."""


def check_number(lists: Mapping[str, Sequence[str]]) -> None:
    """Raise RulesTooCostly if there is too much to compile. `lists` are the patterns and networks by their fields."""
    number = sum(map(len, lists.values()))
    if number > MAXIMUM_RULES:
        field = max(lists, key=lambda each: len(lists[each]))
        raise RulesTooCostly(
            field,
            f"{number} patterns and networks are more than the {MAXIMUM_RULES} that may be compared with each name, and"
            f' {len(lists[field])} of them are here; replace patterns of one domain by one with "*", and networks by'
            " the network around them",
        )
    characters = {field: sum(map(len, texts)) for field, texts in lists.items()}
    if sum(characters.values()) > MAXIMUM_CHARACTERS:
        field = max(characters, key=lambda each: characters[each])
        raise RulesTooCostly(
            field,
            f"patterns and networks have {sum(characters.values())} characters, more than {MAXIMUM_CHARACTERS}, and"
            f" {characters[field]} of them are here; write fewer or shorter ones",
        )
    starred = {field: sum(map(_starred, texts)) for field, texts in lists.items()}
    if sum(starred.values()) > MAXIMUM_STARRED:
        field = max(starred, key=lambda each: starred[each])
        raise RulesTooCostly(
            field,
            f'patterns with "*" behind their first label have {sum(starred.values())} characters up to their last "*",'
            f" more than {MAXIMUM_STARRED}; write shorter ones, above all"
            f' "{_shorten(max(lists[field], key=_starred))}"',
        )


def check_cost(names: Rules | None, path: str, *, number: int, subject: Mapping[str, Rules], budget: int) -> None:
    """Raise RulesTooCostly if comparing `number` names with the rules at `path`, and a subject, can take too long."""
    per_subject = max((rules.cost for rules in subject.values()), default=0)
    cost = number * (names.cost if names else 0) + MAXIMUM_SUBJECT * per_subject
    if cost <= budget:
        return
    field, patterns = max(
        (
            *_weighed(path, names, number),
            *(each for name, rules in subject.items() for each in _weighed(f"spec.subject.{name}", rules)),
        ),
        key=lambda each: each[2],
    )[:2]
    fewer = f", lower spec.maximumNames ({number})" if path == "spec.dnsNames" else ""
    raise RulesTooCostly(
        field,
        f"comparing one certificate request with these patterns may take {cost:.0f} comparisons, more than {budget};"
        f' use "*" and "**" as the first label only{fewer}, or write fewer patterns with the same ending;'
        f' the costliest is "{_shorten(patterns.costliest())}"',
    )


def _weighed(
    path: str, rules: Rules | None, number: int = MAXIMUM_SUBJECT
) -> Collection[tuple[str, PatternSet, float]]:
    if rules is None:
        return ()
    lists = {"allowed": (rules.allowed, 1), "denied": (rules.denied, 2), "required": (rules.required, 1)}
    return [(f"{path}.{name}", each, number * each.cost * times) for name, (each, times) in lists.items()]


def _starred(text: str) -> int:
    """The characters before the last star; none for `*.example.com`, `**.example.com` and patterns without a star."""
    return 0 if text.startswith(("*.", "**.")) and text.rfind("*") <= 1 else text.rfind("*") + 1


def _shorten(text: str) -> str:
    return text if len(text) <= 60 else f"{text[:60]}..."  # noqa: PLR2004 - for people
