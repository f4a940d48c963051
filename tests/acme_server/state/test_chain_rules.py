"""When orders refer to chains, and how long chains are kept."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta

import pytest
from cryptography import x509
from msgspec.structs import replace

from acme_server.state.chain_rules import (
    AFTER_EXPIRY,
    ChainLimits,
    client_chains,
    end_of_chain,
    has_outlived_its_use,
    leads_to,
    may_refer,
)
from acme_server.state.needed_chains import NeededChains
from acme_server.state.retention import kept_until
from kms.pki.certificate import Signer, certificate_pem, sign_leaf
from kms.resources.authorities import AuthoritySpec, AuthorityStatus, CertificateAuthority
from kms.resources.certificate_chains import (
    MAXIMUM_LENGTH,
    CertificateChain,
    CertificateChainSpec,
    chain_name,
    split_chain,
)
from kms.resources.meta import LocalRef, ObjectMeta, Unreadable
from tests.support import pki
from tests.support.acmeorders import NOW, certified
from tests.support.processor import least_time

HOUR = timedelta(hours=1)
ROOT = pki.root()
CA = pki.below(ROOT)


def stored(certificates: str = CA.chain, *, name: str = "") -> CertificateChain:
    metadata = ObjectMeta(namespace="pki", name=name or chain_name(certificates))
    return CertificateChain(metadata=metadata, spec=CertificateChainSpec(certificates=certificates))


def test_a_chain_is_split_behind_the_first_certificate_and_put_together_again() -> None:
    leaf = certificate_pem(sign_leaf(pki.leaf(), CA))
    for others in ("", CA.chain, CA.chain + ROOT.chain):
        assert split_chain(leaf + others) == (leaf, others)
    assert split_chain("no PEM")[1] == ""


@pytest.mark.parametrize(
    "edited",
    [
        lambda leaf, others: leaf.rstrip("\n") + others,
        lambda leaf, others: leaf + "\n \n" + others,
        lambda leaf, others: leaf.replace("\n", "\r\n") + others,
        lambda leaf, others: leaf.rstrip("\n") + "  \n" + others,
    ],
)
def test_a_certificate_that_was_edited_by_hand_is_split_at_its_end(edited: Callable[[str, str], str]) -> None:
    leaf = certificate_pem(sign_leaf(pki.leaf(), CA))
    for others in ("", CA.chain):
        first, rest = split_chain(edited(leaf, others))
        assert rest == others
        found = x509.load_pem_x509_certificates((first + CA.chain).encode())
        assert [certificate_pem(each) for each in found] == [leaf, CA.chain]


def test_the_name_of_a_chain_is_the_digest_of_what_is_in_it() -> None:
    assert stored().is_genuine
    assert not stored(CA.chain + "\n", name=chain_name(CA.chain)).is_genuine
    assert len(chain_name(CA.chain)) == 64


@pytest.mark.parametrize(
    ("chain_ends", "certificate_ends", "refers"),
    [
        (NOW + 2 * HOUR, NOW + HOUR, True),
        (NOW + HOUR, NOW + HOUR, True),
        (NOW + HOUR, NOW + 2 * HOUR, False),
        (NOW, NOW, False),
        (NOW - HOUR, NOW - 2 * HOUR, False),
        (None, NOW + HOUR, False),
    ],
)
def test_an_order_refers_to_a_chain_that_ends_no_earlier(
    chain_ends: datetime | None, certificate_ends: datetime, *, refers: bool
) -> None:
    assert may_refer(chain_ends, certificate_ends, now=NOW) is refers


def test_a_chain_is_deleted_long_after_its_end() -> None:
    late = NOW + AFTER_EXPIRY
    assert has_outlived_its_use(NOW, now=late + HOUR)
    assert not has_outlived_its_use(NOW, now=late)
    assert has_outlived_its_use(None, now=NOW), "no client can use a chain that cannot be read"


def test_an_order_whose_certificate_ends_with_the_chain_is_deleted_before_the_chain() -> None:
    order = certified()
    order = replace(order, status=replace(order.status, authorizations=()))
    until = kept_until(order)
    assert until is not None
    assert order.status.not_after is not None
    assert not has_outlived_its_use(order.status.not_after, now=until)


def test_chains_that_orders_refer_to_stay_and_all_of_a_namespace_with_an_order_that_cannot_be_read() -> None:
    chain, late = stored(), CA.certificate.not_valid_after_utc + AFTER_EXPIRY + HOUR
    order = certified()
    order = replace(order, metadata=replace(order.metadata, namespace="pki"))
    needed = NeededChains()
    needed.add(order)
    assert needed.is_due(chain, now=late)
    assert not needed.is_due(chain, now=CA.certificate.not_valid_after_utc)
    needed.add(replace(order, status=replace(order.status, chain_ref=LocalRef(name=chain.metadata.name))))
    assert not needed.is_due(chain, now=late)
    assert needed.is_due(replace(chain, metadata=replace(chain.metadata, namespace="other")), now=late)
    needed = NeededChains()
    needed.add_unreadable(Unreadable(ObjectMeta(namespace="pki", name="damaged"), "spec", "is damaged"))
    assert not needed.is_due(chain, now=late)


@pytest.mark.parametrize("signer", [ROOT, CA, pki.below(CA, common_name="Lower CA")], ids=["root", "one", "two"])
def test_what_follows_the_certificates_of_a_ca_can_be_made_from_what_the_ca_publishes(signer: Signer) -> None:
    published = "".join(map(certificate_pem, (signer.certificate, *signer.issuers)))
    authority = CertificateAuthority(
        metadata=ObjectMeta(namespace="pki", name="ca"),
        spec=AuthoritySpec(),
        status=AuthorityStatus(certificate=certificate_pem(signer.certificate), chain=published),
    )
    assert signer.chain in set(client_chains(authority))


def test_a_chain_that_cannot_be_read_has_no_end_and_leads_nowhere() -> None:
    assert end_of_chain("no PEM") is None
    leaf = sign_leaf(pki.leaf(), CA)
    assert [leads_to(each, leaf) for each in (CA.chain, ROOT.chain, "no PEM")] == [True, False, False]


def test_all_chains_of_a_namespace_are_judged_without_a_pause_that_others_notice() -> None:
    longest = CA.chain + ROOT.chain * ((MAXIMUM_LENGTH - len(CA.chain)) // len(ROOT.chain))
    leaf = sign_leaf(pki.leaf(), ROOT)
    most = ChainLimits().chains
    assert least_time(lambda: [end_of_chain(longest) for _ in range(most)]) < 0.02
    assert least_time(lambda: [leads_to(longest, leaf) for _ in range(most)]) < 0.02
