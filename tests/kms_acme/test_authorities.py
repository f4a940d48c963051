"""`kms-acme ca request` and `ca install`: a ceremony at a terminal, with an operator on the other side."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path

import msgspec
import pytest
from click.testing import CliRunner, Result
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.hazmat.primitives.serialization.pkcs7 import serialize_certificates

from kms.clock import system_clock
from kms.pki.ca import InvalidAuthority
from kms.pki.certificate import Signer, certificate_pem
from kms.resources.authorities import CertificateAuthority
from kms.resources.kinds import AUTHORITIES, SECRETS
from kms.resources.meta import condition
from kms.resources.secret_names import signing_key_name
from kms_acme.authorities import arrange, read_certificates
from kms_acme.cli import main
from tests.support import pki
from tests.support.corporate_ca import certify
from tests.support.eventually import in_background
from tests.support.operated import authority
from tests.support.world import World, world

NOW = system_clock()
ROOT = pki.root(common_name="Corporate Root", not_before=NOW - pki.DAY, not_after=NOW + 3650 * pki.DAY)
OTHER = pki.root(
    common_name="New Root",
    with_key=pki.key(which="new root"),
    not_before=NOW - pki.DAY,
    not_after=NOW + 3650 * pki.DAY,
)


@dataclass
class Terminal:
    """Somebody with a kubeconfig, and files; the operator works while a command runs."""

    world: World
    directory: Path
    kubeconfig: Path
    operated: bool = field(default=True)

    async def runs(self, *line: str, answers: str | None = None) -> Result:
        command, *rest = line
        arguments = ["ca", command, "--kubeconfig", str(self.kubeconfig), "--timeout", "8", *rest]
        async with in_background(self._operate() if self.operated else asyncio.sleep(60)):
            return await asyncio.to_thread(CliRunner().invoke, main.main, arguments, input=answers)

    async def _operate(self) -> None:
        while True:
            await self.world.reconcile()
            await asyncio.sleep(0.05)

    @property
    def authority(self) -> CertificateAuthority:
        found = self.world.api.read(AUTHORITIES, "pki", "issuing")
        assert found is not None
        return found

    async def request(self) -> str:
        await self.world.reconcile()
        assert self.authority.status.request is not None
        return self.authority.status.request

    async def answer(self, name: str = "issuing.crt", signer: Signer = ROOT, **more: object) -> str:
        """A file with the certificate that the corporate CA issues for the request."""
        dates = {"not_before": NOW - timedelta(hours=1), "not_after": NOW + 89 * pki.DAY, **more}
        path = self.directory / name
        path.write_text(certify(await self.request(), signer, **dates))  # type: ignore[arg-type]
        return str(path)


def text_of(file: str) -> str:
    return Path(file).read_text()


def left_alone(file: str) -> x509.Certificate:
    """Leave the first certificate in the file, as DER."""
    own = x509.load_pem_x509_certificates(Path(file).read_bytes())[0]
    Path(file).write_bytes(own.public_bytes(Encoding.DER))
    return own


@pytest.fixture
async def terminal(tmp_path: Path) -> AsyncIterator[Terminal]:
    async with world() as one:
        one.now = NOW
        one.api.put(AUTHORITIES, authority("issuing", internal={"signedBy": "Request", "pathLength": 0}))
        yield Terminal(one, tmp_path, one.api.write_kubeconfig(tmp_path / "kubeconfig"))


@pytest.mark.requirement("X51")
async def test_a_ceremony_from_the_request_to_the_renewal(terminal: Terminal) -> None:
    file = terminal.directory / "issuing.csr"
    result = await terminal.runs("request", "pki/issuing", "-o", str(file))
    assert result.exit_code == 0, result.output
    assert 'Subject:         "CN=Test issuing"' in result.stderr
    assert "Install the certificate with: kms-acme ca install pki/issuing FILE" in result.stderr
    assert (file.read_text(), result.stdout) == (await terminal.request(), "")
    printed = await terminal.runs("request", "-n", "pki", "issuing")
    assert printed.stdout == file.read_text()

    answer = await terminal.answer()
    declined = await terminal.runs("install", "pki/issuing", answer, answers="n\n")
    assert (declined.exit_code, terminal.authority.status.certificate) == (1, None)
    result = await terminal.runs("install", "pki/issuing", answer, answers="y\n")
    assert result.exit_code == 0, result.output
    assert "This is the first certificate of the CA." in result.output
    assert "CertificateAuthority pki/issuing signs with the certificate." in result.output
    assert terminal.authority.status.chain == text_of(answer)

    # A renewed certificate alone: its issuer is known.
    renewed = await terminal.answer("renewed.crt", serial=78)
    own = left_alone(renewed)
    result = await terminal.runs("install", "pki/issuing", renewed, "--yes")
    assert result.exit_code == 0, result.output
    assert "It replaces the certificate that is valid until" in result.output
    assert terminal.authority.status.chain == certificate_pem(own) + certificate_pem(ROOT.certificate)

    result = await terminal.runs("install", "pki/issuing", await terminal.answer(signer=OTHER), "--dry-run")
    assert result.exit_code == 0
    assert 'trust another certificate than "CN=Corporate Root"' in result.output
    assert terminal.authority.status.chain.count("BEGIN") == 2


@pytest.mark.requirement("X51")
async def test_what_the_ca_cannot_use_is_refused_before_anything_is_written(terminal: Terminal) -> None:
    for name, more, reason in (
        ("ended", {"not_after": NOW - timedelta(minutes=1)}, "Expired"),
        ("no-ca", {"leave_out": [x509.BasicConstraints]}, "NotACertificateAuthority"),
    ):
        result = await terminal.runs("install", "pki/issuing", await terminal.answer(name, **more), "--yes")
        assert (result.exit_code, f"cannot be used: {reason}: " in result.stderr) == (3, True), result.output
    assert terminal.authority.spec.internal is not None
    assert terminal.authority.spec.internal.certificate is None


@pytest.mark.requirement("X58")
async def test_no_request_is_given_out_for_a_key_that_is_lost(terminal: Terminal) -> None:
    await terminal.request()
    terminal.world.api.remove(SECRETS, "kms-acme", signing_key_name(terminal.authority.metadata.uid))
    await terminal.world.reconcile_all()
    result = await terminal.runs("request", "pki/issuing", "--timeout", "0")
    assert (result.exit_code, "KeyLost: Secret kms-acme/ca-" in result.stderr) == (1, True), result.output


async def test_no_request_of_the_former_spec_is_given_out(terminal: Terminal) -> None:
    await terminal.request()
    one = terminal.authority
    assert one.spec.internal is not None
    spec = msgspec.structs.replace(one.spec, internal=msgspec.structs.replace(one.spec.internal, path_length=1))
    await (await terminal.world.api.cluster()).replace(AUTHORITIES, msgspec.structs.replace(one, spec=spec))
    terminal.operated = False
    result = await terminal.runs("request", "pki/issuing", "--timeout", "0")
    assert (result.exit_code, "no operator has processed it, as it is now" in result.stderr) == (1, True)


async def test_the_operator_has_the_last_word(terminal: Terminal) -> None:
    answer = await terminal.answer(not_after=NOW + 5 * pki.DAY)
    terminal.world.now = NOW + 6 * pki.DAY
    result = await terminal.runs("install", "pki/issuing", answer, "--yes")
    assert (result.exit_code, "The operator refuses the certificate: Expired" in result.stderr) == (3, True)


async def test_an_operator_that_does_not_answer_is_told(terminal: Terminal) -> None:
    answer = await terminal.answer()
    terminal.operated = False
    result = await terminal.runs("install", "pki/issuing", answer, "--yes", "--timeout", "0.5")
    assert (result.exit_code, "has not taken the certificate within" in result.stderr) == (1, True)
    assert terminal.authority.spec.internal is not None
    assert terminal.authority.spec.internal.certificate == text_of(answer)
    assert condition(terminal.authority.status.conditions, "Ready") is not None


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"hello", "has no certificate that can be read, in PEM, DER or PKCS #7"),
        (b"\x30\x03\x02\x01\x01", "has no certificate that can be read, in PEM, DER or PKCS #7"),
        (b"-----BEGIN PRIVATE KEY-----\n", "has a private key"),
        (b"-----BEGIN CERTIFICATE REQUEST-----\n", "install the certificate that was issued for it"),
        (b"-----BEGIN CERTIFICATE-----\n" * 50_000, "has more than 1048576 octets"),
    ],
)
async def test_a_file_without_certificates_is_wrong_usage(terminal: Terminal, content: bytes, says: str) -> None:
    file = terminal.directory / "file"
    file.write_bytes(content)
    result = await terminal.runs("install", "pki/issuing", str(file))
    assert (result.exit_code, says in result.stderr) == (2, True), result.output


@pytest.mark.parametrize(
    ("line", "code", "says"),
    [
        (("request", "issuing"), 2, "Write NAMESPACE/issuing, or set --namespace."),
        (("request", "pki/issuing", "-n", "pki"), 2, "Write the namespace once"),
        (("request", "pki/missing"), 1, "there is no CertificateAuthority pki/missing"),
        (("request", "pki/root"), 1, 'spec.internal lacks "signedBy: Request"'),
        (("request", "pki/issuing", "-o", "/nonexistent/file"), 1, "/nonexistent/file cannot be written"),
    ],
)
async def test_what_cannot_be_requested_is_told(terminal: Terminal, line: Sequence[str], code: int, says: str) -> None:
    terminal.world.api.put(AUTHORITIES, authority("root"))
    result = await terminal.runs(*line)
    assert (result.exit_code, says in result.stderr) == (code, True), result.output


async def test_without_an_operator_there_is_no_request(terminal: Terminal) -> None:
    terminal.operated = False
    result = await terminal.runs("request", "pki/issuing", "--timeout", "0")
    assert (result.exit_code, "has no request that can be signed; no operator has processed it" in result.stderr) == (
        1,
        True,
    )


def test_certificates_are_read_in_every_form_and_put_in_order() -> None:
    policy = pki.below(ROOT, common_name="Policy", not_before=NOW, not_after=NOW + pki.DAY)
    own = pki.below(policy, not_before=NOW, not_after=NOW + pki.DAY)
    chain = [own.certificate, policy.certificate, ROOT.certificate]
    forms: tuple[Callable[[], bytes], ...] = (
        lambda: "".join(map(certificate_pem, chain)).encode(),
        lambda: serialize_certificates(chain, Encoding.PEM),
        lambda: serialize_certificates(chain, Encoding.DER),
    )
    for form in forms:
        assert set(read_certificates(form())) == set(chain)
    key = own.key.public_key()
    assert arrange(reversed(chain), key) == tuple(chain)
    assert arrange(chain[:1], key, known=chain[:0:-1]) == tuple(chain)
    with pytest.raises(InvalidAuthority, match=r'"CN=Corporate Root" does not .*; add the certificate of "CN=Policy"'):
        arrange([chain[2], chain[0]], key)
    assert arrange(chain[1:], key) == tuple(chain[1:]), "the check says that the key's certificate is missing"
    with pytest.raises(InvalidAuthority, match=r'"CN=New Root" does not belong to the chain .*; leave it out'):
        arrange([*chain, OTHER.certificate], key)
