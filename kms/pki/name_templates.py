"""Patterns for the names of one namespace: `*.{namespace}.svc.cluster.local`, `{labels.team}.apps.example.com`.

A template is text of the owner of a profile; the values come from a namespace, whose name and labels others may have
chosen. So a value is no more than what stands in its place: one whole DNS label or a part of one, one number of an IP
address. A value with a dot, a `*` or anything else is refused, and so is a template whose result could be read in two
ways: `{namespace}-*` for the namespace `team` would include the names of the namespace `team-a`.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from kms.pki.patterns import InvalidPattern, label_pattern
from kms.pki.quoting import quoted

_PLACEHOLDER = re.compile(r"\{([^{}]*)\}")
_LABEL_KEY = re.compile(r"(?:[a-z0-9](?:[-a-z0-9.]*[a-z0-9])?/)?[A-Za-z0-9](?:[-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?")
_DNS_LABEL = re.compile(r"[a-z0-9](?:[-a-z0-9]{0,61}[a-z0-9])?")
_PART_OF_A_NUMBER = re.compile(r"[^.:]#|#[^.:/]|/.*#")
_NUMBER = re.compile(r"[0-9a-f]{1,4}")
_NAMESPACE = "namespace"
_LABELS = "labels."


class UnresolvedTemplate(ValueError):
    """The namespace has no usable value for a placeholder; the message says for which, and why."""


@dataclass(frozen=True, slots=True)
class NameTemplate:
    """A parsed template. Make one with `dns_template` or `network_template`."""

    text: str
    _parts: tuple[str, ...] = field(repr=False, compare=False)
    """Literal text and names of placeholders in turn, beginning with literal text."""
    _usable: re.Pattern[str] = field(repr=False, compare=False)
    _wanted: str = field(repr=False, compare=False)
    _check: Callable[[str], object] = field(repr=False, compare=False)

    @property
    def has_placeholders(self) -> bool:
        """Whether the result depends on the namespace."""
        return len(self._parts) > 1

    def expand(self, namespace: str, labels: Mapping[str, str]) -> str:
        """The pattern or CIDR block for the namespace with this name and these labels. Raises UnresolvedTemplate."""
        parts = [
            self._value(part, namespace, labels) if position % 2 else part for position, part in enumerate(self._parts)
        ]
        text = "".join(parts)
        try:
            self._check(text)
        except ValueError as error:
            raise UnresolvedTemplate(f"{self.text} becomes {quoted(text)}: {error}") from None
        return text

    def _value(self, placeholder: str, namespace: str, labels: Mapping[str, str]) -> str:
        if placeholder == _NAMESPACE:
            what, value = "the name of the namespace", namespace
        else:
            key = placeholder.removeprefix(_LABELS)
            found = labels.get(key)
            if found is None:
                raise UnresolvedTemplate(f"{self.text} needs the label {key}, which namespace {namespace} lacks")
            what, value = f"the label {key} of namespace {namespace}", found
        if not self._usable.fullmatch(value):
            raise UnresolvedTemplate(f"{self.text} needs {self._wanted}, and {what} is {quoted(value)}")
        return value


def dns_template(text: str) -> NameTemplate:
    """A template of a pattern for DNS names. Raises InvalidPattern."""
    parts = _parse(text)
    for label in _labels(parts):
        if label.count("{") > 1 or ("{" in label and "*" in label):
            raise InvalidPattern(
                f'"{text}" has a placeholder beside another one or beside "*" in one label; put a dot between them,'
                " because otherwise the names of two namespaces could be the same"
            )
    try:
        label_pattern(_sample(parts, "a"))
    except InvalidPattern as error:
        raise InvalidPattern(str(error) if len(parts) == 1 else f'"{text}" is not a pattern: {error}') from None
    return NameTemplate(text, parts, _DNS_LABEL, "one DNS label in lowercase", label_pattern)


def network_template(text: str) -> NameTemplate:
    """A template of a CIDR block: placeholders stand for single numbers of the address. Raises InvalidPattern."""
    parts = _parse(text)
    spaced = "".join("#" if position % 2 else part for position, part in enumerate(parts))
    if _PART_OF_A_NUMBER.search(spaced):
        raise InvalidPattern(f'"{text}" has a placeholder that does not stand for one whole number of the address')
    if len(parts) > 1 and "/" not in parts[-1]:
        raise InvalidPattern(f'"{text}" has no prefix length; write one, as in "10.{{labels.site}}.0.0/16"')
    try:
        ipaddress.ip_network(_sample(parts, "0"))
    except ValueError as error:
        raise InvalidPattern(f'"{text}" is not a CIDR block, such as 10.{{labels.site}}.0.0/16: {error}') from None
    return NameTemplate(text, parts, _NUMBER, "one number of an address", ipaddress.ip_network)


def _parse(text: str) -> tuple[str, ...]:
    """Literal text and names of placeholders in turn. Raises InvalidPattern."""
    parts = tuple(_PLACEHOLDER.split(text))
    for literal in parts[::2]:
        if "{" in literal or "}" in literal:
            raise InvalidPattern(f'"{text}" has a brace without its counterpart')
    for name in parts[1::2]:
        key = name.removeprefix(_LABELS)
        if name != _NAMESPACE and (key == name or not _LABEL_KEY.fullmatch(key)):
            raise InvalidPattern(
                f'"{text}" has the unknown placeholder "{{{name}}}"; write {{namespace}} or {{labels.KEY}}, where KEY'
                " is the key of a label, such as team or example.com/team"
            )
    return parts


def _labels(parts: tuple[str, ...]) -> list[str]:
    """The labels of a template, in which `{` stands for a placeholder."""
    return "".join("{" if position % 2 else part for position, part in enumerate(parts)).split(".")


def _sample(parts: tuple[str, ...], value: str) -> str:
    return "".join(value if position % 2 else part for position, part in enumerate(parts))
