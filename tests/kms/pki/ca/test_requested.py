"""Requests of CAs, and what a CA elsewhere may answer: each mistake alone, and together."""

from __future__ import annotations

import base64
import ipaddress
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from datetime import timedelta
from types import MappingProxyType

import pytest
from cryptography import x509
from hypothesis import given
from hypothesis import strategies as st

from kms.pki.ca import (
    Asked,
    InvalidAuthority,
    NameConstraints,
    certificate_request,
    check_answer,
    check_imported,
    check_installed,
    is_request_for,
    read_answer,
    renewal_due,
    request_key,
)
from kms.pki.keys import private_key_pem, public_key_der
from tests.support import pki, requests
from tests.support.csrs import BITS, BOOLEAN, INTEGER, OCTETS, PRINTABLE, SEQUENCE, UTF8, subject, tlv
from tests.support.foreign_ca import ECDSA_SHA1, ISSUING, NAME_CONSTRAINTS, ROOT, Contents, authority, ec_key, pem
from tests.support.pki import DAY, NOW

OURS = "Example Issuing CA"
NETWORK, EXCLUDED_NETWORK = ipaddress.ip_network("10.0.0.0/8"), ipaddress.ip_network("10.66.0.0/16")
ASKED = Asked(
    common_name=OURS,
    path_length=0,
    constraints=NameConstraints(("example.com",), (NETWORK,), ("secret.example.com",), (EXCLUDED_NETWORK,)),
)
PUBLIC_KEY = ec_key(OURS).public_key()


def limits(permitted: tuple[object, ...], excluded: tuple[object, ...]) -> bytes:
    """The value of nameConstraints for domains and networks."""

    def names(values: tuple[object, ...]) -> list[x509.GeneralName] | None:
        return [
            x509.DNSName(each) if isinstance(each, str) else x509.IPAddress(each)  # type: ignore[arg-type]
            for each in values
        ] or None

    return x509.NameConstraints(names(permitted), names(excluded)).public_bytes()


AS_ASKED = limits(("example.com", NETWORK), ("secret.example.com", EXCLUDED_NETWORK))


@dataclass(frozen=True)
class Ceremony:
    """What comes out of a ceremony: the CA's certificate, that of a policy CA above it, and the root's."""

    own: Contents
    policy: Contents
    root: Contents
    own_key: str = ISSUING
    policy_key: str = ROOT
    root_key: str = ROOT
    order: tuple[int, ...] = (0, 1, 2)

    @property
    def answer(self) -> str:
        """The certificates in PEM."""
        made = (
            self.own.signed(ec_key(self.own_key)),
            self.policy.signed(ec_key(self.policy_key)),
            self.root.signed(ec_key(self.root_key)),
            authority("Evil", "Evil").signed(ec_key("Evil")),
        )
        return b"".join(pem(made[each]) for each in self.order).decode()


HONEST = Ceremony(
    own=authority(OURS, ISSUING, path_length=0).with_extension(NAME_CONSTRAINTS, AS_ASKED, critical=True),
    policy=authority(ISSUING, ROOT),
    root=authority(ROOT, ROOT),
)
Change = Callable[[Ceremony], Ceremony]


def own(change: Callable[[Contents], Contents]) -> Change:
    return lambda made: replace(made, own=change(made.own))


def policy(change: Callable[[Contents], Contents]) -> Change:
    return lambda made: replace(made, policy=change(made.policy))


def basic(length: int | None) -> bytes:
    return tlv(SEQUENCE, tlv(BOOLEAN, b"\xff"), b"" if length is None else tlv(INTEGER, bytes([length])))


def constrained(value: bytes) -> Change:
    return own(lambda ca: ca.with_extension(NAME_CONSTRAINTS, value, critical=True))


def usage(bits: bytes) -> Callable[[Contents], Contents]:
    return lambda ca: ca.with_extension(requests.KEY_USAGE, tlv(BITS, bits), critical=True)


WRONG: Mapping[str, tuple[Change, str]] = MappingProxyType(
    {
        "another key": (
            own(lambda ca: replace(ca, public_key=public_key_der(ec_key("another").public_key()))),
            "KeyMismatch",
        ),
        "the CA's certificate last": (lambda made: replace(made, order=(1, 2, 0)), "KeyMismatch"),
        "the chain without the CA": (lambda made: replace(made, order=(1, 2)), "KeyMismatch"),
        "another name": (own(lambda ca: ca.with_subject((requests.COMMON_NAME, UTF8, b"Other"))), "SubjectMismatch"),
        "a name with an organization more": (
            own(
                lambda ca: ca.with_subject(
                    (requests.ORGANIZATION, UTF8, b"Evil"), (requests.COMMON_NAME, UTF8, OURS.encode())
                )
            ),
            "SubjectMismatch",
        ),
        "no subject": (own(lambda ca: ca.with_subject()), "SubjectMismatch"),
        "an end entity": (own(lambda ca: ca.with_extension(requests.BASIC, tlv(SEQUENCE))), "NotACertificateAuthority"),
        "no basicConstraints": (own(lambda ca: ca.without_extension(requests.BASIC)), "NotACertificateAuthority"),
        "no keyCertSign": (own(usage(b"\x01\x02")), "NotACertificateAuthority"),
        "an issuer that is no CA": (
            policy(lambda ca: ca.with_extension(requests.BASIC, tlv(SEQUENCE))),
            "NotACertificateAuthority",
        ),
        "an issuer without keyCertSign": (policy(usage(b"\x01\x02")), "NotACertificateAuthority"),
        "an end that is over": (own(lambda ca: replace(ca, not_after=NOW)), "Expired"),
        "an issuer that has ended": (policy(lambda ca: replace(ca, not_after=NOW)), "Expired"),
        "a root that has ended": (
            lambda made: replace(made, root=replace(made.root, not_after=NOW)),
            "Expired",
        ),
        "a beginning in the future": (own(lambda ca: replace(ca, not_before=NOW + timedelta(hours=1))), "NotYetValid"),
        "another issuer's signature": (lambda made: replace(made, own_key="another"), "ChainBroken"),
        "another root of the same name": (
            lambda made: replace(made, root=authority(ROOT, ROOT, which="evil"), root_key="evil"),
            "ChainBroken",
        ),
        "a missing issuer": (lambda made: replace(made, order=(0, 2)), "ChainBroken"),
        "the wrong order above": (lambda made: replace(made, order=(0, 2, 1)), "ChainBroken"),
        "a root behind the root": (lambda made: replace(made, order=(0, 1, 2, 3)), "ChainBroken"),
        "a root that has certified nothing": (lambda made: replace(made, order=(0, 3)), "ChainBroken"),
        "the CA twice": (lambda made: replace(made, order=(0, 0, 1, 2)), "ChainBroken"),
        "more certificates than clients take": (lambda made: replace(made, order=(0, 1, 2, 2, 2)), "ChainBroken"),
        "a signature with SHA-1": (
            own(lambda ca: replace(ca, algorithm=ECDSA_SHA1, hash="sha1")),
            "WeakSignature",
        ),
        "an issuer signed with SHA-1": (
            policy(lambda ca: replace(ca, algorithm=ECDSA_SHA1, hash="sha1")),
            "WeakSignature",
        ),
        "SHA-1 without those above": (
            lambda made: replace(made, own=replace(made.own, algorithm=ECDSA_SHA1, hash="sha1"), order=(0,)),
            "WeakSignature",
        ),
        "a path length that leaves no room": (
            policy(lambda ca: ca.with_extension(requests.BASIC, basic(0), critical=True)),
            "PathLengthExceeded",
        ),
        "a greater path length": (
            own(lambda ca: ca.with_extension(requests.BASIC, basic(1), critical=True)),
            "ConstraintsMissing",
        ),
        "no path length": (
            own(lambda ca: ca.with_extension(requests.BASIC, basic(None), critical=True)),
            "ConstraintsMissing",
        ),
        "no nameConstraints": (own(lambda ca: ca.without_extension(NAME_CONSTRAINTS)), "ConstraintsMissing"),
        "a domain more": (
            constrained(limits(("example.com", "example.org", NETWORK), ("secret.example.com", EXCLUDED_NETWORK))),
            "ConstraintsMissing",
        ),
        "a wider domain": (
            constrained(limits(("com", NETWORK), ("secret.example.com", EXCLUDED_NETWORK))),
            "ConstraintsMissing",
        ),
        "a domain that only ends alike": (
            constrained(limits(("badexample.com", NETWORK), ("secret.example.com", EXCLUDED_NETWORK))),
            "ConstraintsMissing",
        ),
        "every domain": (
            constrained(limits(("", NETWORK), ("secret.example.com", EXCLUDED_NETWORK))),
            "ConstraintsMissing",
        ),
        "addresses without limits": (
            constrained(limits(("example.com",), ("secret.example.com", EXCLUDED_NETWORK))),
            "ConstraintsMissing",
        ),
        "a wider network": (
            constrained(
                limits(("example.com", ipaddress.ip_network("8.0.0.0/5")), ("secret.example.com", EXCLUDED_NETWORK))
            ),
            "ConstraintsMissing",
        ),
        "nothing excluded": (constrained(limits(("example.com", NETWORK), ())), "ConstraintsMissing"),
        "a part of what is excluded": (
            constrained(limits(("example.com", NETWORK), ("a.secret.example.com", EXCLUDED_NETWORK))),
            "ConstraintsMissing",
        ),
        "what is excluded but for itself": (
            constrained(limits(("example.com", NETWORK), (".secret.example.com", EXCLUDED_NETWORK))),
            "ConstraintsMissing",
        ),
        "a part of the network that is excluded": (
            constrained(limits(("example.com", NETWORK), ("secret.example.com", ipaddress.ip_network("10.66.0.0/24")))),
            "ConstraintsMissing",
        ),
    }
)
"""Each mistake alone, and the reason."""

RIGHT: Mapping[str, Change] = MappingProxyType(
    {
        "as asked": lambda made: made,
        "without the root": lambda made: replace(made, order=(0, 1)),
        "the CA's certificate alone": lambda made: replace(made, order=(0,)),
        "the name in another type of string": own(
            lambda ca: replace(ca, subject=subject((requests.COMMON_NAME, PRINTABLE, OURS.encode())))
        ),
        "no keyUsage": own(lambda ca: ca.without_extension(requests.KEY_USAGE)),
        "no key identifier": own(lambda ca: ca.without_extension(requests.KEY_ID)),
        "a critical extension more": own(lambda ca: ca.with_extension("1.2.3.4", b"\x05\0")),
        "narrower names": constrained(
            limits(
                (".example.com", ipaddress.ip_network("10.1.0.0/16")),
                ("secret.example.com", "other.example.com", ipaddress.ip_network("10.64.0.0/10")),
            )
        ),
        "limits of the issuer": lambda made: replace(
            made,
            own=made.own.without_extension(NAME_CONSTRAINTS),
            policy=made.policy.with_extension(NAME_CONSTRAINTS, AS_ASKED, critical=True),
        ),
        "a path length of the issuer": lambda made: replace(
            made,
            own=made.own.with_extension(requests.BASIC, basic(None), critical=True),
            policy=made.policy.with_extension(requests.BASIC, basic(1), critical=True),
        ),
        "a root signed with SHA-1": lambda made: replace(
            made, root=replace(made.root, algorithm=ECDSA_SHA1, hash="sha1")
        ),
    }
)


def refusal(answer: str, asked: Asked = ASKED) -> InvalidAuthority:
    with pytest.raises(InvalidAuthority) as refused:
        check_answer(read_answer(answer), asked, PUBLIC_KEY, now=NOW)
    return refused.value


@pytest.mark.requirement("X51")
@pytest.mark.parametrize("what", WRONG)
def test_a_certificate_that_is_wrong_in_one_way_is_refused_with_its_reason(what: str) -> None:
    change, reason = WRONG[what]
    refused = refusal(change(HONEST).answer)
    assert refused.reason == reason
    assert str(refused)
    assert not str(refused).endswith("."), "it is the middle of a sentence"


@pytest.mark.requirement("X51")
@pytest.mark.parametrize("what", RIGHT)
def test_what_a_ca_may_do_differently_is_taken(what: str) -> None:
    check_answer(read_answer(RIGHT[what](HONEST).answer), ASKED, PUBLIC_KEY, now=NOW)


@pytest.mark.requirement("X51")
@given(st.sets(st.sampled_from(sorted(WRONG)), min_size=1, max_size=4), st.sampled_from(sorted(RIGHT)))
def test_mistakes_together_are_refused_too(what: set[str], beside: str) -> None:
    made = RIGHT[beside](HONEST)
    for each in sorted(what):
        made = WRONG[each][0](made)
    if made == RIGHT[beside](HONEST) or made in [change(HONEST) for change in RIGHT.values()]:
        return  # one mistake has made good another one
    limited = {"limits of the issuer", "a path length of the issuer"} & {beside}
    if limited and all(WRONG[each][1] == "ConstraintsMissing" for each in what):
        return  # the issuer has the limits
    try:
        check_answer(read_answer(made.answer), ASKED, PUBLIC_KEY, now=NOW)
    except InvalidAuthority:
        return
    # What is left out of the answer cannot be wrong.
    assert len(made.order) < len(HONEST.order)


@given(st.text(max_size=300))
def test_any_text_is_a_certificate_or_is_refused(text: str) -> None:
    with pytest.raises(InvalidAuthority) as refused:
        read_answer(text)
    assert refused.value.reason == "InvalidCertificate"


@given(st.integers(min_value=0), st.integers(min_value=0, max_value=255))
def test_a_damaged_certificate_is_refused_or_read(position: int, octet: int) -> None:
    der = bytearray(HONEST.own.signed(ec_key(ISSUING)))
    if der[position % len(der)] == octet:
        return
    der[position % len(der)] = octet
    with pytest.raises(InvalidAuthority):
        check_answer(
            (*read_answer(pem(bytes(der)).decode()), *read_answer(HONEST.answer)[1:]), ASKED, PUBLIC_KEY, now=NOW
        )


def one_line(der: bytes) -> str:
    """The certificate as one line of base64, which is shorter than what we write."""
    return f"-----BEGIN CERTIFICATE-----\n{base64.b64encode(der).decode()}\n-----END CERTIFICATE-----\n"


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (
            lambda ca: ca.with_extension("1.2.3.4", b"\x04\x82\x5d\xec" + bytes(24044)),
            "certificate 1: it has more than 32768 octets in PEM",
        ),
        (
            lambda ca: ca.with_extension(requests.KEY_ID, tlv(OCTETS, bytes(65))),
            "certificate 1: its subject key identifier has more than 64 octets",
        ),
        (
            lambda ca: replace(ca, serial_number=b"\x4d" * 65),
            "certificate 1: its serial number has more than 64 octets",
        ),
        (
            lambda ca: ca.with_subject(*[(requests.ORGANIZATION, UTF8, b"o" * 64)] * 130),
            "certificate 1: its subject has more than 8192 characters",
        ),
    ],
)
def test_a_certificate_that_the_status_cannot_hold_is_refused(
    change: Callable[[Contents], Contents], says: str
) -> None:
    """The API server would refuse the status, and nobody would be told why."""
    der = change(HONEST.own).signed(ec_key(ISSUING))
    assert len(one_line(der)) <= 32768, "the schema takes it"
    refused = refusal(one_line(der))
    assert (refused.reason, says in str(refused)) == ("InvalidCertificate", True)
    with pytest.raises(InvalidAuthority, match=says):
        check_imported(one_line(der).encode(), private_key_pem(ec_key(OURS)), now=NOW)


def test_text_around_the_certificates_is_not_kept() -> None:
    assert read_answer(f"subject=a\n{HONEST.answer}\nissuer=b\n") == read_answer(HONEST.answer)


def test_a_running_ca_is_not_held_to_limits_that_the_spec_got_later() -> None:
    chain = read_answer(WRONG["no nameConstraints"][0](HONEST).answer)
    check_installed(chain, ASKED.name, PUBLIC_KEY, now=NOW)


@pytest.mark.requirement("X51")
@pytest.mark.parametrize(("algorithm", "size"), [("ECDSA", 384), ("RSA", 2048), ("Ed25519", None)])
def test_a_request_says_all_that_is_asked_for_and_is_the_same_each_time(algorithm: str, size: int | None) -> None:
    key = pki.key(algorithm, size, "requesting")
    asked = replace(ASKED, subject={"organizations": ("Example",)})
    text = certificate_request(asked, key)
    assert certificate_request(asked, key) == text
    assert is_request_for(text, asked, key.public_key())
    request = x509.load_pem_x509_csr(text.encode())
    assert request.is_signature_valid
    assert request.subject.rfc4514_string() == f"CN={OURS},O=Example"
    assert request_key(text) == (request.subject, key.public_key())
    found = {type(each.value): each.value for each in request.extensions}
    assert found[x509.BasicConstraints] == x509.BasicConstraints(ca=True, path_length=0)
    usages = found[x509.KeyUsage]
    assert isinstance(usages, x509.KeyUsage)
    assert (usages.key_cert_sign, usages.crl_sign, usages.digital_signature) == (True, True, False)
    assert found[x509.NameConstraints].public_bytes() == AS_ASKED
    assert found[x509.SubjectKeyIdentifier] == x509.SubjectKeyIdentifier.from_public_key(key.public_key())


def test_a_request_for_something_else_is_made_again() -> None:
    text = certificate_request(ASKED, ec_key(OURS))
    assert is_request_for(text, ASKED, PUBLIC_KEY)
    assert not is_request_for(text, replace(ASKED, path_length=1), PUBLIC_KEY)
    assert not is_request_for(text, replace(ASKED, common_name="Other"), PUBLIC_KEY)
    assert not is_request_for(text, replace(ASKED, constraints=None), PUBLIC_KEY)
    assert not is_request_for(text, ASKED, ec_key("another").public_key())
    for other in (None, "", "no PEM", HONEST.answer):
        assert not is_request_for(other, ASKED, PUBLIC_KEY)
        assert request_key(other or "") is None


def test_renewal_is_due_after_two_thirds_of_what_the_whole_chain_allows() -> None:
    begins, ends = NOW - DAY, NOW + 89 * DAY
    made = replace(HONEST, root=replace(HONEST.root, not_after=ends))
    assert renewal_due(read_answer(made.answer)) == begins + 60 * DAY
