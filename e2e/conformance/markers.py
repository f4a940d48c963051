"""The tests that claim to prove requirements: `@pytest.mark.requirement(...)`, read from the sources.

A marker is on a test, on a class of tests, on a module (`pytestmark`), or on one case of a parametrised test
(`pytest.param(..., marks=...)`, in the decorator or in a list at the top of the module that the decorator names).
"""

from __future__ import annotations

import ast
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

_Function = ast.FunctionDef | ast.AsyncFunctionDef


class BadMarker(ValueError):
    """A marker is invalid. The message has the place and the reason."""


@dataclass(frozen=True, slots=True, order=True)
class Claim:
    """A test with a requirement marker: the path of its file below the root, and its name."""

    path: str
    name: str


def read(root: Path, folders: Iterable[str]) -> Mapping[str, tuple[Claim, ...]]:
    """Find the tests for each requirement id, in order. Raises BadMarker."""
    found: dict[str, set[Claim]] = {}
    for folder in folders:
        for path in sorted((root / folder).rglob("*.py")):
            for id_, test in of_module(path.read_text(), str(path.relative_to(root))):
                found.setdefault(id_, set()).add(test)
    return {id_: tuple(sorted(tests)) for id_, tests in found.items()}


def of_module(source: str, path: str) -> Iterator[tuple[str, Claim]]:
    """Find the ids in one file, each with its test. Raises BadMarker."""
    tree = ast.parse(source, path)
    claimed: set[ast.Call] = set()
    tables = dict(pair for node in tree.body for pair in _assigned(node))
    for name, decorators in _tests(tree):
        nodes = [*decorators, *(tables[each.id] for node in decorators for each in _names(node) if each.id in tables)]
        if "pytestmark" in tables:
            nodes.append(tables["pytestmark"])
        for call in (call for node in nodes for call in _markers(node)):
            claimed.add(call)
            yield from ((id_, Claim(path, name)) for id_ in _ids(call, path))
    for call in _markers(tree):
        if call not in claimed:
            raise BadMarker(f"{path}:{call.lineno}: the requirement marker is not on a test")


def _assigned(node: ast.stmt) -> Iterator[tuple[str, ast.expr]]:
    """The names that a statement assigns, with their value."""
    match node:
        case ast.Assign(targets=targets, value=value):
            yield from ((target.id, value) for target in targets if isinstance(target, ast.Name))
        case ast.AnnAssign(target=ast.Name(id=name), value=ast.expr() as value):
            yield name, value
        case _:
            return


def _tests(tree: ast.Module) -> Iterator[tuple[str, list[ast.expr]]]:
    """The tests that pytest runs, by name, with their decorators and those of their class.

    A state machine of hypothesis becomes a test by an assignment, `TestOrders = OrderMachine.TestCase`.
    """
    for node in tree.body:
        match node:
            case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name) if name.startswith("test_"):
                yield name, node.decorator_list
            case ast.ClassDef(name=name, body=body) if name.startswith("Test"):
                for each in body:
                    if isinstance(each, _Function) and each.name.startswith("test_"):
                        yield each.name, [*node.decorator_list, *each.decorator_list]
            case ast.Assign(targets=[ast.Name(id=name)]) if name.startswith("Test"):
                yield name, []
            case _:
                continue


def _names(node: ast.AST) -> Iterator[ast.Name]:
    return (each for each in ast.walk(node) if isinstance(each, ast.Name))


def _markers(node: ast.AST) -> Iterator[ast.Call]:
    """The calls of `pytest.mark.requirement` below a node."""
    for each in ast.walk(node):
        if isinstance(each, ast.Call) and ast.unparse(each.func) == "pytest.mark.requirement":
            yield each


def _ids(call: ast.Call, path: str) -> Iterator[str]:
    if not call.args or call.keywords:
        raise BadMarker(f"{path}:{call.lineno}: a requirement marker takes one or more ids and nothing else")
    for argument in call.args:
        if not isinstance(argument, ast.Constant) or not isinstance(argument.value, str):
            raise BadMarker(
                f'{path}:{argument.lineno}: the ids of a requirement marker must be literals, such as "M75"'
            )
        yield argument.value
