"""The namespace of the clients of an EABCredential, and what the owner of the profile allows there.

Users who may write an EABCredential in a namespace must not decide for another one. So the profile says which names a
namespace gets and whether it is suspended, and the namespace of the clients is that of their credential. Only a
credential beside its profile, whose writers may change the profile anyway, names another namespace: that is how the
credentials of ready-made issuers do it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from msgspec import Struct

from kms.pki.name_templates import NameTemplate, UnresolvedTemplate, dns_template, network_template
from kms.pki.patterns import InvalidPattern
from kms.pki.policy import Narrowing
from kms.resources.accounts import CredentialRecord
from kms.resources.compile import InvalidRules, compile_narrowing
from kms.resources.credentials import CredentialSpec, EABCredential, NameRules
from kms.resources.policies import DNSNameRules, ValueRules
from kms.resources.profiles import AddressTemplates, ClientNamespaces, DNSNameTemplates, NamespaceNames

PATH = "spec.enrollment.acme.allowedNamespaces"


class UnknownNamespace(ValueError):
    """The names depend on a namespace that does not exist or is not known yet."""


class Clients(Struct, frozen=True):
    """The clients of one credential: `home` is the namespace of the credential, `namespace` theirs.

    With `shared` they are in several namespaces, and nothing tells in which.
    """

    home: str
    namespace: str
    shared: bool = False


@dataclass(frozen=True, slots=True)
class ResolvedNames:
    """The names that a namespace gets, without placeholders, and why some templates gave none."""

    names: NamespaceNames
    unresolved: tuple[str, ...] = ()


def clients_of(credential: EABCredential, *, profile_namespace: str) -> Clients:
    """The clients of the credential of a profile in that namespace."""
    return clients_at(credential.metadata.namespace, credential.spec, profile_namespace=profile_namespace)


def clients_at(home: str, said: CredentialSpec | CredentialRecord, *, profile_namespace: str) -> Clients:
    """The clients of a credential in the namespace `home` that says this or, if it is gone, said this last."""
    named = said.client_namespace
    # A tenant's credential speaks for his own namespace, whatever it says.
    return Clients(home, named if named and home == profile_namespace else home, said.shared)


def names_of(rule: ClientNamespaces, clients: Clients | None) -> tuple[NamespaceNames, str] | None:
    """The names that the profile gives the clients, and the path of that field; None: the profile does not narrow.

    Accounts without a credential have no clients that are known.
    """
    for position, each in enumerate(rule.settings):
        if clients is not None and each.namespace == clients.namespace and each.names is not None:
            return each.names, f"{PATH}.settings[{position}].names"
    return (rule.names, f"{PATH}.names") if rule.names is not None else None


def resolve(
    names: NamespaceNames, clients: Clients | None, labels: Mapping[str, str] | None, *, path: str = f"{PATH}.names"
) -> ResolvedNames:
    """The names for clients whose namespace has these labels (None: there is no such namespace).

    A template gives nothing if the namespace has no usable value for it, if clients of several namespaces share the
    credential, and if there is none. Raises InvalidRules, and UnknownNamespace if a template needs the namespace.
    """
    unresolved: list[str] = []

    def expand(templates: Iterable[NameTemplate]) -> tuple[str, ...]:
        texts = []
        for each in templates:
            try:
                texts.append(_expand(each, clients, labels))
            except UnresolvedTemplate as error:
                unresolved.append(str(error))
        return tuple(dict.fromkeys(texts))

    dns, addresses = names.dns_names, names.ip_addresses
    expanded = NamespaceNames(
        dns_names=DNSNameTemplates(allowed=expand(_dns(names, path)), wildcards=dns.wildcards) if dns else None,
        ip_addresses=AddressTemplates(allowed=expand(_networks(names, path))) if addresses else None,
    )
    return ResolvedNames(expanded, tuple(unresolved))


def narrowing_of(resolved: ResolvedNames, profile: str, *, path: str = f"{PATH}.names") -> Narrowing:
    """The names as a narrowing of the policy by the profile (`namespace/name`). Raises InvalidRules."""
    dns, addresses = resolved.names.dns_names, resolved.names.ip_addresses
    rules = NameRules(
        dns_names=DNSNameRules(allowed=dns.allowed, wildcards=dns.wildcards) if dns else None,
        ip_addresses=ValueRules(allowed=addresses.allowed) if addresses else None,
    )
    return compile_narrowing(rules, profile, holder="profile", path=path)


def check_templates(rule: ClientNamespaces) -> None:
    """Check all templates of a profile. Raises InvalidRules for the first invalid one."""
    exceptions = ((each.names, f"{PATH}.settings[{i}].names") for i, each in enumerate(rule.settings))
    for names, path in ((rule.names, f"{PATH}.names"), *exceptions):
        if names is not None:
            _dns(names, path)
            _networks(names, path)


def _expand(template: NameTemplate, clients: Clients | None, labels: Mapping[str, str] | None) -> str:
    if not template.has_placeholders:
        return template.text
    if clients is None:
        raise UnresolvedTemplate(f"{template.text} is for accounts with an EABCredential")
    if clients.shared:
        raise UnresolvedTemplate(f"{template.text} is for credentials of one namespace, and this one is shared")
    if labels is None:
        raise UnknownNamespace(f"namespace {clients.namespace} does not exist")
    return template.expand(clients.namespace, labels)


def _dns(names: NamespaceNames, path: str) -> tuple[NameTemplate, ...]:
    texts = names.dns_names.allowed if names.dns_names is not None else ()
    return tuple(_parse(text, f"{path}.dnsNames.allowed[{i}]", network=False) for i, text in enumerate(texts))


def _networks(names: NamespaceNames, path: str) -> tuple[NameTemplate, ...]:
    texts = names.ip_addresses.allowed if names.ip_addresses is not None else ()
    return tuple(_parse(text, f"{path}.ipAddresses.allowed[{i}]", network=True) for i, text in enumerate(texts))


def _parse(text: str, field: str, *, network: bool) -> NameTemplate:
    try:
        return network_template(text) if network else dns_template(text)
    except InvalidPattern as error:
        raise InvalidRules(field, str(error)) from None
