"""Keeps the pages for people: making one takes milliseconds, and strangers ask for them."""

from __future__ import annotations

from collections import OrderedDict
from datetime import datetime, timedelta

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from acme_server.api import markup
from acme_server.api.profile_page import PageFacts, profile_page
from acme_server.certificates.serving_authority import ServingAuthority
from acme_server.model import Profile
from acme_server.problems import NotFound, Unavailable
from acme_server.profiles import Profiles
from acme_server.urls import URLs
from acme_server.validation.worker import Worker
from kms.clock import Clock

_SOFTWARE = """<p>This is an ACME server (<a href="https://www.rfc-editor.org/rfc/rfc8555">RFC 8555</a>).
It is for programs: certbot, lego, Caddy, cert-manager and others get certificates from it.</p>
"""


class Pages:
    """The pages of directories, of which the last `kept` are kept, and that of the server.

    With `list_profiles`, the latter lists up to `listed` profiles; the list is at most `age` old.
    """

    def __init__(
        self,
        *,
        profiles: Profiles,
        serving_authority: ServingAuthority,
        worker: Worker,
        urls: URLs,
        clock: Clock,
        list_profiles: bool = False,
        kept: int = 64,
        listed: int = 200,
        age: timedelta = timedelta(seconds=10),
    ) -> None:
        self._profiles = profiles
        self._serving_authority = serving_authority
        self._worker = worker
        self._urls = urls
        self._clock = clock
        self._list_profiles = list_profiles
        self._kept = kept
        self._listed = listed
        self._age = age
        self._pages: OrderedDict[tuple[str, str], tuple[object, bytes]] = OrderedDict()
        self._landing: tuple[datetime, bytes] | None = None

    def of_profile(self, profile: Profile) -> bytes:
        """The page of the profile's directory."""
        der, offered = self._serving_certificate(), self._profiles.order_profiles(profile)
        current = profile.resource.metadata, profile.authority.metadata, der, tuple(offered.items())
        known = self._pages.pop(profile.key, None)
        if known is None or known[0] != current:
            facts = PageFacts(
                profile=profile,
                offered=offered,
                challenges=tuple(each for each in profile.acme.challenges if self._worker.validates(each)),
                serving_authority=_pem(der) if der is not None else None,
                urls=self._urls,
            )
            known = current, profile_page(facts).encode()
        self._pages[profile.key] = known
        if len(self._pages) > self._kept:
            self._pages.popitem(last=False)
        return known[1]

    def landing(self) -> bytes:
        """The page of the server."""
        now = self._clock()
        if self._landing is None or now - self._landing[0] >= self._age:
            self._landing = now, self._make_landing().encode()
        return self._landing[1]

    def _make_landing(self) -> str:
        if not self._list_profiles:
            directory = markup.text(self._urls.directory("<namespace>", "<profile>"))
            where = (
                "<p>Each certificate profile has a directory of its own. Give your client the URL"
                f" <code>{directory}</code>, with the namespace and the name of the profile that you want to use. It is"
                " in the <code>directory-url</code> of the Secret that your credentials are in.</p>\n"
            )
            return markup.page("kms-acme", _SOFTWARE, where)
        found, more = self._profiles.ready(most=self._listed)
        rest = f"<p>There are {more} more.</p>\n" if more else ""
        return markup.page(
            "kms-acme",
            _SOFTWARE,
            markup.section("Profiles", markup.definitions(map(self._entry, found)), rest),
        )

    def _entry(self, profile: Profile) -> tuple[str, str]:
        url = self._urls.directory(*profile.key)
        about = profile.resource.spec.description
        return "/".join(profile.key), f"{markup.link(url)}{'<br>' if about else ''}{markup.text(about)}"

    def _serving_certificate(self) -> bytes | None:
        try:
            return self._serving_authority.certificate().der
        except (NotFound, Unavailable):
            return None


def _pem(der: bytes) -> str:
    return x509.load_der_x509_certificate(der).public_bytes(Encoding.PEM).decode()
