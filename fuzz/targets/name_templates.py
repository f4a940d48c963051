"""A pattern for the names of a namespace, written by the owner of a profile, and what a tenant may have put there."""

from __future__ import annotations

from fuzz.target import Target
from kms.pki.name_templates import UnresolvedTemplate, dns_template, network_template
from kms.pki.patterns import InvalidPattern, label_pattern


def read(data: bytes) -> None:
    """Expand: the first line is the template, the second the label's value, the rest the namespace.

    No value adds a label or a wildcard to what the template has.
    """
    text, _, rest = data.decode("utf-8", "replace").partition("\n")
    value, _, namespace = rest.partition("\n")
    try:
        network_template(text).expand(namespace, {"team": value})
    except (InvalidPattern, UnresolvedTemplate):
        pattern = dns_template(text).expand(namespace, {"team": value})
        label_pattern(pattern)
        expected = dns_template(text).expand("a", {"team": "a"})
        if [pattern.count(each) for each in ".*"] != [expected.count(each) for each in ".*"]:
            raise AssertionError(f"{text!r} became {pattern!r}") from None


TARGET = Target(read, (InvalidPattern, UnresolvedTemplate), longest=1024)
