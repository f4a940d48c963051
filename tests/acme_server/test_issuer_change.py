"""The server issues with the CA that the operator has put in force, not with one whose root clients do not know yet."""

from __future__ import annotations

from msgspec.structs import replace

from kms.pki.certificate import certificate_pem, certifies
from kms.pki.keys import private_key_pem
from kms.resources.authorities import AuthoritySpec, AuthorityStatus, CertificateAuthority
from kms.resources.core import Secret
from kms.resources.meta import LocalRef, ObjectMeta
from kms.resources.secret_names import TLS_CERTIFICATE, TLS_PRIVATE_KEY, signing_key_name
from tests.support import pki
from tests.support.domain import NAMESPACE, PROFILE, RELEASE, World
from tests.support.server import running_server

NAME = "www.example.com"
NEXT = pki.root(common_name="Next", with_key=pki.key(which="next"))


def install_next(world: World) -> None:
    """Another CA with its key."""
    pem = certificate_pem(NEXT.certificate)
    meta = ObjectMeta(namespace=NAMESPACE, name="next", uid="next-uid")
    status = AuthorityStatus(certificate=pem, chain=pem)
    world.authorities.put(CertificateAuthority(metadata=meta, spec=AuthoritySpec(), status=status))
    data = {TLS_CERTIFICATE: pem.encode(), TLS_PRIVATE_KEY: private_key_pem(NEXT.key)}
    world.secrets.put(Secret(metadata=ObjectMeta(namespace=RELEASE, name=signing_key_name("next-uid")), data=data))


def put_in_force(world: World, name: str) -> None:
    """The spec names the CA `next`, the status the one in force."""
    known = world.profiles.get(NAMESPACE, PROFILE)
    assert known is not None
    spec = replace(known.spec, issuer_ref=LocalRef(name="next"))
    version = str(int(known.metadata.resource_version or "1") + 1)
    metadata = replace(known.metadata, resource_version=version)
    status = replace(known.status, issuer_ref=LocalRef(name=name))
    world.profiles.put(replace(known, metadata=metadata, spec=spec, status=status))


async def test_the_ca_in_the_status_issues_until_the_operator_changes_it() -> None:
    async with running_server() as server:
        await server.register()
        install_next(server.world)
        put_in_force(server.world, "ca")
        first = await server.certificate(await server.finalize(await server.ready(NAME)))
        assert not certifies(NEXT.certificate, first)
        put_in_force(server.world, "next")
        second = await server.certificate(await server.finalize(await server.ready(NAME)))
        assert certifies(NEXT.certificate, second)
