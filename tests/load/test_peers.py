"""The other servers run, and take the orders of our client."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from click.testing import CliRunner

from e2e.cluster.ports import free_port
from e2e.load.__main__ import main
from e2e.load.drive import ORDER
from e2e.load.measure import Plan, measure
from e2e.load.peers import PEERS, prepare_pebble, prepare_step_ca, running_peer
from e2e.support import tools
from e2e.support.programs import Validation


@pytest.fixture
def validation() -> Validation:
    return Validation(free_port(), free_port())


def test_the_versions_that_readers_are_told_are_those_that_are_built() -> None:
    for name, peer in PEERS.items():
        pinned = (peer.tool.modules / "go.mod").read_text()
        (version,) = re.findall(r"\d+\.\d+\.\d+", peer.told)
        assert re.search(rf"^\s*github.com/\S+ v{re.escape(version)}\b", pinned, re.MULTILINE), name


def test_validation_uses_the_ports_of_the_responders(tmp_path: Path, validation: Validation) -> None:
    step = prepare_step_ca(tmp_path, 4711, validation)
    assert f"--acme-http-port={validation.http01_port}" in step.arguments
    assert f"--resolver=127.0.0.1:{validation.dns_port}" in step.arguments
    pebble = prepare_pebble(tmp_path, 4712, validation)
    assert f"-dnsserver=127.0.0.1:{validation.dns_port}" in pebble.arguments
    written = json.loads((tmp_path / "pebble.json").read_text())["pebble"]
    assert (written["httpPort"], written["listenAddress"]) == (validation.http01_port, "127.0.0.1:4712")


@pytest.mark.parametrize("name", PEERS)
async def test_our_client_obtains_certificates_from_other_servers(
    name: str, tmp_path: Path, validation: Validation
) -> None:
    tools.required(PEERS[name].tool)
    with running_peer(name, tmp_path, validation) as target:
        measured = await measure(target, Plan(orders=10, clients=2, accounts=2, warm_up=2, floor=False))
    assert not measured.tally.texts
    assert len(measured.tally.latencies[ORDER]) == 10
    assert measured.cpu["server"] > 0


@pytest.mark.cluster
def test_the_command_measures_another_server_in_turn_with_ours(tmp_path: Path) -> None:
    tools.required(tools.PEBBLE)
    figures = tmp_path / "figures.json"
    options = ("--orders=20", "--warm-up=4", "--clients=2", "--rounds=2", f"--json={figures}")
    said = CliRunner().invoke(main, ("--compare", "pebble", *options))
    assert said.exit_code == 0, said.output
    assert "| pebble | 1 | 1 | 1 |" in said.output
    assert "| kms-acme | " in said.output
    rounds = json.loads(figures.read_text())["rounds"]
    assert [[body["target"] for body in bodies] for bodies in rounds] == [["pebble", "kms-acme"]] * 2
    assert all(body["orders"] == 10 for bodies in rounds for body in bodies)
    assert all(bodies[1]["apiRequestsPerOrder"]["writes"] == 3 for bodies in rounds)
