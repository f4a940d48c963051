"""Types of parameters: names, addresses, networks, durations and URLs."""

from __future__ import annotations

import re
from datetime import timedelta
from ipaddress import ip_address, ip_network
from typing import Any
from urllib.parse import urlsplit

import click

from kms.address import Address, Network
from kms.resources.durations import parse_duration

_NAME = re.compile(r"[a-z0-9](?:[-a-z0-9.]*[a-z0-9])?")


def is_name(text: str) -> bool:
    """Whether the text can be the name of an object or a namespace."""
    return _NAME.fullmatch(text) is not None


class ObjectName(click.ParamType[tuple[str, str]]):
    """`NAMESPACE/NAME`, or `NAME` where the option --namespace (eager) of the command says in which namespace."""

    name = "namespace/name"

    def __init__(self, *, uses_namespace_option: bool = False) -> None:
        self._uses_namespace_option = uses_namespace_option

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[str, str]:
        """Parse the name. An invalid one ends the program with exit code 2."""
        namespace, separator, name = str(value).rpartition("/")
        if self._uses_namespace_option and not separator and ctx is not None:
            # While click parses, an absent option is neither a string nor None.
            stated = ctx.params.get("namespace")
            namespace = stated if isinstance(stated, str) else ""
        if not is_name(namespace) or not is_name(name):
            hint = ", or set --namespace" if self._uses_namespace_option else ""
            self.fail(f"{value!r} does not name an object; write NAMESPACE/NAME{hint}", param, ctx)
        return namespace, name


class LooseName(click.ParamType[tuple[str | None, str]]):
    """`NAMESPACE/NAME`, or `NAME`."""

    name = "[namespace/]name"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[str | None, str]:
        """Parse the name. An invalid one ends the program with exit code 2."""
        namespace, _, name = str(value).rpartition("/")
        if (namespace and not is_name(namespace)) or not is_name(name):
            self.fail(f"{value!r} does not name an object; write NAMESPACE/NAME, or NAME", param, ctx)
        return namespace or None, name


class NamespaceName(click.ParamType[str]):
    """`NAMESPACE`."""

    name = "namespace"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """Check the name. An invalid one ends the program with exit code 2."""
        if not is_name(str(value)):
            self.fail(f"{value!r} is not a namespace", param, ctx)
        return str(value)


def _parse_address(value: Any) -> Address | None:
    if isinstance(value, Address):
        return value
    host, separator, port = str(value).rpartition(":")
    if not separator or not port.isascii() or not port.isdigit() or int(port) > 65535:  # noqa: PLR2004 - ports
        return None
    return Address(host.removeprefix("[").removesuffix("]"), int(port))


class AddressType(click.ParamType[Address]):
    """`HOST:PORT`, `:PORT` for all interfaces, `[IPV6]:PORT`."""

    name = "[host]:port"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Address:
        """Parse the address. An invalid one ends the program with exit code 2."""
        address = _parse_address(value)
        if address is None:
            self.fail(f"{value!r} is not an address; write HOST:PORT, or :PORT for all interfaces", param, ctx)
        return address


class DNSServerType(click.ParamType[Address]):
    """`IP:PORT`: the name of a DNS server could not be looked up without a DNS server."""

    name = "ip:port"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Address:
        """Parse the address. An invalid one ends the program with exit code 2."""
        address = _parse_address(value)
        try:
            ip_address(address.host if address else "")
        except ValueError:
            address = None
        if address is None:
            self.fail(f"{value!r} is not the address of a DNS server; write IP:PORT, such as 10.0.0.53:53", param, ctx)
        return address


class NetworkType(click.ParamType[Network]):
    """A CIDR block."""

    name = "cidr"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Network:
        """Parse the block. An invalid one ends the program with exit code 2."""
        try:
            return ip_network(value)
        except ValueError as error:
            self.fail(f"{error}; write a CIDR block such as 10.0.0.0/8 or fd00::/8", param, ctx)


class DurationType(click.ParamType[str]):
    """A duration of Go and Kubernetes: `168h`, `1h30m`, `0s`."""

    name = "duration"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """Check the duration. An invalid one ends the program with exit code 2."""
        try:
            parse_duration(str(value))
        except ValueError as error:
            self.fail(str(error), param, ctx)
        return str(value)


class DaysType(click.ParamType[timedelta]):
    """A number of days (`14d`), or a duration of Go and Kubernetes (`36h`)."""

    name = "duration"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> timedelta:
        """Parse the duration. An invalid one ends the program with exit code 2."""
        text = str(value)
        try:
            if re.fullmatch("[0-9]{1,5}d", text):
                return timedelta(days=int(text[:-1]))
            return parse_duration(text)
        except ValueError:
            self.fail(f"{value!r} is not a duration; write 14d, 36h or 30m", param, ctx)


class ExternalURLType(click.ParamType[str]):
    """`https://host[:port]`: the base of all URLs that the server hands out."""

    name = "url"

    def __init__(self, scheme: str = "https") -> None:
        self._scheme = scheme

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """Check the URL. An invalid one ends the program with exit code 2."""
        url = str(value).rstrip("/")
        try:
            parts = urlsplit(url)
            well_formed = parts.scheme == self._scheme and parts.hostname and parts.port != 0
        except ValueError:
            well_formed = False
        scheme = self._scheme
        if not well_formed or url != f"{scheme}://{parts.netloc}" or "@" in parts.netloc:
            self.fail(f"{value!r} is not of the form {scheme}://HOST or {scheme}://HOST:PORT", param, ctx)
        return url.lower()
