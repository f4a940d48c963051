"""The chart's values.yaml as a tree: each value with the comment above it and its @schema lines."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import yaml

_MARK = "@schema "


class Undescribed(Exception):
    """A value has no comment, or an invalid one."""


@dataclass(frozen=True, slots=True)
class Value:
    """One value; `children` are the members of a section, which have their own comments."""

    path: tuple[str, ...]
    default: Any
    description: str
    schema: Mapping[str, Any]
    children: tuple[Value, ...] = ()

    @property
    def name(self) -> str:
        """The path for --set, such as `image.tag`."""
        return ".".join(self.path)

    def leaves(self) -> Iterator[Value]:
        """All values below a section, or the value itself."""
        if not self.children:
            yield self
        for each in self.children:
            yield from each.leaves()


def parse(text: str) -> tuple[Value, ...]:
    """Parse the top-level values.

    Raises:
        Undescribed: a value has no comment.
    """
    root = yaml.compose(text, Loader=yaml.SafeLoader)
    if not isinstance(root, yaml.MappingNode):
        raise Undescribed("values.yaml is not a mapping")
    return _members(root, yaml.safe_load(text), text.splitlines(), ())


def _members(node: yaml.MappingNode, defaults: Any, lines: list[str], path: tuple[str, ...]) -> tuple[Value, ...]:
    return tuple(
        _value(value, defaults[key.value], lines, (*path, key.value), key.start_mark.line) for key, value in node.value
    )


def _value(node: yaml.Node, default: Any, lines: list[str], path: tuple[str, ...], line: int) -> Value:
    comment = _comment_above(lines, line)
    description = " ".join(each for each in comment if not each.startswith(_MARK))
    schema: dict[str, Any] = {}
    for each in comment:
        if each.startswith(_MARK):
            schema |= yaml.safe_load(each.removeprefix(_MARK))
    if isinstance(node, yaml.MappingNode) and _is_section(node, lines):
        return Value(path, default, description, schema, _members(node, default, lines, path))
    if not description:
        raise Undescribed(f"{'.'.join(path)} in line {line + 1} of values.yaml has no comment that describes it")
    return Value(path, default, description, schema)


def _is_section(node: yaml.MappingNode, lines: list[str]) -> bool:
    """Whether each member of a mapping has its own comment; otherwise the mapping is one free-form value."""
    first = node.value[0][0] if node.value else None
    if first is None or node.flow_style:
        return False
    value = node.value[0][1]
    return bool(_comment_above(lines, first.start_mark.line)) or (
        isinstance(value, yaml.MappingNode) and _is_section(value, lines)
    )


def _comment_above(lines: list[str], line: int) -> list[str]:
    comment: list[str] = []
    for above in reversed(lines[:line]):
        if not above.strip().startswith("#"):
            break
        comment.insert(0, above.strip().removeprefix("#").strip())
    return comment
