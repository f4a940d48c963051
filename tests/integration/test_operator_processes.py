"""Operators that end, are killed, or are two, on a real API server: no key is lost, none is made twice."""

from __future__ import annotations

import random
import secrets
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Protocol

import pytest

from e2e.cluster.cluster import Cluster
from e2e.cluster.ports import free_port
from kms.address import Address
from kms.resources.kinds import CREDENTIALS
from tests.support.eventually import eventually
from tests.support.installation import KILLS
from tests.support.manifests import manifest
from tests.support.operating import RELEASE, Kubectl, OperatorProcess, examples, start_operator

HOLDER = "jsonpath={.spec.holderIdentity}"


class Start(Protocol):
    """Starts an operator. On the same port it is the same candidate; with another lease it acts whoever else does."""

    def __call__(self, *, port: int | None = None, lease: str | None = None) -> OperatorProcess: ...


@pytest.fixture
def start(installed: Cluster, tmp_path: Path) -> Iterator[Start]:
    """Starts operators, which end with the test."""
    running: list[OperatorProcess] = []
    of_this_test = f"operator-{secrets.token_hex(4)}"  # else it would wait for the lease of one that was killed before

    def begin(*, port: int | None = None, lease: str | None = None) -> OperatorProcess:
        address = Address("127.0.0.1", port or free_port())
        log, lease = tmp_path / "operator.log", lease or of_this_test
        running.append(start_operator(installed, log, metrics_listen=address, lease_name=lease))
        return running[-1]

    yield begin
    for each in running:
        each.kill()


def test_deleting_needs_no_operator_and_keys_are_kept_from_its_next_start_on(kubectl: Kubectl, start: Start) -> None:
    operator = start()
    kubectl.settle()
    assert operator.stop() == 0
    kubectl("delete", "kca/issuing", "kpol/web", "kprof/web", "eab/web", "--timeout=60s")
    keys = kubectl.internal("")
    assert len(keys) == 2
    start()
    eventually(lambda: all(map(kubectl.is_kept, keys)))


def test_two_operators_at_once_make_one_key_of_each(kubectl: Kubectl, start: Start) -> None:
    """A lease has no fencing: for some seconds there may be two. Here each has a lease of its own."""
    start(), start(lease="other")
    time.sleep(3)
    kubectl.apply(*examples(), *(manifest(CREDENTIALS, name=f"web-{count}") for count in range(5)))
    for name in ("web", *(f"web-{count}" for count in range(5))):
        kubectl.becomes(f"eab/{name}", "Issued", seconds=60)
    time.sleep(2)
    check_consistent(kubectl)


def test_one_of_two_operators_acts_and_the_other_takes_over(kubectl: Kubectl, start: Start) -> None:
    lease = f"contested-{secrets.token_hex(4)}"
    first = start(lease=lease)
    kubectl.apply(*examples())
    kubectl.becomes("eab/web", "Issued", seconds=30)
    holder = kubectl.cluster.kubectl("-n", RELEASE, "get", "lease", lease, "-o", HOLDER)
    second = start(lease=lease)
    eventually(second.ready, seconds=20)
    first.stop()
    kubectl.apply(manifest(CREDENTIALS, name="later"))
    kubectl.becomes("eab/later", "Issued", seconds=20)
    assert kubectl.cluster.kubectl("-n", RELEASE, "get", "lease", lease, "-o", HOLDER) != holder


@pytest.mark.chance
def test_killed_at_any_moment_it_goes_on_where_it_was(kubectl: Kubectl, start: Start) -> None:
    """kill -9 while it works, again and again: no CA with two keys, no credential with two, nothing half done."""
    rounds = max(4, KILLS // 4)
    chance = random.Random(20261123)  # noqa: S311 - moments, not secrets
    kubectl.apply(*examples())
    port = free_port()
    for count in range(rounds):
        process = start(port=port)
        kubectl.apply(manifest(CREDENTIALS, name=f"web-{count}"))
        if count % 3 == 0 and count:
            kubectl("delete", "secret", f"web-{count - 1}-eab", "--ignore-not-found")
        time.sleep(0.8 + chance.random() * 2.0)
        process.kill()
    start(port=port)
    for name in ("web", *(f"web-{count}" for count in range(rounds))):
        kubectl.becomes(f"eab/{name}", "Issued", seconds=30)
    check_consistent(kubectl)


def check_consistent(kubectl: Kubectl) -> None:
    """Every CA and every credential has exactly one key, and what is published is that one."""
    (key,) = kubectl.internal("ca-")
    chain = kubectl.secret(key, namespace=RELEASE)["tls.crt"].decode()
    assert kubectl.get("kca/issuing")["status"]["chain"] == chain
    credentials = kubectl.get("eab")["items"]
    copies = [kubectl.secret(each, namespace=RELEASE) for each in kubectl.internal("eab-")]
    shown = [kubectl.secret(each["status"]["secretName"]) for each in credentials]
    assert sorted(each["kid"] for each in copies) == sorted(each["kid"] for each in shown)
    assert {each["kid"]: each["secret"] for each in copies} == {each["kid"]: each["secret"] for each in shown}
    assert sorted(each["status"]["keyID"].encode() for each in credentials) == sorted(each["kid"] for each in shown)
