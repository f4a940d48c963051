"""What the doctor looks at: objects, and the answers of the API server and of the directories."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from kms.resources.authorities import CertificateAuthority
from kms.resources.core import Lease, Secret
from kms.resources.credentials import EABCredential
from kms.resources.kinds import Kind
from kms.resources.meta import ObjectMeta, Struct
from kms.resources.policies import CertificatePolicy
from kms.resources.profiles import CertificateProfile


class Version(Struct, frozen=True, kw_only=True):
    """A version of a kind, and its schema."""

    name: str
    served: bool = False
    schema: dict[str, Any] = {}  # noqa: RUF012 - msgspec copies an empty default


class _DefinitionSpec(Struct, frozen=True, kw_only=True):
    versions: tuple[Version, ...] = ()


class Definition(Struct, frozen=True, kw_only=True):
    """A CustomResourceDefinition."""

    metadata: ObjectMeta
    spec: _DefinitionSpec = _DefinitionSpec()


DEFINITIONS = Kind(
    group="apiextensions.k8s.io",
    version="v1",
    kind="CustomResourceDefinition",
    plural="customresourcedefinitions",
    model=Definition,
    namespaced=False,
)


@dataclass(frozen=True, slots=True)
class Right:
    """A right that a program needs; `namespace` of "" is all namespaces."""

    program: str
    verb: str
    group: str
    resource: str
    namespace: str = ""

    def __str__(self) -> str:
        """`list secrets in namespace kms-acme`."""
        where = f" in namespace {self.namespace}" if self.namespace else ""
        return f"{self.verb} {self.resource}{f'.{self.group}' if self.group else ''}{where}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Snapshot:
    """The objects, by kind. What could not be read is in `unread`, in words.

    `wanted` are the kinds that this program knows, `definitions` those of the cluster. `leases` are by program; None:
    it does not exist. `serving_certificate` (PEM) is the server's own. `refused` are rights that a program lacks.
    `broken` are URLs that do not answer, with the error.
    """

    release: str
    authorities: tuple[CertificateAuthority, ...] = ()
    policies: tuple[CertificatePolicy, ...] = ()
    profiles: tuple[CertificateProfile, ...] = ()
    credentials: tuple[EABCredential, ...] = ()
    wanted: tuple[Definition, ...] = ()
    definitions: tuple[Definition, ...] = ()
    leases: Mapping[str, Lease | None] = field(default_factory=dict)
    secrets: tuple[Secret, ...] = ()
    serving_certificate: str | None = None
    refused: tuple[Right, ...] = ()
    broken: Mapping[str, str] = field(default_factory=dict)
    unreadable: tuple[str, ...] = ()
    unread: tuple[str, ...] = ()
