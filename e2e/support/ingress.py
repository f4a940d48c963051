"""An Ingress controller for tests: Caddy, told what the Ingresses of one class say, in front of the Services they name.

    with serving(cluster, class_name="web", host=cluster.machine_address, port=80, folder=tmp_path): ...

It does what HTTP-01 needs of one: hosts and paths, of which the longest counts, and a redirection to HTTPS where an
Ingress has TLS, though nobody serves that here.
"""

from __future__ import annotations

import json
import socket
import threading
import time
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from e2e.cluster import Cluster, Process
from e2e.cluster.processes import Deadline, last_lines
from e2e.support.tools import CADDY, required

_START_LIMIT = 20.0
_STOP_LIMIT = 10.0
_LOOK = 0.5
"""Seconds between two looks at the Ingresses; Caddy looks at its configuration once a second."""

Object = Mapping[str, Any]


class IngressFailed(Exception):
    """Caddy did not come up; the text carries the end of its log."""


@contextmanager
def serving(cluster: Cluster, *, class_name: str, host: str, port: int, folder: Path) -> Iterator[None]:
    """Serve until the end of the block; all files are in `folder`, which exists.

    A test that cannot have the program is skipped (see e2e.support.tools).

    Raises:
        IngressFailed: it does not come up.
        CommandFailed: at the end, if the Ingresses could not be read meanwhile.
    """
    program, log, file = required(CADDY), folder / "log", folder / "caddy.json"
    home = {"HOME": str(folder), "XDG_DATA_HOME": str(folder), "XDG_CONFIG_HOME": str(folder)}
    ended = threading.Event()

    def tell(objects: Iterable[Object]) -> None:
        draft = file.with_suffix(".draft")
        draft.write_text(json.dumps(_configuration(routes(objects, class_name), f"{host}:{port}")), encoding="utf-8")
        draft.replace(file)

    def follow() -> None:
        while not ended.wait(_LOOK):
            printed = cluster.kubectl("get", "ingresses,services", "--all-namespaces", "--output=json")
            tell(json.loads(printed)["items"])

    tell(())
    process = Process.start((program, "run", "--watch", "--config", file), log=log, env=home)
    try:
        deadline = Deadline(_START_LIMIT)
        while not _listens(host, port):
            if not deadline or not process.running():
                raise IngressFailed(f"Caddy does not come up. The end of its log:\n{last_lines(log)}")
            time.sleep(_LOOK / 10)
        with ThreadPoolExecutor(1) as pool:
            following = pool.submit(follow)
            try:
                yield
            finally:
                ended.set()
        following.result()
    finally:
        process.stop(_STOP_LIMIT)


def routes(objects: Iterable[Object], class_name: str) -> list[dict[str, Any]]:
    """Caddy's routes for the Ingresses of a class among `objects`, where there are their Services, too."""
    objects = list(objects)
    services = {
        (each["metadata"]["namespace"], each["metadata"]["name"]): each["spec"]["clusterIP"]
        for each in objects
        if each["kind"] == "Service"
    }
    found = [
        (path["path"], _route(rule.get("host", ""), path, ingress, services))
        for ingress in objects
        if ingress["kind"] == "Ingress" and ingress["spec"].get("ingressClassName") == class_name
        for rule in ingress["spec"].get("rules", ())
        for path in rule["http"]["paths"]
    ]
    return [route for _, route in sorted(found, key=lambda each: -len(each[0]))]


def _route(host: str, path: Object, ingress: Object, services: Mapping[tuple[str, str], str]) -> dict[str, Any]:
    """Without a path type that says otherwise, what is below a path belongs to it."""
    prefix = path["path"].rstrip("/")
    paths = [path["path"]] if path["pathType"] == "Exact" else [path["path"], f"{prefix}/*"]
    match = {"path": paths, **({"host": [host]} if host else {})}
    return {"match": [match], "handle": [_handler(host, path, ingress, services)], "terminal": True}


def _handler(host: str, path: Object, ingress: Object, services: Mapping[tuple[str, str], str]) -> dict[str, Any]:
    if any(host in section.get("hosts", ()) for section in ingress["spec"].get("tls", ())):
        location = {"Location": ["https://{http.request.host}{http.request.uri}"]}
        return {"handler": "static_response", "status_code": 308, "headers": location}
    service = path["backend"]["service"]
    address = services.get((ingress["metadata"]["namespace"], service["name"]))
    if address is None:
        return {"handler": "static_response", "status_code": 503}
    return {"handler": "reverse_proxy", "upstreams": [{"dial": f"{address}:{service['port']['number']}"}]}


def _configuration(told: list[dict[str, Any]], address: str) -> dict[str, Any]:
    server = {"listen": [address], "automatic_https": {"disable": True}, "routes": told}
    return {"admin": {"disabled": True}, "apps": {"http": {"servers": {"ingress": server}}}}


def _listens(host: str, port: int) -> bool:
    try:
        socket.create_connection((host, port), timeout=1).close()
    except OSError:
        return False
    return True
