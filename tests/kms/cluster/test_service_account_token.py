"""Tokens of other ServiceAccounts: asked for, handed over in a folder, waited for."""

from __future__ import annotations

import asyncio
import stat
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from kms.cluster.errors import Forbidden, Undecodable
from kms.cluster.service_account_token import TOKEN_SECONDS, Token, hand_over, replace_privately, wait_for_token
from tests.support.apiserver import Seen, running_api
from tests.support.eventually import in_background


async def test_a_token_is_asked_of_the_token_request_api() -> None:
    async with running_api() as api:
        token = await (await api.cluster()).create_token("kms-acme", "kms-acme-server")
        assert api.requests == [Seen("create", "serviceaccounts", "kms-acme", "kms-acme-server", "token")]
    assert token.token == "kms-acme-server-1"
    assert token.expiration_timestamp - datetime.now(UTC) > timedelta(seconds=TOKEN_SECONDS - 60)


async def test_a_refusal_to_give_a_token_says_why() -> None:
    async with running_api() as api:
        api.fail_next("create", "serviceaccounts", 403)
        with pytest.raises(Forbidden, match="injected fault"):
            await (await api.cluster()).create_token("kms-acme", "kms-acme-server")


async def test_an_answer_without_a_token_is_told_from_a_token() -> None:
    async with running_api() as api:
        api.token_answer = {"status": {"token": "secret"}}
        with pytest.raises(Undecodable) as refused:
            await (await api.cluster()).create_token("kms-acme", "kms-acme-server")
    assert "secret" not in str(refused.value)


@pytest.mark.requirement("SEC64")
def test_a_token_does_not_show_itself() -> None:
    token = Token("secret", datetime(2026, 11, 25, tzinfo=UTC))
    assert repr(token) == str(token) == "Token(expires 2026-11-25T00:00:00+00:00)"


def test_a_folder_looks_like_the_one_that_the_kubelet_makes_for_a_pod(tmp_path: Path) -> None:
    hand_over(tmp_path, "token", authority=b"certificate", namespace="kms-acme")
    files = {each.name: each.read_bytes() for each in tmp_path.iterdir()}
    assert files == {"token": b"token", "ca.crt": b"certificate", "namespace": b"kms-acme"}


def test_a_token_is_replaced_in_one_step_and_read_by_its_owner_alone(tmp_path: Path) -> None:
    hand_over(tmp_path, "first", authority=b"", namespace="")
    with (tmp_path / "token").open() as reader:
        hand_over(tmp_path, "second", authority=b"", namespace="")
        assert reader.read() == "first"
    assert (tmp_path / "token").read_text() == "second"
    assert {stat.S_IMODE(each.stat().st_mode) for each in tmp_path.iterdir()} == {0o600}


def test_what_a_writer_left_that_was_killed_is_not_in_the_way(tmp_path: Path) -> None:
    leftover = tmp_path / "token.new"
    leftover.write_text("half a tok")
    leftover.chmod(0o444)
    replace_privately(tmp_path / "token", b"whole")
    assert [each.name for each in tmp_path.iterdir()] == ["token"]
    assert stat.S_IMODE((tmp_path / "token").stat().st_mode) == 0o600


async def test_whoever_waits_for_a_token_finds_the_rest_too(tmp_path: Path) -> None:
    async with in_background(wait_for_token(tmp_path)) as waiting:
        await asyncio.sleep(0)
        assert not waiting.done()
        hand_over(tmp_path, "token", authority=b"certificate", namespace="kms-acme")
        async with asyncio.timeout(5):
            await waiting
    assert (tmp_path / "ca.crt").read_bytes() == b"certificate"


async def test_a_token_that_is_there_is_not_waited_for(tmp_path: Path) -> None:
    (tmp_path / "token").touch()
    async with asyncio.timeout(0):
        await wait_for_token(tmp_path)
