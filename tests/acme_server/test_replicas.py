import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import aiohttp
import msgspec
import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from acme_server.nonces import Nonces
from acme_server.replicas import MAC, PATH, Answer, Question, Replicas, mac, ports_of
from kms.clock import system_entropy
from kms.resources.core import Endpoint, EndpointPort, EndpointSlice
from kms.resources.meta import ObjectMeta
from tests.support.eventually import in_background, until

NOW = datetime(2026, 11, 23, 12, 0, 0, tzinfo=UTC)


class Slices:
    def __init__(self) -> None:
        self.known: list[EndpointSlice] = []

    def values(self) -> list[EndpointSlice]:
        return self.known

    def add(self, port: int, *addresses: str, name: str | None = "peers") -> None:
        self.known.append(
            EndpointSlice(
                metadata=ObjectMeta(name=f"slice-{port}"),
                endpoints=tuple(Endpoint(addresses=(each,)) for each in addresses),
                ports=(EndpointPort(name="acme", port=1), EndpointPort(name=name, port=port)),
            )
        )


@dataclass
class Replica:
    nonces: Nonces
    replicas: Replicas
    server: TestServer
    asked: list[Question]
    bodies: list[bytes]

    @property
    def port(self) -> int:
        return int(self.server.port or 0)


@asynccontextmanager
async def replicas(
    count: int = 2, *, secrets: tuple[bytes, ...] = (), **paces: float
) -> AsyncIterator[tuple[list[Replica], Slices]]:
    slices, started = Slices(), []
    async with aiohttp.ClientSession() as session:
        for number in range(count):
            nonces = Nonces(clock=lambda: NOW, entropy=system_entropy)
            nonces.use(secrets[number] if secrets else b"n" * 32)
            replicas = Replicas(
                nonces=nonces,
                slices=slices.values,
                session=session,
                clock=lambda: NOW,
                entropy=system_entropy,
                **paces,
            )
            started.append(await _listening(nonces, replicas))
            slices.add(started[-1].port, "127.0.0.1")
        try:
            yield started, slices
        finally:
            for each in started:
                await each.server.close()


async def _listening(nonces: Nonces, replicas: Replicas) -> Replica:
    asked: list[Question] = []
    bodies: list[bytes] = []

    async def answer(request: web.Request) -> web.Response:
        bodies.append(await request.read())
        asked.append(msgspec.json.decode(bodies[-1], type=Question))
        return await replicas.answer(request)

    application = web.Application()
    application.router.add_post(PATH, answer)
    server = TestServer(application)
    await server.start_server()
    return Replica(nonces, replicas, server, asked, bodies)


@pytest.mark.requirement("SEC19", "SEC20")
async def test_the_nonce_of_another_replica_is_good_once_wherever_it_is_used() -> None:
    async with replicas(3) as (each, _):
        nonce = each[0].nonces.read(each[0].nonces.issue())
        results = await asyncio.gather(*(each[i % 3].replicas.redeem(nonce) for i in range(100)))
        assert sorted(results) == 99 * [False] + [True]


async def test_a_replica_that_is_known_is_asked_directly() -> None:
    async with replicas(3) as (each, _):
        for _ in range(5):
            assert await each[1].replicas.redeem(each[0].nonces.read(each[0].nonces.issue()))
        assert len([question for question in each[0].asked if question.number is not None]) == 5
        assert [question.number for question in each[2].asked] == [None]


@pytest.mark.requirement("SEC19")
async def test_whoever_reads_what_replicas_ask_cannot_use_the_nonce() -> None:
    async with replicas(2) as (each, _):
        text = each[0].nonces.issue()
        assert await each[1].replicas.redeem(each[1].nonces.read(text))
        assert [question.number for question in each[0].asked] == [None, 1]
        # The last 18 octets of a nonce are its MAC. They make it one, and nobody else may learn them.
        assert not any(text[-24:].encode() in body for body in each[0].bodies)


class OldQuestion(msgspec.Struct):
    """As in the replicas before nonces had numbers for each other."""

    time: int
    random: str
    nonce: str = ""


async def test_during_an_update_replicas_of_before_redeem_nonces_of_ours_and_we_theirs() -> None:
    async with replicas(2) as ((old, new), slices):
        key = old.nonces.derive_key(b"peers")

        async def answer(request: web.Request) -> web.Response:
            body = await request.read()
            question = msgspec.json.decode(body, type=OldQuestion)
            redeemed = bool(question.nonce) and old.nonces.redeem(old.nonces.read(question.nonce))
            reply = msgspec.json.encode({"replica": old.nonces.replica, "redeemed": redeemed})
            return web.Response(body=reply, headers={MAC: mac(key, mac(key, body).encode() + reply)})

        application = web.Application()
        application.router.add_post(PATH, answer)
        async with TestServer(application) as server:
            slices.known[0] = slices.known.pop()
            slices.add(int(server.port or 0), "127.0.0.1")
            nonce = old.nonces.read(old.nonces.issue())
            assert [await new.replicas.redeem(nonce) for _ in range(2)] == [True, False]
        question = OldQuestion(int(NOW.timestamp()), "r", new.nonces.issue())
        body = msgspec.json.encode(question)
        url, headers = f"http://127.0.0.1:{new.port}{PATH}", {MAC: mac(key, body)}
        async with aiohttp.ClientSession() as session, session.post(url, data=body, headers=headers) as got:
            assert (await got.json())["redeemed"] is True


async def signed(request: web.Request, told: Answer, *, key: bytes) -> web.Response:
    """The answer of a replica to a request of another one, with the MAC that `key` makes."""
    body, reply = await request.read(), msgspec.json.encode(told)
    return web.Response(body=reply, headers={MAC: mac(key, mac(key, body).encode() + reply)})


@pytest.mark.parametrize(("knows", "answers"), [(True, True), (False, True), (True, False)])
async def test_orders_refer_to_chains_once_all_replicas_are_known_to_read_that(*, knows: bool, answers: bool) -> None:
    async with replicas(2, every=0.01, leaves_after=0.3, deadline=0.1) as ((one, other), slices):

        async def answer(request: web.Request) -> web.Response:
            """As the other replica, or as one of before that does not know references, or is not there yet."""
            if not answers:
                return web.Response(status=503)
            told = Answer(other.nonces.replica, by_number=True, reads_seen=True, reads_references=knows)
            return await signed(request, told, key=one.nonces.derive_key(b"peers"))

        application = web.Application()
        application.router.add_post(PATH, answer)
        slices.known.pop()
        async with in_background(one.replicas.run()):
            assert not one.replicas.all_read_references(), "others may have just left"
            await until(one.replicas.all_read_references)
            async with TestServer(application) as server:
                slices.add(int(server.port or 0), "127.0.0.1")
                assert not one.replicas.all_read_references(), "one that was not asked yet may be of before"
                if knows and answers:
                    await until(one.replicas.all_read_references)
                else:
                    await asyncio.sleep(0.5)
                    assert not one.replicas.all_read_references()
                # A replica of an earlier release that has gone still counts for a while.
                slices.known[1:] = []
                left = asyncio.get_running_loop().time()
                await until(one.replicas.all_read_references)
                if not (knows and answers):
                    assert asyncio.get_running_loop().time() - left > 0.2


@pytest.mark.parametrize(("knows", "carried"), [(True, True), (False, False)])
async def test_nonces_say_what_clients_have_seen_once_all_replicas_can_read_it(*, knows: bool, carried: bool) -> None:
    async with replicas(2, every=0.01) as ((one, other), slices):

        async def answer(request: web.Request) -> web.Response:
            """As the other replica, or as one of before that does not know what nonces say."""
            told = Answer(other.nonces.replica, by_number=True, reads_seen=knows)
            return await signed(request, told, key=one.nonces.derive_key(b"peers"))

        application = web.Application()
        application.router.add_post(PATH, answer)
        slices.known.pop()
        async with in_background(one.replicas.run()):
            await until(lambda: list(one.replicas.identities) == [one.nonces.replica])
            assert not one.nonces.carry_seen, "there is nobody else"
            async with TestServer(application) as server:
                slices.add(int(server.port or 0), "127.0.0.1")
                await until(lambda: len(one.replicas.identities) == 2)
                assert one.nonces.carry_seen is carried
                slices.known[1:] = []
                await until(lambda: not one.nonces.carry_seen)


async def test_the_nonce_of_a_replica_that_is_gone_is_not_good_and_costs_one_round_of_questions() -> None:
    async with replicas(2) as (each, _):
        gone = Nonces(clock=lambda: NOW, entropy=system_entropy)
        gone.use(b"n" * 32)
        for _ in range(50):
            assert not await each[0].replicas.redeem(gone.read(gone.issue()))
        assert len(each[1].asked) == 1


@pytest.mark.requirement("SEC19")
async def test_a_replica_that_does_not_answer_redeems_nothing() -> None:
    async with replicas(2) as (each, _):
        first, second = (each[0].nonces.read(each[0].nonces.issue()) for _ in range(2))
        assert await each[1].replicas.redeem(first)
        await each[0].server.close()
        assert not await each[1].replicas.redeem(second)


@pytest.mark.requirement("SEC19")
async def test_a_replica_that_answers_late_redeems_nothing() -> None:
    async with replicas(2, deadline=0.05) as (each, slices):
        nonce = each[0].nonces.read(each[0].nonces.issue())

        async def late(_: web.Request) -> web.Response:
            await asyncio.sleep(5)
            raise AssertionError

        application = web.Application()
        application.router.add_post(PATH, late)
        async with TestServer(application) as server:
            slices.known.clear()
            slices.add(int(server.port or 0), "127.0.0.1")
            assert not await each[1].replicas.redeem(nonce)


async def test_replicas_with_different_secrets_do_not_believe_each_other() -> None:
    async with replicas(2, secrets=(b"a" * 32, b"b" * 32)) as (each, _):
        nonce = each[0].nonces.read(each[0].nonces.issue())
        assert not await each[1].replicas.redeem(nonce)
        assert each[0].nonces.redeem(nonce)


@pytest.mark.requirement("SEC19")
@pytest.mark.parametrize("forged", ["answer", "mac", "redirect", "text", "shape"])
async def test_an_answer_that_is_not_signed_with_our_key_counts_for_nothing(forged: str) -> None:
    async with replicas(2) as (each, slices):
        nonce = each[0].nonces.read(each[0].nonces.issue())
        key = each[0].nonces.derive_key(b"peers")

        async def lie(request: web.Request) -> web.Response:
            reply = msgspec.json.encode(Answer(each[0].nonces.replica, redeemed=True))
            if forged == "shape":
                reply = b"[]"
            signed = mac(key, request.headers[MAC].encode() + reply) if forged == "shape" else mac(key, reply)
            if forged == "redirect":
                raise web.HTTPTemporaryRedirect(f"http://127.0.0.1:{each[0].port}{PATH}")
            headers = {} if forged == "answer" else {MAC: "é" if forged == "text" else signed}
            return web.Response(body=reply, headers=headers)

        application = web.Application()
        application.router.add_post(PATH, lie)
        async with TestServer(application) as server:
            slices.known.clear()
            slices.add(int(server.port or 0), "127.0.0.1")
            assert not await each[1].replicas.redeem(nonce)


async def _post(replica: Replica, body: bytes, mac: str) -> int:
    url = f"http://127.0.0.1:{replica.port}{PATH}"
    async with aiohttp.ClientSession() as session, session.post(url, data=body, headers={MAC: mac}) as answer:
        assert replica.nonces.replica not in await answer.text()
        return answer.status


async def test_a_question_that_is_not_signed_with_our_key_learns_nothing() -> None:
    async with replicas(1) as ((replica,), _):
        nonce = replica.nonces.issue()
        body = msgspec.json.encode(Question(int(NOW.timestamp()), "r", nonce))
        assert await _post(replica, body, "") == 403
        assert await _post(replica, body, mac(b"other", body)) == 403
        assert replica.nonces.redeem(replica.nonces.read(nonce))


@pytest.mark.parametrize("seconds", [-61, 61, 3600])
async def test_an_old_question_is_not_answered(seconds: int) -> None:
    async with replicas(1) as ((replica,), _):
        body = msgspec.json.encode(Question(int((NOW + timedelta(seconds=seconds)).timestamp()), "r", "n"))
        assert await _post(replica, body, mac(replica.nonces.derive_key(b"peers"), body)) == 403


@pytest.mark.requirement("SEC19")
async def test_a_repeated_question_redeems_nothing_again() -> None:
    async with replicas(1) as ((replica,), _), aiohttp.ClientSession() as session:
        body = msgspec.json.encode(Question(int(NOW.timestamp()), "r", replica.nonces.issue()))
        headers = {MAC: mac(replica.nonces.derive_key(b"peers"), body)}
        said = []
        for _ in range(3):
            async with session.post(f"http://127.0.0.1:{replica.port}{PATH}", data=body, headers=headers) as answer:
                said.append((await answer.json())["redeemed"])
        assert said == [True, False, False]


async def test_a_question_about_something_else_than_a_nonce_is_answered_with_no() -> None:
    async with replicas(1) as ((replica,), _), aiohttp.ClientSession() as session:
        body = msgspec.json.encode(Question(int(NOW.timestamp()), "r", "not a nonce"))
        headers = {MAC: mac(replica.nonces.derive_key(b"peers"), body)}
        async with session.post(f"http://127.0.0.1:{replica.port}{PATH}", data=body, headers=headers) as answer:
            assert msgspec.json.decode(await answer.read(), type=Answer) == Answer(
                replica.nonces.replica, redeemed=False, by_number=True, reads_seen=True, reads_references=True
            )


async def test_before_there_is_a_key_questions_are_not_answered() -> None:
    nonces = Nonces(clock=lambda: NOW, entropy=system_entropy)
    replicas = Replicas(nonces=nonces, slices=None, session=None, clock=lambda: NOW, entropy=system_entropy)
    replica = await _listening(nonces, replicas)
    body = msgspec.json.encode(Question(1, "r"))
    assert await _post(replica, body, "x") == 503
    await replica.server.close()


async def test_a_server_without_a_service_is_alone() -> None:
    nonces = Nonces(clock=lambda: NOW, entropy=system_entropy)
    nonces.use(b"n" * 32)
    replicas = Replicas(nonces=nonces, slices=None, session=None, clock=lambda: NOW, entropy=system_entropy)
    assert replicas.is_sole_writer()
    assert await replicas.redeem(nonces.read(nonces.issue()))
    other = Nonces(clock=lambda: NOW, entropy=system_entropy)
    other.use(b"n" * 32)
    assert not await replicas.redeem(other.read(other.issue()))
    await replicas.run()  # ends at once: there are no others


async def test_a_server_with_a_service_is_alone_when_nobody_else_was_there_for_a_minute() -> None:
    async with replicas(1) as ((replica,), _), in_background(replica.replicas.run()):
        await until(lambda: bool(replica.replicas.identities))
        assert not replica.replicas.is_sole_writer(), "this is its first minute"
    async with replicas(1, every=0.01, leaves_after=0) as ((replica,), slices):
        await asyncio.sleep(0.001)
        assert not replica.replicas.is_sole_writer(), "an address has not said who it is"
        async with in_background(replica.replicas.run()):
            await until(replica.replicas.is_sole_writer)
            slices.add(9, "127.0.0.9")
            assert not replica.replicas.is_sole_writer()
            slices.known.pop()
            await until(replica.replicas.is_sole_writer)


async def test_replicas_learn_who_is_who_and_forget_who_is_gone() -> None:
    async with replicas(2, every=0.01) as (each, slices), in_background(each[0].replicas.run()):
        identities = [replica.nonces.replica for replica in each]
        await until(lambda: sorted(each[0].replicas.identities) == sorted(identities))
        slices.known.pop()
        await until(lambda: list(each[0].replicas.identities) == identities[:1])


@pytest.mark.parametrize(
    ("ports", "expected"),
    [
        ((), ()),
        ((EndpointPort(name="x", port=5),), (5,)),
        ((EndpointPort(name="x", port=5), EndpointPort(name="y", port=6)), ()),
        ((EndpointPort(name="x", port=5), EndpointPort(name="peers", port=6)), (6,)),
        ((EndpointPort(name="peers"),), ()),
        (tuple(EndpointPort(name=name, port=5) for name in ("peers", "x")), (5,)),
        ((EndpointPort(name="peers", port=5), EndpointPort(name="peers-1", port=6), EndpointPort(port=7)), (5, 6)),
    ],
)
def test_the_ports_are_those_named_peers_or_the_only_one(ports: Any, expected: tuple[int, ...]) -> None:
    assert ports_of(EndpointSlice(metadata=ObjectMeta(), ports=ports)) == expected
