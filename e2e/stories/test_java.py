"""A relying party in Java checks certificates with revocation on (PKIX): each one below the root needs a CRL."""

from __future__ import annotations

import ssl
import subprocess
from collections.abc import AsyncIterator, Callable, Sequence
from functools import partial
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from e2e.load.client import Client
from e2e.load.keys import b64url
from e2e.stories.clients import Said, run
from e2e.stories.story import Story
from e2e.support import tools
from e2e.support.enrollment import Enrollment, enrollment_of
from kms.pki.certificate import is_root
from kms.resources.kinds import AUTHORITIES, PROFILES
from tests.support.eventually import eventually
from tests.support.installation import PROFILE

pytestmark = pytest.mark.clients
PROGRAM = Path(__file__).parent / "programs" / "CheckPath.java"
ISSUING = "issuing"

Check = Callable[[Sequence[x509.Certificate]], Said]
"""Checks a path: the leaf first, the root last."""


@pytest.fixture(scope="module")
def classes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the compiled program."""
    folder = tmp_path_factory.mktemp("classes")
    subprocess.run((tools.required(tools.JAVAC), "-d", folder, PROGRAM), check=True, capture_output=True)
    return folder


@pytest.fixture
def check(classes: Path, tmp_path: Path) -> Check:
    return partial(checked, classes, tmp_path)


def checked(classes: Path, folder: Path, path: Sequence[x509.Certificate]) -> Said:
    *below, root = path
    anchor, chain = folder / "root.crt", folder / "chain.crt"
    anchor.write_bytes(root.public_bytes(Encoding.PEM))
    chain.write_bytes(b"".join(each.public_bytes(Encoding.PEM) for each in below))
    java = tools.required(tools.JAVAC).with_name("java")
    command = (java, "-Dcom.sun.security.enableCRLDP=true", "-cp", classes, "CheckPath", anchor, chain)
    return run(command, folder=folder, environment={})


@pytest.fixture(scope="module")
def enrollment(story: Story) -> Enrollment:
    """A profile with an intermediate CA below the root of the story."""
    site = story.installation
    spec = {"internal": {"subject": {"commonName": "Issuing CA"}, "issuerRef": {"name": PROFILE}}}
    site.apply(story.namespace, AUTHORITIES, spec, name=ISSUING)
    acme = {"externalAccountBinding": "Disabled"}
    references = {"issuerRef": {"name": ISSUING}, "policyRef": {"name": PROFILE}}
    site.apply(story.namespace, PROFILES, {**references, "enrollment": {"acme": acme}}, name=ISSUING)
    site.wait(story.namespace, f"certificateprofile/{ISSUING}")
    return enrollment_of(site.cluster, story.namespace, ISSUING)


@pytest.fixture
async def client(story: Story, enrollment: Enrollment) -> AsyncIterator[Client]:
    async with story.installation.client(enrollment) as client:
        yield client


async def issued(client: Client, story: Story, enrollment: Enrollment, label: str) -> list[x509.Certificate]:
    """The path of a new certificate: leaf, intermediate, root."""
    certificate = await client.obtain([f"{label}.{story.namespace}.test"], story.installation.answerer.add)
    chain = x509.load_pem_x509_certificates(certificate.chain.encode())
    (root,) = filter(is_root, x509.load_pem_x509_certificates(enrollment.chain.encode()))
    path = [*(each for each in chain if not is_root(each)), root]
    assert len(path) == 3
    return path


async def test_a_certificate_below_an_intermediate_is_valid(
    client: Client, story: Story, enrollment: Enrollment, check: Check
) -> None:
    said = check(await issued(client, story, enrollment, "valid"))
    assert (said.code, said.words) == (0, "valid")


@pytest.mark.requirement("M138")
async def test_a_revoked_certificate_is_not(client: Client, story: Story, enrollment: Enrollment, check: Check) -> None:
    path = await issued(client, story, enrollment, "revoked")
    url = (await client.exchange.directory())["revokeCert"]
    der = b64url(path[0].public_bytes(Encoding.DER))
    await client.post("revoke", url, {"certificate": der, "reason": 4})
    eventually(lambda: check(path).code == 1, why=lambda: check(path).output)
    assert check(path).words.startswith("REVOKED: certificate 0: ")


def test_the_certificate_of_the_server_is_valid(story: Story, check: Check) -> None:
    server = urlsplit(story.enrollment.directory_url)
    leaf = ssl.get_server_certificate((server.hostname or "", server.port or 443))
    (root,) = x509.load_pem_x509_certificates(story.enrollment.authority.encode())
    said = check([x509.load_pem_x509_certificate(leaf.encode()), root])
    assert (said.code, said.words) == (0, "valid")
