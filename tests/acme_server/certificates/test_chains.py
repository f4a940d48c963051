from __future__ import annotations

import pytest
from msgspec.structs import replace

from acme_server.certificates.chains import chains
from kms.pki.certificate import Signer, certificate_pem, chain_pem, sign_leaf
from kms.resources.authorities import AuthoritySpec, AuthorityStatus, CertificateAuthority
from kms.resources.meta import ObjectMeta
from kms.resources.orders import ACMEOrder
from tests.support import pki
from tests.support.acmeorders import certified


def authority(*alternates: str) -> CertificateAuthority:
    meta = ObjectMeta(namespace="pki", name="ca")
    return CertificateAuthority(
        metadata=meta, spec=AuthoritySpec(), status=AuthorityStatus(alternate_chains=alternates)
    )


def signed_by(signer: Signer) -> ACMEOrder:
    made = certified()
    chain = chain_pem(sign_leaf(pki.leaf(), signer), signer)
    return replace(made, status=replace(made.status, certificate=chain))


def cross(name: str = "Test Issuing CA", *, which: str = "Test Issuing CA") -> str:
    other = pki.root(common_name="Other Root", with_key=pki.key(which="other root"))
    return certificate_pem(pki.below(other, common_name=name, with_key=pki.key(which=which)).certificate)


@pytest.mark.requirement("S124", "M126")
def test_every_chain_begins_with_the_same_leaf_and_goes_its_own_way() -> None:
    valid = signed_by(pki.below(pki.root()))
    stored = valid.status.certificate or ""
    default, alternate = chains(valid, stored, authority(cross()))
    assert default == stored
    leaf = default[: default.index("-----END CERTIFICATE-----\n") + len("-----END CERTIFICATE-----\n")]
    assert alternate == leaf + cross()


@pytest.mark.requirement("S124")
@pytest.mark.parametrize("foreign", [cross(which="another key"), cross("Another CA")])
def test_a_chain_that_does_not_certify_this_leaf_is_not_offered(foreign: str) -> None:
    valid = signed_by(pki.below(pki.root()))
    stored = valid.status.certificate or ""
    assert chains(valid, stored, authority(foreign)) == (stored,)
    assert len(chains(valid, stored, authority(foreign, cross()))) == 2
