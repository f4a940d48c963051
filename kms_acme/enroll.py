"""Reads what a client needs to enroll with a profile, as far as the person may read it."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from typing import TypeVar

from kms.cluster import errors
from kms.cluster.client import Cluster
from kms.enrollment_guide import Credential, Enrollment
from kms.resources.core import Secret
from kms.resources.credentials import EABCredential
from kms.resources.durations import parse_duration
from kms.resources.kinds import CREDENTIALS, PROFILES, SECRETS, Kind
from kms.resources.meta import Key, Resource
from kms.resources.profiles import AcmeEnrollment, CertificateProfile
from kms.resources.secret_names import CA_CERTIFICATE, DIRECTORY_URL, EAB_SECRET, KEY_ID, directory_secret_name
from kms_acme.missing import find_missing

T = TypeVar("T", bound=Resource)


class NotKnown(Exception):
    """A fact that clients need is not known; the message says which object lacks it, or may not be read."""


@dataclass(frozen=True, slots=True)
class Facts:
    """What clients need, and what is missing, in words."""

    enrollment: Enrollment
    missing: tuple[str, ...] = ()


async def read_facts(cluster: Cluster, profile: Key, credential: Key | None, *, reveal: bool) -> Facts:
    """The facts of a profile, with the HMAC key of the credential if it is to be revealed.

    What the person may not read is left out or taken from the Secret of the credential, which has the directory URL and
    the CA, too. Raises NotKnown, and ClusterError.
    """
    name = "/".join(profile)
    resource = await _if_readable(cluster, PROFILES, profile)
    acme = _acme(resource, name)
    bound = await _credential(cluster, profile, credential)
    secrets = [(profile[0], directory_secret_name(profile[1]))]
    if bound is not None:
        secrets.insert(0, (bound.metadata.namespace, bound.secret_name))
    found = [secret for key in secrets if (secret := await _if_readable(cluster, SECRETS, key)) is not None]
    url = resource.status.directory_url if resource is not None else None
    url = url or next((text for each in found if (text := each.text(DIRECTORY_URL))), None)
    if url is None:
        if resource is None and (problem := await find_missing(cluster, PROFILES, profile)) is not None:
            raise NotKnown(problem)
        raise NotKnown(f"the directory URL of profile {name} is not known: it is not Ready, or may not be read")
    missing = (
        () if found else (f"the CA of the server, because no Secret may be read: {', '.join(map('/'.join, secrets))}",)
    )
    return Facts(
        Enrollment(
            profile=name,
            directory_url=url,
            authority=next((text for each in found if (text := each.text(CA_CERTIFICATE))), None),
            challenges=acme.challenges,
            binding=acme.external_account_binding,
            credential=_key(bound, found, reveal=reveal) if bound is not None else None,
            duration=_duration(resource),
        ),
        missing,
    )


def _acme(resource: CertificateProfile | None, name: str) -> AcmeEnrollment:
    if resource is None:  # not readable: all that a profile may offer
        return AcmeEnrollment(challenges=("http-01", "tls-alpn-01", "dns-01"))
    if resource.spec.enrollment.acme is None:
        raise NotKnown(f"profile {name} has no enrollment.acme")
    return resource.spec.enrollment.acme


def _duration(resource: CertificateProfile | None) -> timedelta:
    return parse_duration(resource.spec.certificate.duration) if resource is not None else timedelta(days=30)


async def _credential(cluster: Cluster, profile: Key, key: Key | None) -> EABCredential | None:
    if key is None:
        return None
    name = "/".join(key)
    try:
        found = await cluster.get(CREDENTIALS, *key)
    except errors.NotFound:
        raise NotKnown(await find_missing(cluster, CREDENTIALS, key) or f"there is no EABCredential {name}") from None
    if found.profile_key != profile:
        raise NotKnown(f"EABCredential {name} is for profile {'/'.join(found.profile_key)}")
    if found.status.key_id is None:
        raise NotKnown(f"EABCredential {name} is not Ready: it has no key identifier yet")
    return found


def _key(credential: EABCredential, secrets: list[Secret], *, reveal: bool) -> Credential:
    home, name = credential.metadata.namespace, credential.secret_name
    known = Credential(home, name, credential.status.key_id or "")
    if not reveal:
        return known
    own = (each for each in secrets if (each.metadata.namespace, each.metadata.name) == (home, name))
    for each in own:
        if each.text(KEY_ID) == known.key_id and (key := each.text(EAB_SECRET)) is not None:
            return Credential(home, name, known.key_id, key)
    raise NotKnown(f"the Secret {home}/{name} cannot be read, or does not have the key {known.key_id}")


async def _if_readable(cluster: Cluster, kind: Kind[T], key: Key) -> T | None:
    """The object; None if it does not exist or may not be read."""
    try:
        return await cluster.get(kind, *key)
    except (errors.NotFound, errors.Forbidden):
        return None
