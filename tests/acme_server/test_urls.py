import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from acme_server.urls import AccountLink, URLs
from tests.support.accounts import account as some_account
from tests.support.acme import EXTERNAL_URL
from tests.support.acmeorders import order as some_order

URLS = URLs(EXTERNAL_URL)
ID = "a" * 52
URL = f"{EXTERNAL_URL}/acme/pki/web/accounts/{ID}"


def test_all_urls_of_a_profile_begin_alike() -> None:
    account = some_account(ID)
    order = some_order("a.example.com")
    prefix = URLS.profile("pki", "web")
    assert prefix == f"{EXTERNAL_URL}/acme/pki/web"
    order_url = f"{prefix}/orders/{order.metadata.name}"
    assert [
        URLS.directory("pki", "web"),
        URLS.resource("pki", "web", "new-nonce"),
        URLS.resource("pki", "web", "new-account"),
        URLS.resource("pki", "web", "new-order"),
        URLS.account(account),
        URLS.orders(account),
        URLS.order("pki", "web", order.metadata.name),
        *msgspec.structs.astuple(URLS.of_order(order)),
        URLS.authorization(order, 3),
        URLS.challenge(order, 3, "http-01"),
    ] == [
        f"{prefix}/directory",
        f"{prefix}/new-nonce",
        f"{prefix}/new-account",
        f"{prefix}/new-order",
        f"{prefix}/accounts/{account.metadata.name}",
        f"{prefix}/accounts/{account.metadata.name}/orders",
        order_url,
        order_url,
        [f"{prefix}/authorizations/{order.metadata.name}-0"],
        f"{order_url}/finalize",
        f"{order_url}/certificate",
        f"{prefix}/authorizations/{order.metadata.name}-3",
        f"{prefix}/authorizations/{order.metadata.name}-3/challenges/http-01",
    ]


@pytest.mark.requirement("M19")
def test_an_accounts_url_says_which_account_of_which_profile_it_is() -> None:
    assert URLS.parse_account(URL) == AccountLink("pki", "web", ID)


@pytest.mark.requirement("M19", "SEC05")
@pytest.mark.parametrize(
    "url",
    [
        "",
        URL + "/",
        URL + "a",
        URL[:-1],
        URL + "?x=1",
        URL + "#x",
        URL + "\n",
        " " + URL,
        URL + "/orders",
        URL.upper(),
        URL.replace("https", "http"),
        URL.replace("https", "HTTPS"),
        URL.replace("acme.example.com", "ACME.example.com"),
        URL.replace("acme.example.com", "acme.example.com:443"),
        URL.replace("acme.example.com", "acmeXexample.com"),
        URL.replace("acme.example.com", "user@acme.example.com"),
        URL.replace("acme.example.com", "evil.com/acme.example.com"),
        URL.replace("/pki/", "/../pki/"),
        URL.replace("/pki/", "//pki/"),
        URL.replace("/pki/", "/%70ki/"),
        URL.replace("a" * 52, "%61" + "a" * 51),
        URL.replace("a" * 52, "0" * 52),
        URL.replace("a" * 52, "é" * 52),
        URL.replace("/web/", "/we/b/"),
        f"/acme/pki/web/accounts/{ID}",
    ],
)
def test_every_other_spelling_is_not_ours(url: str) -> None:
    assert URLS.parse_account(url) is None


NAME = st.from_regex(r"[a-z0-9]([-a-z0-9]{0,20}[a-z0-9])?", fullmatch=True)


@given(
    NAME,
    st.from_regex(r"[a-z0-9]([-.a-z0-9]{0,40}[a-z0-9])?", fullmatch=True),
    st.from_regex(r"[a-z2-7]{52}", fullmatch=True),
)
def test_what_is_parsed_is_what_was_built(namespace: str, profile: str, account: str) -> None:
    url = f"{URLS.profile(namespace, profile)}/accounts/{account}"
    assert URLS.parse_account(url) == AccountLink(namespace, profile, account)


@pytest.mark.requirement("SEC05")
@given(st.text() | st.text(alphabet="htps:/acme.xlwbi2", max_size=90).map(lambda tail: EXTERNAL_URL + tail))
def test_what_is_parsed_can_be_built_again(url: str) -> None:
    link = URLS.parse_account(url)
    assert link is None or f"{URLS.profile(link.namespace, link.profile)}/accounts/{link.account}" == url


@pytest.mark.requirement("SEC15")
def test_the_url_that_is_asked_for_is_ours_whatever_host_was_asked() -> None:
    assert URLS.of_request("/acme/pki/web/new-order") == f"{EXTERNAL_URL}/acme/pki/web/new-order"


@pytest.mark.parametrize(
    ("path", "directory"),
    [
        ("/acme/pki/web/new-order", f"{EXTERNAL_URL}/acme/pki/web/directory"),
        ("/acme/pki/web/nothing/here", f"{EXTERNAL_URL}/acme/pki/web/directory"),
        ("/acme/pki/web", None),
        ("/healthz", None),
        ("/acme/PKI/web/x", None),
        ('/acme/pki/"><x/y', None),
    ],
)
def test_a_path_under_a_profile_belongs_to_its_directory(path: str, directory: str | None) -> None:
    assert URLS.directory_of(path) == directory


def test_what_certificates_point_to_is_reached_by_http() -> None:
    assert URLS.revocation_list("pki", "issuing") == "http://acme.example.com/crl/pki/issuing.crl"
    assert URLS.ca_certificate("pki", "issuing") == "http://acme.example.com/ca/pki/issuing.crt"
    assert URLS.revocation_list("pki", "issuing", "ab12") == "http://acme.example.com/crl/pki/issuing/ab12.crl"
    assert URLS.ca_certificate("pki", "issuing", "ab12") == "http://acme.example.com/ca/pki/issuing/ab12.crt"
    for unusual in ("ab" * 65, ""):
        assert URLS.revocation_list("pki", "issuing", unusual) == "http://acme.example.com/crl/pki/issuing.crl"
    elsewhere = URLs(EXTERNAL_URL, http_url="http://crl.example.com:8080")
    assert elsewhere.revocation_list("pki", "issuing") == "http://crl.example.com:8080/crl/pki/issuing.crl"
