"""The built-in kinds that we use: Secrets, ConfigMaps, Namespaces, Leases and EndpointSlices."""

from __future__ import annotations

from kms.resources.meta import ObjectMeta, Struct


class Secret(Struct, frozen=True, kw_only=True):
    """v1 Secret; `data` is decoded from base64 on the way in and encoded on the way out."""

    metadata: ObjectMeta
    type: str = "Opaque"
    data: dict[str, bytes] = {}  # noqa: RUF012 - msgspec copies an empty default

    def __repr__(self) -> str:
        """Name the Secret and its keys, never their values."""
        return f"Secret({self.metadata.namespace}/{self.metadata.name}, keys={sorted(self.data)})"

    def text(self, key: str) -> str | None:
        """The value of `key` as UTF-8 text; None if it is absent or not text."""
        try:
            return self.data[key].decode()
        except (KeyError, UnicodeDecodeError):
            return None


class ConfigMap(Struct, frozen=True, kw_only=True):
    """v1 ConfigMap: holds trust anchors."""

    metadata: ObjectMeta
    data: dict[str, str] = {}  # noqa: RUF012 - msgspec copies an empty default


class Namespace(Struct, frozen=True, kw_only=True):
    """v1 Namespace: its labels decide where EABCredentials may live, and where roots are published."""

    metadata: ObjectMeta


class LeaseSpec(Struct, frozen=True, kw_only=True):
    """The holder of the Lease. Times are MicroTimes: the API server accepts exactly six digits of a second."""

    holder_identity: str = ""
    lease_duration_seconds: int | None = None
    acquire_time: str | None = None
    renew_time: str | None = None
    lease_transitions: int | None = None


class Lease(Struct, frozen=True, kw_only=True):
    """coordination.k8s.io/v1 Lease: elects one of several replicas."""

    metadata: ObjectMeta
    spec: LeaseSpec = LeaseSpec()


class EndpointConditions(Struct, frozen=True, kw_only=True):
    """Whether an endpoint accepts traffic."""

    ready: bool | None = None


class Endpoint(Struct, frozen=True, kw_only=True):
    """One backend of a Service."""

    addresses: tuple[str, ...] = ()
    conditions: EndpointConditions = EndpointConditions()


class EndpointPort(Struct, frozen=True, kw_only=True):
    """A named port of all endpoints of a slice."""

    name: str | None = None
    port: int | None = None


class EndpointSlice(Struct, frozen=True, kw_only=True):
    """discovery.k8s.io/v1 EndpointSlice: the addresses of the replicas. The API server writes empty lists as null."""

    metadata: ObjectMeta
    endpoints: tuple[Endpoint, ...] | None = ()
    ports: tuple[EndpointPort, ...] | None = ()
