from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

import pytest
from msgspec.structs import replace

from kms.issuers import IssuerNotReady
from kms.issuers.remote import RemoteIssuers, authority_type
from kms.resources.authorities import (
    AuthoritySpec,
    CertificateAuthority,
    CertManagerAuthority,
    ExternalAuthority,
    InternalAuthority,
    IssuerRef,
    SignerAuthority,
    Subject,
    VaultAuth,
    VaultAuthority,
)
from kms.resources.meta import ObjectMeta
from tests.support.scripted_issuer import ScriptedIssuer


def external(name: str = "corporate", **spec: object) -> CertificateAuthority:
    cert_manager = CertManagerAuthority(issuer_ref=IssuerRef(name="corporate"))
    kinds = spec or {"cert_manager": cert_manager}
    return CertificateAuthority(
        metadata=ObjectMeta(namespace="pki", name=name, uid=f"uid-of-{name}"),
        spec=AuthoritySpec(external=ExternalAuthority(**kinds)),  # type: ignore[arg-type]
    )


INTERNAL = CertificateAuthority(
    metadata=ObjectMeta(namespace="pki", name="own", uid="own"),
    spec=AuthoritySpec(internal=InternalAuthority(subject=Subject(common_name="CA"))),
)


@dataclass
class Registry:
    existing: Iterable[CertificateAuthority] = ()
    built: list[ScriptedIssuer] = field(default_factory=list)
    followed: list[list[str]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.issuers = RemoteIssuers(
            authorities=lambda: self.existing,
            builders={"CertManager": self.build},
            follow=lambda by_type: self.followed.append(
                [f"{type_}:{each.metadata.name}" for type_, found in by_type.items() for each in found]
            ),
        )

    def build(self, _: CertificateAuthority) -> ScriptedIssuer:
        self.built.append(ScriptedIssuer())
        return self.built[-1]


@pytest.mark.requirement("X23", "X50")
async def test_an_issuer_is_built_on_demand_and_closed_with_its_ca() -> None:
    registry = Registry([external(), INTERNAL])
    await registry.issuers.look()
    assert (registry.built, registry.followed) == ([], [["CertManager:corporate"]])
    first = registry.issuers.of(external())
    assert registry.issuers.of(external()) is first
    registry.existing = [INTERNAL]
    await registry.issuers.look()
    assert (registry.built[0].closed, len(registry.issuers), registry.followed[-1]) == (True, 0, [])


async def test_a_changed_specification_builds_another_issuer() -> None:
    registry = Registry([external()])
    authority = external()
    first = registry.issuers.of(authority)
    assert authority.spec.external is not None
    changed = replace(authority, spec=replace(authority.spec, external=replace(authority.spec.external, timeout="1h")))
    assert registry.issuers.of(changed) is not first
    await registry.issuers.look()
    assert [each.closed for each in registry.built] == [True, False]
    await registry.issuers.close()
    assert [each.closed for each in registry.built] == [True, True]


def test_other_cas_have_no_such_issuer() -> None:
    signer = external(signer=SignerAuthority(name="example.com/web"))
    for each in (INTERNAL, signer):
        with pytest.raises(IssuerNotReady, match="type"):
            Registry().issuers.of(each)


def test_the_type_of_a_ca_is_how_it_is_asked() -> None:
    vault = VaultAuthority(server="https://openbao.example.com", path="pki/sign/web", auth=VaultAuth())
    assert authority_type(external()) == "CertManager"
    assert authority_type(external(signer=SignerAuthority(name="example.com/web"))) == "Signer"
    assert authority_type(external(vault=vault)) == "Vault"
    assert authority_type(INTERNAL) is None
