"""The page of a directory: what the CA is for, how to enroll with each client, and what to trust. Pure.

It tells what the directory, its certificates and their URLs tell every client.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from cryptography import x509
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding

from acme_server.api import markup
from acme_server.model import Profile
from acme_server.urls import URLs
from kms.enrollment_guide import Enrollment, Guide, guides
from kms.pki.parsing import PARSER_ERRORS
from kms.resources.orders import ChallengeType

_CHALLENGES: Mapping[ChallengeType, str] = {
    "http-01": "a file on port 80 of the host",
    "dns-01": "a TXT record",
    "tls-alpn-01": "a TLS handshake on port 443 of the host",
}
_ACCOUNTS: Mapping[str, str] = {
    "Required": "only with a credential for external account binding (a key identifier and a secret)",
    "Optional": "with or without a credential for external account binding",
    "Disabled": "without a credential",
}


_DORMANT = "<p><strong>This profile is not ready: it issues nothing at the moment.</strong></p>\n"


@dataclass(frozen=True, slots=True)
class PageFacts:
    """What the page of a profile shows.

    `offered` are the order profiles with their descriptions, `challenges` those that can be validated here.
    `serving_authority` is the CA of the server's own certificate (PEM); None: it is not from this installation.
    """

    profile: Profile
    offered: Mapping[str, str]
    challenges: tuple[ChallengeType, ...]
    serving_authority: str | None
    urls: URLs


def profile_page(facts: PageFacts) -> str:
    """The page, as HTML."""
    profile, urls = facts.profile, facts.urls
    name = f"{profile.namespace}/{profile.name}"
    directory = urls.directory(profile.namespace, profile.name)
    enrollment = Enrollment(
        profile=name,
        directory_url=directory,
        authority=facts.serving_authority,
        challenges=facts.challenges,
        binding=profile.acme.external_account_binding,
        duration=profile.duration,
    )
    return markup.page(
        f"Certificates from {name}",
        _description(profile.resource.spec.description),
        "<p><strong>This profile is not ready: it issues nothing at the moment.</strong></p>\n"
        if profile.dormant
        else "",
        markup.section("Directory", "<p>Give your ACME client this URL:</p>\n", markup.code(directory), _about(facts)),
        markup.section("Enroll", _introduction(facts), *map(_guide, guides(enrollment))),
        _authorities(facts),
    )


def _description(words: str) -> str:
    return f"<p>{markup.text(words)}</p>\n" if words else ""


def _about(facts: PageFacts) -> str:
    acme = facts.profile.acme
    challenges = "; ".join(f"{each} ({_CHALLENGES[each]})" for each in facts.challenges) or "none"
    pairs = [
        ("Accounts", markup.text(_ACCOUNTS[acme.external_account_binding])),
        ("Challenges that prove a name", markup.text(challenges)),
    ]
    if acme.website:
        pairs.append(("Website", markup.link(acme.website)))
    if acme.terms_of_service:
        pairs.append(("Terms of service", markup.link(acme.terms_of_service)))
    if acme.caa_identities:
        pairs.append(("Domain names for CAA records", markup.text(", ".join(acme.caa_identities))))
    pairs += [(f"Profile {name}", markup.text(about or "no description")) for name, about in facts.offered.items()]
    return markup.definitions(pairs)


def _introduction(facts: PageFacts) -> str:
    credential = ""
    if facts.profile.acme.external_account_binding == "Required":
        credential = (
            " The key identifier and the secret are in the Secret of your EABCredential; ask the people who run this"
            " profile for one."
        )
    return f"<p>Choose your client, and replace www.example.com and the address by yours.{credential}</p>\n"


def _guide(guide: Guide) -> str:
    parts = []
    for step in guide.steps:
        file = f" File: <code>{markup.text(step.file)}</code>" if step.file else ""
        parts.append(f"<p>{markup.text(step.text)}{file}</p>\n{markup.code(step.content)}\n")
    return markup.folded(guide.title, *parts)


def _authorities(facts: PageFacts) -> str:
    authority, urls = facts.profile.authority, facts.urls
    namespace, name = authority.metadata.namespace, authority.metadata.name
    status = authority.status
    parts = [_certificate(each) for each in _parsed(status.chain or status.certificate or "")]
    if not parts:
        return ""
    key = status.subject_key_id
    parts.append(
        markup.definitions(
            (
                ("Certificate of the issuing CA (DER)", markup.link(urls.ca_certificate(namespace, name, key))),
                ("Revocation list", markup.link(urls.revocation_list(namespace, name, key))),
            )
        )
    )
    return markup.section(
        "CA", "<p>Certificates are issued by the first of these. Programs trust the last one.</p>\n", *parts
    )


def _parsed(chain: str) -> Iterable[x509.Certificate]:
    try:
        return x509.load_pem_x509_certificates(chain.encode()) if chain else ()
    except PARSER_ERRORS:
        return ()


def _certificate(certificate: x509.Certificate) -> str:
    subject = certificate.subject.rfc4514_string() or "CA without a name"
    fingerprint = certificate.fingerprint(SHA256()).hex(":").upper()
    return markup.folded(
        subject,
        markup.definitions(
            (
                ("Valid until", f"{certificate.not_valid_after_utc:%Y-%m-%d %H:%M} UTC"),
                ("SHA-256 fingerprint", f"<code>{fingerprint}</code>"),
            )
        ),
        markup.code(certificate.public_bytes(Encoding.PEM).decode()),
    )
