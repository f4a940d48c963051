"""What the Ingress controller of the tests tells Caddy."""

from __future__ import annotations

from typing import Any

from e2e.support import ingress

SOLVER = "/.well-known/acme-challenge/a-token"


def service(name: str, address: str) -> dict[str, Any]:
    return {"kind": "Service", "metadata": {"namespace": "web", "name": name}, "spec": {"clusterIP": address}}


def of_class(class_name: str, host: str, path: str, service_name: str, *, tls: bool = False) -> dict[str, Any]:
    backend = {"service": {"name": service_name, "port": {"number": 8089}}}
    paths = [{"path": path, "pathType": "Prefix", "backend": backend}]
    spec = {"ingressClassName": class_name, "rules": [{"host": host, "http": {"paths": paths}}]}
    return {
        "kind": "Ingress",
        "metadata": {"namespace": "web", "name": service_name},
        "spec": {**spec, **({"tls": [{"hosts": [host]}]} if tls else {})},
    }


def test_a_longer_path_counts_before_a_shorter_one() -> None:
    objects = [
        of_class("ours", "shop.test", "/", "shop"),
        of_class("ours", "shop.test", SOLVER, "solver"),
        service("shop", "10.0.0.1"),
        service("solver", "10.0.0.2"),
    ]
    solver, shop = ingress.routes(objects, "ours")
    assert solver["match"] == [{"path": [SOLVER, f"{SOLVER}/*"], "host": ["shop.test"]}]
    assert solver["handle"] == [{"handler": "reverse_proxy", "upstreams": [{"dial": "10.0.0.2:8089"}]}]
    assert shop["match"] == [{"path": ["/", "/*"], "host": ["shop.test"]}]


def test_ingresses_of_another_class_are_left_to_others() -> None:
    assert ingress.routes([of_class("theirs", "shop.test", "/", "shop"), service("shop", "10.0.0.1")], "ours") == []


def test_where_an_ingress_has_tls_its_host_is_redirected() -> None:
    (route,) = ingress.routes([of_class("ours", "shop.test", "/", "shop", tls=True)], "ours")
    (handler,) = route["handle"]
    assert handler["status_code"] == 308
    assert handler["headers"] == {"Location": ["https://{http.request.host}{http.request.uri}"]}


def test_a_path_without_its_service_is_unavailable() -> None:
    (route,) = ingress.routes([of_class("ours", "shop.test", "/", "shop")], "ours")
    assert route["handle"] == [{"handler": "static_response", "status_code": 503}]
