import pytest

from kms.contract import default_http_url


@pytest.mark.parametrize(
    ("external_url", "http_url"),
    [
        ("https://acme.example.com", "http://acme.example.com"),
        ("https://acme.example.com:8443", "http://acme.example.com:8080"),
        ("https://localhost:14000", "http://localhost:8080"),
        ("https://10.0.0.1", "http://10.0.0.1"),
        ("https://[fd00::1]", "http://[fd00::1]"),
        ("https://[fd00::1]:8443", "http://[fd00::1]:8080"),
    ],
)
def test_without_tls_the_server_is_reached_on_the_same_host(external_url: str, http_url: str) -> None:
    assert default_http_url(external_url, 8080) == http_url
