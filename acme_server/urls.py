"""The only place that builds or parses a URL. The external URL comes from the configuration, never from a request.

Every URL has one spelling: names and identifiers consist of characters that need no escaping, so what does not match
exactly is not ours.
"""

from __future__ import annotations

import re
from typing import Literal

from msgspec import Struct

from kms.contract import ACME_PATH, KEY_ID, ca_certificate_url, directory_url, profile_url, revocation_list_url
from kms.resources import ACMEAccount, ACMEOrder

_NAMESPACE = r"[a-z0-9](?:[-a-z0-9]{0,61}[a-z0-9])?"
_PROFILE = r"[a-z0-9](?:[-.a-z0-9]{0,251}[a-z0-9])?"
_ACCOUNT = r"[a-z2-7]{52}"
_ORDER = r"[a-z2-7]{26,63}"
_POSITION = r"0|[1-9][0-9]{0,2}"
_CURSOR = r"[A-Za-z0-9_-]{1,1024}"
_AUTHORITY = _PROFILE

PROFILE = f"{ACME_PATH}/{{namespace:{_NAMESPACE}}}/{{profile:{_PROFILE}}}"
DIRECTORY = f"{PROFILE}/directory"
DIRECTORY_PAGE = f"{PROFILE}/"
NEW_NONCE = f"{PROFILE}/new-nonce"
NEW_ACCOUNT = f"{PROFILE}/new-account"
ACCOUNT = f"{PROFILE}/accounts/{{account:{_ACCOUNT}}}"
ORDERS = f"{ACCOUNT}/orders"
MORE_ORDERS = f"{ORDERS}/{{cursor:{_CURSOR}}}"
KEY_CHANGE = f"{PROFILE}/key-change"
NEW_ORDER = f"{PROFILE}/new-order"
NEW_AUTHORIZATION = f"{PROFILE}/new-authz"
REVOKE_CERT = f"{PROFILE}/revoke-cert"
ORDER = f"{PROFILE}/orders/{{order:{_ORDER}}}"
FINALIZE = f"{ORDER}/finalize"
CERTIFICATE = f"{ORDER}/certificate"
ALTERNATE = f"{CERTIFICATE}/{{chain:[1-9]}}"
AUTHORIZATION = f"{PROFILE}/authorizations/{{order:{_ORDER}}}-{{position:{_POSITION}}}"
CHALLENGE = f"{AUTHORIZATION}/challenges/{{type:[a-z0-9-]{{1,32}}}}"
RENEWAL_INFO = f"{PROFILE}/renewal-info/{{certificate:[^/]{{1,256}}}}"
"""The paths of the resources, as templates of the router: each profile has a prefix."""

REVOCATION_LIST = f"/crl/{{namespace:{_NAMESPACE}}}/{{authority:{_AUTHORITY}}}.crl"
CA_CERTIFICATE = f"/ca/{{namespace:{_NAMESPACE}}}/{{authority:{_AUTHORITY}}}.crt"
REVOCATION_LIST_OF_KEY = f"/crl/{{namespace:{_NAMESPACE}}}/{{authority:{_AUTHORITY}}}/{{key:{KEY_ID}}}.crl"
CERTIFICATE_OF_KEY = f"/ca/{{namespace:{_NAMESPACE}}}/{{authority:{_AUTHORITY}}}/{{key:{KEY_ID}}}.crt"
"""The URLs in certificates, those without a key in certificates of earlier releases.

A CA that is created with another key under the name of a deleted one must not answer for that.

They are served over HTTP too: clients that check a certificate cannot use TLS for that.
"""

_DIRECTORY_OF_PATH = re.compile(f"{ACME_PATH}/{_NAMESPACE}/{_PROFILE}/")


ProfileResource = Literal[
    "new-nonce", "new-account", "new-order", "new-authz", "revoke-cert", "key-change", "renewal-info"
]


class AccountLink(Struct, frozen=True):
    """The parts of an account's URL."""

    namespace: str
    profile: str
    account: str


class OrderURLs(Struct, frozen=True):
    """The URLs that the view of an order shows. The CSR goes to `finalize`.

    `authorizations` are all that the order relies on: those of earlier orders under the URLs they have there.
    """

    order: str
    authorizations: list[str]
    finalize: str
    certificate: str


class URLs:
    """Builds and parses URLs below `external_url`, which has no trailing slash.

    `http_url` is the URL of the same server without TLS; by default with the same host name.
    """

    def __init__(self, external_url: str, *, http_url: str | None = None) -> None:
        self.external_url = external_url
        self._http_url = http_url or external_url.replace("https:", "http:", 1)
        self._prefix = external_url + ACME_PATH
        self._account = re.compile(
            rf"{re.escape(self._prefix)}/({_NAMESPACE})/({_PROFILE})/accounts/({_ACCOUNT})", re.ASCII
        )

    def profile(self, namespace: str, profile: str) -> str:
        """What all URLs of a profile begin with."""
        return profile_url(self.external_url, namespace, profile)

    def directory(self, namespace: str, profile: str) -> str:
        """The directory of a profile."""
        return directory_url(self.external_url, namespace, profile)

    def resource(self, namespace: str, profile: str, name: ProfileResource) -> str:
        """A resource that each profile has once. Behind `renewal-info` comes the certificate (RFC 9773, 4.1)."""
        return f"{self.profile(namespace, profile)}/{name}"

    def revocation_list(self, namespace: str, authority: str, key_id: str | None = None) -> str:
        """The list of what the CertificateAuthority has revoked (see kms.contract)."""
        return revocation_list_url(self._http_url, namespace, authority, key_id)

    def ca_certificate(self, namespace: str, authority: str, key_id: str | None = None) -> str:
        """The certificate of the CertificateAuthority with that key (see kms.contract)."""
        return ca_certificate_url(self._http_url, namespace, authority, key_id)

    def account(self, account: ACMEAccount) -> str:
        """The account's URL: its `kid`."""
        meta = account.metadata
        return self._account_named(meta.namespace, account.spec.profile_ref.name, meta.name)

    def account_of(self, order: ACMEOrder) -> str:
        """The URL of the account that the order belongs to."""
        spec = order.spec
        return self._account_named(order.metadata.namespace, spec.profile_ref.name, spec.account_ref.name)

    def _account_named(self, namespace: str, profile: str, name: str) -> str:
        return f"{self._prefix}/{namespace}/{profile}/accounts/{name}"

    def orders(self, account: ACMEAccount) -> str:
        """The list of the account's orders."""
        return f"{self.account(account)}/orders"

    def more_orders(self, account: ACMEAccount, cursor: str) -> str:
        """Another page of that list. Its place is in the path: requests are signed for URLs without a query."""
        return f"{self.orders(account)}/{cursor}"

    def order(self, namespace: str, profile: str, name: str) -> str:
        """The URL of the order of that name."""
        return f"{self._prefix}/{namespace}/{profile}/orders/{name}"

    def of_order(self, order: ACMEOrder) -> OrderURLs:
        """The URLs that the view of the order shows."""
        meta, spec = order.metadata, order.spec
        profile = f"{self._prefix}/{meta.namespace}/{spec.profile_ref.name}"
        url, own = f"{profile}/orders/{meta.name}", f"{profile}/authorizations/{meta.name}"
        authorizations = [f"{own}-{position}" for position in range(len(spec.identifiers))]
        for each in spec.authorized:
            if each.order is not None:
                authorizations[each.authorization] = f"{profile}/authorizations/{each.order}-{each.position}"
        return OrderURLs(url, authorizations, f"{url}/finalize", f"{url}/certificate")

    def chain(self, order: ACMEOrder, number: int) -> str:
        """Where the chain of that number is, for the certificate of the order; number 0 is the default one."""
        certificate = self.of_order(order).certificate
        return f"{certificate}/{number}" if number else certificate

    def authorization(self, order: ACMEOrder, position: int) -> str:
        """The authorization for the identifier at `position` of the order."""
        meta = order.metadata
        return f"{self._prefix}/{meta.namespace}/{order.spec.profile_ref.name}/authorizations/{meta.name}-{position}"

    def challenge(self, order: ACMEOrder, position: int, type_: str) -> str:
        """The challenge of that type in the authorization."""
        return f"{self.authorization(order, position)}/challenges/{type_}"

    def of_request(self, path: str) -> str:
        """The URL that a request to `path` must be signed for, regardless of its Host header."""
        return self.external_url + path

    def directory_of(self, raw_path: str) -> str | None:
        """The directory that a path lies under, whether or not there is such a profile; None: under none."""
        match = _DIRECTORY_OF_PATH.match(raw_path)
        return f"{self.external_url}{match.group()}directory" if match else None

    def parse_account(self, url: str) -> AccountLink | None:
        """The parts of an account's URL; None if the server does not hand out such a URL."""
        match = self._account.fullmatch(url)
        return AccountLink(*match.groups()) if match else None
