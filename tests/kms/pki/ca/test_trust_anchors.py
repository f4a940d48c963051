"""Trust anchors of external CAs, as people write them."""

from __future__ import annotations

import pytest

from kms.pki.ca import InvalidAuthority, check_trust_anchors
from kms.pki.certificate import certificate_pem
from tests.support import pki
from tests.support.pki import DAY, NOW

ROOT = pki.root()
ANCHOR = certificate_pem(ROOT.certificate)
SOON = certificate_pem(pki.root(with_key=pki.key(which="soon"), not_before=NOW + DAY).certificate)


def test_anchors_keep_their_order_and_stand_once() -> None:
    below = certificate_pem(pki.below(ROOT).certificate)
    found = check_trust_anchors((below, ANCHOR, below), now=NOW)
    assert [certificate_pem(each) for each in found.valid] == [below, ANCHOR]
    assert (found.flaws, found.until) == ((), NOW + 180 * DAY)


def test_one_that_is_not_valid_yet_is_left_out_and_told() -> None:
    found = check_trust_anchors((SOON, ANCHOR), now=NOW)
    assert [certificate_pem(each) for each in found.valid] == [ANCHOR]
    (flaw,) = found.flaws
    assert flaw == 'spec.external.trustAnchors[0]: "CN=Test Root" is valid only from 2026-11-24T12:00:00Z on'


@pytest.mark.parametrize(("pems", "says"), [((SOON,), "is valid only from"), ((), "is empty; write the root")])
def test_without_a_valid_one_there_is_nothing_to_trust(pems: tuple[str, ...], says: str) -> None:
    with pytest.raises(InvalidAuthority, match=says) as refused:
        check_trust_anchors(pems, now=NOW)
    assert refused.value.reason == "InvalidTrustAnchors"
