from __future__ import annotations

import re
from datetime import UTC, datetime

import pytest

from kms.resources.meta import LocalRef
from kms.resources.orders import Authorized, Identifier, OrderSpec, Token, authorization_of, token_of

NOW = datetime(2026, 11, 23, 12, 0, 0, tzinfo=UTC)


def spec(key: str | None = "k" * 43, *, authorized: tuple[Authorized, ...] = ()) -> OrderSpec:
    """An order for a name, a wildcard and an address, with all types of challenges."""
    return OrderSpec(
        account_ref=LocalRef(name="account"),
        profile_ref=LocalRef(name="web"),
        identifiers=(
            Identifier(type="dns", value="a.example.com"),
            Identifier(type="dns", value="*.example.com"),
            Identifier(type="ip", value="192.0.2.1"),
        ),
        expires=NOW,
        challenges=("http-01", "dns-01", "tls-alpn-01"),
        token_key=key,
        authorized=authorized,
    )


@pytest.mark.requirement("M140", "SEC47")
def test_each_challenge_has_a_token_of_its_own_that_only_the_key_of_the_order_gives() -> None:
    tokens = {
        token_of(each, position, type_)
        for each in (spec(), spec("x" * 43))
        for position in range(3)
        for type_ in ("http-01", "dns-01", "tls-alpn-01")
    } - {None}
    assert len(tokens) == 2 * (3 + 1 + 2)
    assert all(re.fullmatch(r"[A-Za-z0-9_-]{32}", token or "") for token in tokens)
    assert token_of(spec(), 0, "http-01") == token_of(spec(), 0, "http-01")


@pytest.mark.requirement("SEC50")
def test_a_name_has_the_challenges_that_can_prove_it() -> None:
    types = [[each.type for each in authorization_of(spec(), position).challenges] for position in range(3)]
    assert types == [["http-01", "dns-01", "tls-alpn-01"], ["dns-01"], ["http-01", "tls-alpn-01"]]
    assert token_of(spec(), 1, "http-01") is None
    assert token_of(spec(), 0, "dns-02") is None


def test_what_is_proven_already_has_no_token_and_what_is_trusted_the_one_that_is_shown() -> None:
    earlier = Authorized(authorization=0, order="o", position=0, type="http-01", validated=NOW, expires=NOW)
    trusted = Authorized(authorization=1, type="dns-01", validated=NOW, expires=NOW)
    one = spec(authorized=(earlier, trusted))
    assert [token_of(one, 0, "http-01"), token_of(one, 1, "http-01")] == [None, None]
    assert token_of(one, 1, "dns-01") is not None
    assert token_of(one, 2, "http-01") is not None


def test_orders_of_earlier_versions_keep_the_tokens_that_they_store() -> None:
    old = OrderSpec(
        account_ref=LocalRef(name="account"),
        profile_ref=LocalRef(name="web"),
        identifiers=(Identifier(type="dns", value="a.example.com"),),
        expires=NOW,
        tokens=(Token(authorization=0, type="dns-01", token="t" * 32),),
    )
    assert token_of(old, 0, "dns-01") == "t" * 32
    assert token_of(old, 0, "http-01") is None
    assert [each.type for each in authorization_of(old, 0).challenges] == ["dns-01"]
