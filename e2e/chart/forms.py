"""Forms of values: patterns, and what a value must be in words.

Helm refuses a value with the pattern of its schema, which says little. So the patterns are not in the schema:
templates/validate.yaml reads files/forms.yaml and refuses with the words.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import yaml

from e2e.chart.values import Value

_LABEL = "[a-z0-9]([-a-z0-9]*[a-z0-9])?"
_HEAD = "# Generated from values.yaml by `make chart`: the forms of values, which templates/validate.yaml checks.\n"


@dataclass(frozen=True, slots=True)
class Form:
    """A pattern in the syntax of RE2 that a value must match, and what such a value is."""

    pattern: str
    words: str


FORMS: Mapping[str, Form] = {
    "name": Form("^([a-z]([-a-z0-9]*[a-z0-9])?)?$", "a name: lowercase letters, digits and '-', with a letter first"),
    "httpsURL": Form("^(https://[^/@?# ]+)?$", "an https URL without a path, such as https://acme.example.com"),
    "httpURL": Form("^(http://[^/@?# ]+)?$", "an http URL without a path, such as http://pki.example.com"),
    "pageURL": Form("^(https?://[^?# ]+)?$", "the URL of a page without an anchor"),
    "namespace": Form(f"^{_LABEL}$", "the name of a namespace: lowercase letters, digits and '-'"),
    "absolutePath": Form(r"^(/[-A-Za-z0-9_.+]+)+$", "an absolute path, such as /opt/hsm/lib.so"),
    "namespaceOrAll": Form(f"^([*]|{_LABEL})$", "the name of a namespace, or * for all namespaces"),
    "duration": Form(
        r"^([0-9]+(\.[0-9]+)?(ms|h|m|s))+$", "a duration in hours, minutes and seconds, such as 168h or 1h30m"
    ),
    "hours": Form("^[0-9]+h$", "a duration in whole hours, such as 720h"),
    "digest": Form("^(sha256:[0-9a-f]{64})?$", "the digest of an image: sha256: and 64 hexadecimal digits"),
    "dnsServer": Form(
        r"^([0-9.]+|\[[0-9A-Fa-f:.]+\]):[0-9]+$",
        "the address and port of a DNS server, such as 10.0.0.10:53 or [fd00::10]:53; a name is not possible",
    ),
    "network": Form(
        r"^([0-9]{1,3}(\.[0-9]{1,3}){3}/([0-9]|[12][0-9]|3[0-2])|[0-9A-Fa-f:.]*:[0-9A-Fa-f:.]*/[0-9]{1,3})$",
        "a network with the length of its prefix, such as 10.0.0.0/8 or fd00::/8",
    ),
}


def without_forms(schema: Mapping[str, Any]) -> dict[str, Any]:
    """The JSON schema of a value or its items, without the name of its form."""
    plain = {key: each for key, each in schema.items() if key != "form"}
    return {**plain, "items": without_forms(plain["items"])} if "items" in plain else plain


def file(values: Sequence[Value]) -> str:
    """The contents of files/forms.yaml."""
    return _HEAD + yaml.safe_dump(list(_entries(values)), sort_keys=False, width=200)


def _entries(values: Sequence[Value]) -> Iterator[dict[str, Any]]:
    for leaf in (leaf for value in values for leaf in value.leaves()):
        name = leaf.schema.get("form") or leaf.schema.get("items", {}).get("form")
        if name is not None:
            form = FORMS[name]
            yield {"value": leaf.name, "pattern": form.pattern, "words": form.words}
