"""What to trust of a CA: the current root first, former ones as long as somebody may need them, and no keys."""

from __future__ import annotations

from datetime import datetime, timedelta
from itertools import pairwise

import pytest
from cryptography import x509
from hypothesis import given
from hypothesis import strategies as st

from kms.pki.ca import MAXIMUM_FORMER, ReplacedRoot, anchors, chain_to_root_pem, former_roots
from kms.pki.certificate import Signer, certificate_pem
from kms.pki.keys import private_key_pem
from tests.support.pki import DAY, NOW, below, key, root

OVERLAP = timedelta(days=30)


def pem(signer: Signer) -> str:
    return certificate_pem(signer.certificate)


OLD = root(common_name="Old", serial=1)
NEW = root(common_name="New", with_key=key(which="new"), serial=2)
ROOTS = [pem(root(common_name=f"Root {each}", serial=each + 10, not_after=NOW + each * DAY)) for each in range(1, 13)]


def trusted(chain: str | None, *former: ReplacedRoot, overlap: timedelta = OVERLAP, now: datetime = NOW) -> list[str]:
    found = anchors(chain, former, overlap=overlap, now=now)
    assert found is not None
    read = [certificate_pem(each) for each in x509.load_pem_x509_certificates(found.pem.encode())]
    assert "".join(read) == found.pem, "nothing but certificates"
    assert found.count == len(read)
    return read


@pytest.mark.requirement("C15")
def test_the_root_of_the_chain_is_trusted_and_not_what_is_below_it() -> None:
    assert trusted(chain_to_root_pem(below(OLD))) == [pem(OLD)]


def test_without_a_chain_nothing_is() -> None:
    assert anchors(None, (), overlap=OVERLAP, now=NOW) is None
    assert anchors("nonsense", (), overlap=OVERLAP, now=NOW) is None


@pytest.mark.requirement("C15")
def test_a_former_root_follows_the_current_one_until_the_overlap_is_over() -> None:
    former = ReplacedRoot(pem(OLD), NOW)
    assert trusted(pem(NEW), former) == [pem(NEW), pem(OLD)]
    found = anchors(pem(NEW), (former,), overlap=OVERLAP, now=NOW)
    assert found is not None
    assert found.until == NOW + OVERLAP
    assert trusted(pem(NEW), former, now=NOW + OVERLAP) == [pem(NEW)]
    assert trusted(pem(NEW), former, overlap=timedelta(0)) == [pem(NEW)]


def test_a_former_root_is_not_trusted_beyond_its_own_end() -> None:
    short = root(common_name="Short", not_after=NOW + DAY)
    former = ReplacedRoot(pem(short), NOW)
    found = anchors(pem(NEW), (former,), overlap=timedelta.max, now=NOW)
    assert found is not None
    assert found.until == NOW + DAY
    assert trusted(pem(NEW), former, overlap=timedelta.max, now=NOW + DAY) == [pem(NEW)]


def test_the_current_root_stays_also_when_it_has_ended() -> None:
    assert trusted(pem(OLD), now=NOW + 4000 * DAY) == [pem(OLD)]


@pytest.mark.requirement("SEC59", "SEC64")
def test_a_key_that_stands_beside_the_certificates_is_not_published() -> None:
    secret = private_key_pem(OLD.key).decode()
    assert trusted(f"comment\n{secret}{pem(OLD)}{secret}", ReplacedRoot(secret + pem(NEW), NOW)) == [pem(OLD), pem(NEW)]


def test_a_root_that_is_replaced_is_remembered_with_the_time() -> None:
    assert former_roots((), pem(OLD), pem(NEW), now=NOW) == (ReplacedRoot(pem(OLD), NOW),)
    assert former_roots((), None, pem(NEW), now=NOW) == ()


def test_what_is_below_the_root_may_change_without_a_word() -> None:
    before, after = (chain_to_root_pem(below(OLD, common_name=name)) for name in ("one", "two"))
    assert former_roots((), before, after, now=NOW) == ()


def test_a_root_that_comes_back_is_former_no_more_and_the_other_one_is() -> None:
    former = former_roots((), pem(OLD), pem(NEW), now=NOW)
    assert former_roots(former, pem(NEW), pem(OLD), now=NOW + DAY) == (ReplacedRoot(pem(NEW), NOW + DAY),)


def test_roots_that_have_ended_are_forgotten() -> None:
    former = former_roots((), pem(OLD), pem(NEW), now=NOW)
    assert former_roots(former, pem(NEW), pem(NEW), now=NOW + 364 * DAY) == former
    assert former_roots(former, pem(NEW), pem(NEW), now=NOW + 365 * DAY) == ()


@given(st.lists(st.sampled_from(ROOTS), min_size=1, max_size=24))
def test_however_roots_follow_each_other_each_is_published_once_and_the_number_is_bounded(chain: list[str]) -> None:
    former: tuple[ReplacedRoot, ...] = ()
    for step, (before, after) in enumerate(pairwise(chain)):
        former = former_roots(former, before, after, now=NOW + timedelta(minutes=step))
    times = [each.replaced_at for each in former]
    assert times == sorted(times, reverse=True)
    shown = trusted(chain[-1], *former, now=NOW + timedelta(hours=1))
    assert shown[0] == chain[-1]
    assert len(shown) == len(set(shown)) <= MAXIMUM_FORMER + 1
    distinct = list(dict.fromkeys(reversed(chain)))
    assert shown == distinct[: MAXIMUM_FORMER + 1]
