"""An Ingress controller for tests: Caddy, configured from the Ingresses of one class.

    with serving(cluster, class_name="web", host=cluster.machine_address, port=80, folder=tmp_path): ...

It supports what http-01 needs: hosts, paths (the longest match wins), and a redirect to HTTPS for an Ingress with TLS,
which it does not serve itself.
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
"""Seconds between two reads of the Ingresses; Caddy reads its configuration once a second."""

Object = Mapping[str, Any]


class IngressFailed(Exception):
    """Caddy did not start; the text has the end of its log."""


@contextmanager
def serving(cluster: Cluster, *, class_name: str, host: str, port: int, folder: Path) -> Iterator[None]:
    """Serve for the duration of the block, with all files in the existing `folder`.

    Tests are skipped if the program is not available (see e2e.support.tools).

    Raises:
        IngressFailed: Caddy does not start.
        CommandFailed: at the end, if reading the Ingresses failed.
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
                raise IngressFailed(f"Caddy does not start. The end of its log:\n{last_lines(log)}")
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
    """Caddy's routes for the Ingresses of a class; `objects` has the Ingresses and their Services."""
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
    """The route of a path. Unless its type is Exact, the path is a prefix."""
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
