"""What helps against a refusal, as a command to paste. Pure."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Iterator, Mapping
from typing import Any

from acme_server.problems import Refused
from kms.resources.meta import Key
from kms.resources.orders import Identifier

_RULE = re.compile(
    r"(?P<holder>policy|EAB credential|profile) (?P<namespace>[-a-z0-9.]+)/(?P<name>[-a-z0-9.]+)"
    r"[^()]*\((?P<field>spec[A-Za-z0-9.\[\]]*)\)"
)
_NAMED = re.compile(r'(?:DNS name|IP address) "(?P<value>[^"]+)" is not allowed')
_NAMESPACES = re.compile(
    r"Profile (?P<namespace>\S+)/(?P<name>\S+) (?P<settings>has suspended the clients)?"
    r"(?:does not allow EAB credentials)? of namespace"
)
_SHORT = {"policy": "kpol", "EAB credential": "eab", "profile": "kprof"}


def remedies(refused: Refused, *, credential: Key | None = None) -> tuple[str, ...]:
    """Commands that change the rules that refused: an administrator decides whether they should.

    `credential` is the one that was used. None of them is needed twice.
    """
    named = [(each.detail, each.identifier) for each in refused.subproblems]
    texts = named or [(refused.detail, None)]
    found = [command for text, identifier in texts for command in _remedies(text, identifier, credential)]
    return tuple(dict.fromkeys(found))


def remedies_for_text(text: str, identifier: Identifier | None = None) -> tuple[str, ...]:
    """The same for a problem that an order has stored."""
    return tuple(dict.fromkeys(_remedies(text, identifier, None)))


def _remedies(text: str, identifier: Identifier | None, credential: Key | None) -> Iterator[str]:
    for match in _RULE.finditer(text):
        object_ = f"{_SHORT[match['holder']]}/{match['name']}"
        named = [each["value"] for each in _NAMED.finditer(text, 0, match.start())]
        value = identifier.value if identifier is not None else next(reversed(named), None)
        yield _change(match["namespace"], object_, match["field"], value)
    if told := _NAMESPACES.search(text):
        field = "spec.enrollment.acme.allowedNamespaces" + (".settings" if told["settings"] else "")
        yield f"kubectl -n {told['namespace']} edit kprof/{told['name']}  # {field}"
    if credential is not None and "key is suspended" in text:
        yield _patch(credential[0], f"eab/{credential[1]}", {"spec": {"suspended": False}})
    if credential is not None and "key has expired" in text:
        yield f"kubectl -n {credential[0]} edit eab/{credential[1]}  # spec.expiresAt"


def _change(namespace: str, object_: str, field: str, name: str | None) -> str:
    """The command that lets the field allow the name, or that opens the object in an editor."""
    parts = field.split(".")
    if name is not None and "[" not in field:
        value = name.removeprefix("*.")
        match parts[-1]:
            case "allowed":
                addition = [{"op": "add", "path": f"/{'/'.join(parts)}/-", "value": value}]
                return _patch(namespace, object_, addition)
            case "wildcards":
                return _patch(namespace, object_, _nested(parts, "Allow"))
            case "dnsNames" | "ipAddresses":
                return _patch(namespace, object_, _nested([*parts, "allowed"], [value]))
    return f"kubectl -n {namespace} edit {object_}  # {field}"


def _nested(path: list[str], value: Any) -> Mapping[str, Any]:
    for name in reversed(path):
        value = {name: value}
    nested: Mapping[str, Any] = value
    return nested


def _patch(namespace: str, object_: str, change: Any) -> str:
    type_ = "json" if isinstance(change, list) else "merge"
    return f"kubectl -n {namespace} patch {object_} --type={type_} -p {shlex.quote(json.dumps(change))}"
