"""`kms-acme ca backup` and `ca restore`, with an operator on the other side, in this cluster and in another."""

from __future__ import annotations

import asyncio
import io
import stat
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec
import pytest
from click.testing import CliRunner, Result

from kms.clock import system_clock
from kms.resources.authorities import CertificateAuthority
from kms.resources.certificate_chains import CertificateChain, CertificateChainSpec, chain_name
from kms.resources.core import Lease, LeaseSpec
from kms.resources.kinds import (
    ACCOUNTS,
    AUTHORITIES,
    CERTIFICATE_CHAINS,
    CREDENTIALS,
    LEASES,
    NAMESPACES,
    ORDERS,
    POLICIES,
    PROFILES,
    SECRETS,
    Kind,
)
from kms.resources.meta import LocalRef, ObjectMeta
from kms.resources.orders import Identifier, OrderStatus
from kms.resources.secret_names import signing_key_name
from kms_acme.backup.contents import (
    SECRET,
    Entry,
    Header,
    Stored,
    StoredMeta,
    decode_contents,
    encode_entry,
    encode_header,
)
from kms_acme.backup.encryption import BackupUnreadable, decrypt
from kms_acme.cli import main
from kms_operator.settings import OperatorSettings
from tests.support.acmeorders import certified
from tests.support.eventually import in_background
from tests.support.operated import RELEASE, SETTINGS, authority, credential, namespace, policy, profile
from tests.support.world import World, world

PASSPHRASE = "correct horse battery staple"
CONFIGURATION: dict[Kind[Any], tuple[str, Any]] = {
    AUTHORITIES: ("issuing", authority),
    POLICIES: ("web", policy),
    PROFILES: ("web", profile),
    CREDENTIALS: ("web", credential),
}


class Terminal:
    """Somebody with a kubeconfig, and files; the operator works while a command runs, if it does at all."""

    def __init__(self, one: World, directory: Path, release: str = RELEASE) -> None:
        self.world = one
        self.directory = directory
        self.release = release
        self.kubeconfig = one.api.write_kubeconfig(directory / "kubeconfig")
        self.file = directory / "file.backup"
        one.now = system_clock()
        one.api.put(NAMESPACES, namespace(release))

    async def runs(self, *line: str, answers: str | None = None, passphrase: str | None = PASSPHRASE) -> Result:
        command, *rest = line
        if command == "backup":
            rest += ["--scrypt-cost", "14"]
        arguments = ["ca", command, "--kubeconfig", str(self.kubeconfig), "-n", self.release, *rest]
        variables = {"KMS_ACME_PASSPHRASE": passphrase}
        async with in_background(self._operate()):
            result = await asyncio.to_thread(CliRunner().invoke, main.main, arguments, input=answers, env=variables)
        if result.exception is not None and not isinstance(result.exception, SystemExit):
            raise result.exception
        return result

    async def backs_up(self, *options: str) -> Result:
        result = await self.runs("backup", str(self.file), *options)
        assert result.exit_code == 0, result.output
        return result

    async def restores(self, *options: str, **more: Any) -> Result:
        return await self.runs("restore", str(self.file), "--yes", *options, **more)

    def runs_operator(self, program: str = "operator") -> None:
        spec = LeaseSpec(
            holder_identity="one", lease_duration_seconds=60, renew_time=f"{system_clock():%Y-%m-%dT%H:%M:%S.000000Z}"
        )
        self.world.api.put(
            LEASES, Lease(metadata=ObjectMeta(name=f"kms-acme-{program}", namespace=self.release), spec=spec)
        )

    async def _operate(self) -> None:
        while True:
            if self.world.api.read(LEASES, self.release, "kms-acme-operator") is not None:
                await self.world.reconcile()
            await asyncio.sleep(0.05)

    @property
    def authority(self) -> CertificateAuthority:
        found = self.world.api.read(AUTHORITIES, "pki", "issuing")
        assert found is not None
        return found

    def key(self) -> bytes:
        """The private key with which the server signs."""
        return self.world.secret(signing_key_name(self.authority.metadata.uid), self.release).data["tls.key"]

    def loses_everything(self) -> None:
        api = self.world.api
        for kind, (name, _) in CONFIGURATION.items():
            api.remove(kind, "pki", name)
        lost = {"secrets", "acmeorders", "acmeaccounts", "certificatechains"}
        for key in [each for each in api.store.by_key if each.plural in lost]:
            api.store.delete(key, {})

    def stored(self) -> dict[Any, Any]:
        return {key: value for key, value in self.world.api.store.by_key.items() if key.plural != "leases"}

    @contextmanager
    def unchanged(self) -> Iterator[None]:
        writes = len(self.world.api.writes)
        yield
        assert len(self.world.api.writes) == writes


@pytest.fixture
async def terminal(tmp_path: Path) -> AsyncIterator[Terminal]:
    async with world() as one:
        (tmp_path / "first").mkdir()
        terminal = Terminal(one, tmp_path / "first")
        await one.reconcile()
        await one.reconcile()
        terminal.runs_operator()
        yield terminal


@pytest.mark.requirement("P6")
async def test_what_was_lost_is_restored_with_its_keys_under_other_uids(terminal: Terminal) -> None:
    key, uid, certificate = terminal.key(), terminal.authority.metadata.uid, terminal.authority.status.certificate
    kid = terminal.world.secret("web-eab").data["kid"]
    result = await terminal.backs_up()
    assert stat.S_IMODE(terminal.file.stat().st_mode) == 0o600
    assert "1 CertificateAuthority, 1 CertificateProfile, 1 EABCredential" in result.output
    assert sorted(each.name for each in terminal.directory.iterdir()) == ["file.backup", "kubeconfig"]

    terminal.loses_everything()
    shown = await terminal.runs("restore", str(terminal.file), "--dry-run")
    assert shown.exit_code == 0, shown.output
    assert f"create   Secret {RELEASE}/{signing_key_name(uid)} (CertificateAuthority pki/issuing: the key SHA-256" in (
        shown.output
    )
    assert terminal.world.api.read(AUTHORITIES, "pki", "issuing") is None
    declined = await terminal.runs("restore", str(terminal.file), answers="n\n")
    assert (declined.exit_code, terminal.world.secrets("ca-")) == (1, [])

    restored = await terminal.restores()
    assert restored.exit_code == 0, restored.output
    assert "CertificateAuthority pki/issuing: Ready, with the key of the backup" in restored.output
    assert (terminal.key(), terminal.authority.status.certificate) == (key, certificate)
    assert terminal.authority.metadata.uid != uid
    await terminal.world.reconcile()
    assert terminal.world.secret("web-eab").data["kid"] == kid

    # Once more: all is there.
    with terminal.unchanged():
        again = await terminal.runs("restore", str(terminal.file), "--yes", "--dry-run")
    assert again.exit_code == 0
    assert {line.split()[0] for line in again.output.splitlines()[1:]} == {"leave"}
    for each in (result, shown, restored, again):
        assert key.decode().splitlines()[1] not in each.output


@pytest.mark.requirement("P6")
async def test_a_backup_moves_to_another_release_namespace_of_another_cluster(
    terminal: Terminal, tmp_path: Path
) -> None:
    await terminal.backs_up()
    settings = OperatorSettings(external_url=SETTINGS.external_url, namespace="elsewhere")
    async with world(settings) as one:
        (tmp_path / "other").mkdir()
        other = Terminal(one, tmp_path / "other", "elsewhere")
        other.loses_everything()
        other.file = terminal.file
        other.runs_operator()
        await other.world.reconcile()
        result = await other.restores()
        assert result.exit_code == 0, result.output
        assert other.key() == terminal.key()
        assert other.authority.status.certificate == terminal.authority.status.certificate


@pytest.mark.requirement("P6")
async def test_a_ca_with_another_key_is_never_replaced(terminal: Terminal) -> None:
    await terminal.backs_up()
    terminal.loses_everything()
    terminal.world.api.put(AUTHORITIES, authority("issuing"))
    await terminal.world.reconcile()
    before = terminal.key()
    with terminal.unchanged():
        result = await terminal.restores()
    assert result.exit_code == 3, result.output
    assert (
        "refuse   CertificateAuthority pki/issuing (has another key: the cluster has the key SHA-256 " in result.output
    )
    assert "Nothing was restored." in result.output
    assert terminal.key() == before


@pytest.mark.requirement("P6")
async def test_a_key_alone_comes_back(terminal: Terminal) -> None:
    await terminal.backs_up()
    key, name = terminal.key(), signing_key_name(terminal.authority.metadata.uid)
    terminal.world.api.remove(SECRETS, RELEASE, name)
    await terminal.world.reconcile()
    assert terminal.world.reason(AUTHORITIES, "issuing") == "KeyLost"
    result = await terminal.restores()
    assert result.exit_code == 0, result.output
    assert (terminal.key(), terminal.world.reason(AUTHORITIES, "issuing")) == (key, "Issued")


def _put_chain(terminal: Terminal, certificates: str = "PEM") -> CertificateChain:
    metadata = ObjectMeta(name=chain_name("PEM"), namespace="pki")
    chain = CertificateChain(metadata=metadata, spec=CertificateChainSpec(certificates=certificates))
    return terminal.world.api.put(CERTIFICATE_CHAINS, chain)


async def test_a_chain_that_was_changed_in_the_cluster_does_not_pass_for_the_one_of_the_backup(
    terminal: Terminal,
) -> None:
    chain = _put_chain(terminal)
    await terminal.backs_up("--include-orders")
    _put_chain(terminal, "changed")
    result = await terminal.restores("--include-orders")
    assert (result.exit_code, "0 created, 0 existed, 1 failed" in result.output) == (1, True), result.output
    assert f"CertificateChain pki/{chain.metadata.name} is not restored" in result.output
    terminal.world.api.remove(CERTIFICATE_CHAINS, "pki", chain.metadata.name)
    result = await terminal.restores("--include-orders")
    assert (result.exit_code, "1 created, 0 existed, 0 failed" in result.output) == (0, True), result.output


async def test_chains_that_are_missing_or_were_changed_are_told(terminal: Terminal) -> None:
    chain = _put_chain(terminal)
    name = f"CertificateChain pki/{chain.metadata.name}"
    status = msgspec.structs.replace(certified().status, chain_ref=LocalRef(name=chain.metadata.name))
    for number in (1, 2):
        order = msgspec.structs.replace(certified(), metadata=ObjectMeta(name=f"order-{number}", namespace="pki"))
        terminal.world.api.put(ORDERS, msgspec.structs.replace(order, status=status))
    await terminal.backs_up("--include-orders")

    terminal.world.api.remove(CERTIFICATE_CHAINS, "pki", chain.metadata.name)
    result = await terminal.runs("backup", str(terminal.file), "--force", "--include-orders")
    assert (result.exit_code, f"{name} is missing; 2 orders refer to it" in result.output) == (1, True), result.output
    with terminal.unchanged():
        result = await terminal.runs("restore", str(terminal.file), "--include-orders", "--dry-run")
    assert f"{name} is missing; 2 orders refer to it" in result.output
    result = await terminal.restores("--include-orders")
    assert (result.exit_code, "0 created, 2 existed, 0 failed" in result.output) == (1, True), result.output

    _put_chain(terminal, "changed")
    changed = f"{name} was changed: its text has the digest {chain_name('changed')}; 2 orders refer to it"
    result = await terminal.runs("backup", str(terminal.file), "--force", "--include-orders")
    assert (result.exit_code, changed in result.output) == (1, True), result.output
    terminal.world.api.remove(CERTIFICATE_CHAINS, "pki", chain.metadata.name)
    result = await terminal.restores("--include-orders")
    assert (result.exit_code, changed in result.output) == (1, True), result.output
    assert f"{name} is not restored: that of the backup was changed" in result.output
    assert terminal.world.api.read(CERTIFICATE_CHAINS, "pki", chain.metadata.name) is None

    _put_chain(terminal)  # the cluster has what the backup lacks
    result = await terminal.restores("--include-orders")
    assert (result.exit_code, name in result.output) == (0, False), result.output


async def test_no_order_is_restored_where_chains_are_not_served(terminal: Terminal) -> None:
    _put_chain(terminal)
    terminal.world.api.put(
        ORDERS, msgspec.structs.replace(certified(), metadata=ObjectMeta(name="order", namespace="pki"))
    )
    await terminal.backs_up("--include-orders")
    terminal.loses_everything()
    terminal.world.api.unserved.add(CERTIFICATE_CHAINS.plural)
    result = await terminal.restores("--include-orders")
    assert result.exit_code != 0, result.output
    assert terminal.world.api.read(ORDERS, "pki", "order") is None


@pytest.mark.requirement("P6")
async def test_orders_come_back_with_their_status_while_no_server_runs(terminal: Terminal) -> None:
    order = certified()
    stored = terminal.world.api.put(
        ORDERS, msgspec.structs.replace(order, metadata=ObjectMeta(name="order", namespace="pki"))
    )
    chain = terminal.world.api.put(
        CERTIFICATE_CHAINS,
        CertificateChain(
            metadata=ObjectMeta(name=chain_name("PEM"), namespace="pki"), spec=CertificateChainSpec(certificates="PEM")
        ),
    )
    without = await terminal.backs_up()
    assert "Accounts and orders are not in it" in without.output
    result = await terminal.restores("--include-orders")
    assert (result.exit_code, "The backup has no accounts and orders." in result.output) == (2, True)
    await terminal.backs_up("--force", "--include-orders")
    terminal.loses_everything()
    terminal.runs_operator("server")
    result = await terminal.restores("--include-orders")
    assert (result.exit_code, "a server runs" in result.output) == (1, True)
    terminal.world.api.remove(LEASES, RELEASE, "kms-acme-server")
    result = await terminal.restores("--include-orders")
    assert result.exit_code == 0, result.output
    assert "Accounts, orders and chains: 2 created, 0 existed, 0 failed." in result.output
    restored = terminal.world.api.read(ORDERS, "pki", "order")
    assert restored is not None
    assert (restored.spec, restored.status) == (stored.spec, stored.status)
    back = terminal.world.api.read(CERTIFICATE_CHAINS, "pki", chain.metadata.name)
    assert back is not None
    assert back.is_genuine
    written = [each.plural for each in terminal.world.api.writes if each.verb == "create"]
    assert written.index(CERTIFICATE_CHAINS.plural) < written.index(ORDERS.plural)
    assert terminal.world.api.read(ACCOUNTS, "pki", "order") is None
    # As the API server creates it, if a restore ends before it writes the status.
    terminal.world.api.put(ORDERS, msgspec.structs.replace(restored, status=OrderStatus()))
    result = await terminal.restores("--include-orders")
    assert "Accounts, orders and chains: 0 created, 2 existed, 0 failed." in result.output
    again = terminal.world.api.read(ORDERS, "pki", "order")
    assert again is not None
    assert again.status == stored.status
    # Another order of the same name: it has proven nothing.
    other = msgspec.structs.replace(again.spec, identifiers=(Identifier(type="dns", value="other.example.com"),))
    terminal.world.api.put(ORDERS, msgspec.structs.replace(restored, spec=other, status=OrderStatus()))
    await terminal.restores("--include-orders")
    kept = terminal.world.api.read(ORDERS, "pki", "order")
    assert kept is not None
    assert kept.status == OrderStatus()


@pytest.mark.requirement("P6")
async def test_wrong_files_and_passphrases_are_told_apart(terminal: Terminal) -> None:
    await terminal.backs_up()
    content = terminal.file.read_bytes()
    wrong = await terminal.restores(passphrase="correct horse battery stable")
    assert (wrong.exit_code, "was encrypted with another passphrase" in wrong.output) == (1, True)
    terminal.file.write_bytes(content[:-1])
    damaged = await terminal.restores()
    assert (damaged.exit_code, "is damaged, or its end is missing" in damaged.output) == (1, True)
    terminal.file.write_bytes(b"apiVersion: v1\n")
    other = await terminal.restores()
    assert (other.exit_code, "is no backup of kms-acme" in other.output) == (1, True)


@pytest.mark.requirement("P6")
async def test_where_the_passphrase_comes_from(terminal: Terminal) -> None:
    typed = f"{PASSPHRASE}\n{PASSPHRASE}\n"
    result = await terminal.runs("backup", str(terminal.file), passphrase=None, answers=typed)
    assert result.exit_code == 0, result.output
    assert PASSPHRASE not in result.output
    assert "kind" in next(iter_text(terminal.file))
    existing = await terminal.runs("backup", str(terminal.file))
    assert (existing.exit_code, "--force replaces it" in existing.output) == (2, True)
    short = await terminal.runs("backup", str(terminal.file), "--force", passphrase="short")
    assert (short.exit_code, "at least 12 characters" in short.output) == (2, True)
    file = terminal.directory / "passphrase"
    file.write_text("another long passphrase\nsecond line\n")
    result = await terminal.runs("backup", str(terminal.file), "--force", "--passphrase-file", str(file))
    assert result.exit_code == 0, result.output
    assert "kind" in next(iter_text(terminal.file, "another long passphrase"))


def iter_text(file: Path, passphrase: str = PASSPHRASE) -> Iterator[str]:
    content = b"".join(decrypt(io.BytesIO(file.read_bytes()), passphrase))
    assert len(list(decode_contents([content]))) > 4
    yield content.decode()


@pytest.mark.requirement("P6")
async def test_a_ca_whose_key_is_missing_makes_the_backup_incomplete_and_is_not_created(terminal: Terminal) -> None:
    terminal.world.api.remove(SECRETS, RELEASE, signing_key_name(terminal.authority.metadata.uid))
    result = await terminal.runs("backup", str(terminal.file))
    assert result.exit_code == 1
    assert "CertificateAuthority pki/issuing has no key in the release namespace kms-acme" in result.output
    terminal.loses_everything()
    result = await terminal.restores()
    assert result.exit_code == 0, result.output
    assert "leave    CertificateAuthority pki/issuing (the backup has no key for it" in result.output
    assert terminal.world.api.read(AUTHORITIES, "pki", "issuing") is None


def test_a_backup_brings_no_secret_that_is_not_a_key() -> None:
    """Who knows the passphrase can write another file; what is restored stands beside the operator's own Secrets."""
    header = encode_header(Header(version=1, created_at=system_clock(), namespace=RELEASE, service_name="kms-acme"))
    secret = Stored(metadata=StoredMeta(name="token", namespace=RELEASE), type="kubernetes.io/service-account-token")
    with pytest.raises(BackupUnreadable, match="not a key"):
        list(decode_contents([header + encode_entry(Entry(SECRET, secret))]))
