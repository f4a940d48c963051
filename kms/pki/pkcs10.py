"""The structure of certificate requests (PKCS #10, RFC 2986), read as leniently as OpenSSL and Go read it.

cryptography reads requests that are perfect DER only, and refuses others whose names, key and signature are clear. This
reader also takes

* any version: some clients write the number of the certificate's version;
* attributes in any order, and none at all;
* `critical` that is spelt out as FALSE;
* Latin-1 in a T61String, as most programs write it;
* malformed content of extensions and attributes that are not used.

It takes nothing that could be read in two ways: no extension twice, no bytes after the end of a structure, no length
or object identifier in a longer form. Each refusal says what is wrong.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final

from kms.pki.der import (
    BIT_STRING,
    BOOLEAN,
    INTEGER,
    NULL,
    OBJECT_IDENTIFIER,
    OCTET_STRING,
    SEQUENCE,
    SET,
    MalformedDER,
    Reader,
    dotted,
)
from kms.pki.extension_names import extension_name

MAXIMUM_EXTENSIONS: Final = 32
MAXIMUM_SUBJECT: Final = 32
"""Attributes of a subject; policies compare each of them with patterns."""
MAXIMUM_ATTRIBUTES: Final = 32
"""Attributes of a request; one contains the extensions."""

_ATTRIBUTES: Final = 0xA0
_EXTENSION_REQUESTS: Final = frozenset({"1.2.840.113549.1.9.14", "1.3.6.1.4.1.311.2.1.14"})
"""extensionRequest of PKCS #9 (RFC 2985, 5.4.2), and what Microsoft used before."""
_PSS: Final = "1.2.840.113549.1.1.10"
"""The one signature algorithm with parameters; whether it is accepted is for the caller."""
_LONGEST_VERSION = 8

_TEXTS: Mapping[int, Callable[[bytes], str]] = MappingProxyType(
    {
        12: lambda content: content.decode("utf-8"),  # UTF8String
        18: lambda content: content.decode("ascii"),  # NumericString
        19: lambda content: content.decode("ascii"),  # PrintableString; programs write "*", "@" and "_" in it too
        20: lambda content: content.decode("latin-1"),  # T61String
        22: lambda content: content.decode("ascii"),  # IA5String
        26: lambda content: content.decode("ascii"),  # VisibleString
        28: lambda content: content.decode("utf-32-be"),  # UniversalString
        30: lambda content: content.decode("utf-16-be"),  # BMPString
    }
)
"""The types of text in distinguished names (RFC 5280, 4.1.2.4), by tag."""


@dataclass(frozen=True, slots=True)
class SignedRequest:
    """The parts of a request. Nothing is checked but the structure, above all not the signature.

    `signed` are the bytes that `signature` is about, as they were received. `subject` are pairs of object identifier
    and value, in which None is a value that is not text. `key` is the SubjectPublicKeyInfo; `extensions` are the
    values by object identifier.
    """

    signed: bytes
    subject: tuple[tuple[str, str | None], ...]
    key: bytes
    key_algorithm: str
    key_parameters: str | None
    extensions: Mapping[str, bytes]
    signature_algorithm: str
    signature: bytes


def read_request(der: bytes) -> SignedRequest:
    """Take a request apart. The time is proportional to its length, which the caller limits.

    Raises MalformedDER with a clause for people.
    """
    if der.lstrip()[:11] == b"-----BEGIN ":
        raise MalformedDER("it is PEM; ACME wants the DER inside (RFC 8555, 7.4)")
    outermost = Reader(der, "the request")
    whole = outermost.enter(SEQUENCE, "the request")
    outermost.finish()
    info = whole.expect(SEQUENCE, "the part that is signed")
    algorithm, signature = _signature(whole)
    whole.finish()
    parts = whole.inside(info, "the part that is signed")
    _skip_version(parts)
    subject = tuple(_subject(parts.enter(SEQUENCE, "the subject")))
    key = parts.expect(SEQUENCE, "the public key")
    key_algorithm, key_parameters = _key_algorithm(parts.inside(key, "the public key"))
    attributes = parts.expect_if(_ATTRIBUTES, "the list of attributes")
    parts.finish()
    return SignedRequest(
        signed=whole.encoded(info),
        subject=subject,
        key=parts.encoded(key),
        key_algorithm=key_algorithm,
        key_parameters=key_parameters,
        extensions={} if attributes is None else _extensions(parts.inside(attributes, "the list of attributes")),
        signature_algorithm=algorithm,
        signature=signature,
    )


def _signature(whole: Reader) -> tuple[str, bytes]:
    algorithm = whole.enter(SEQUENCE, "the signature algorithm")
    name = algorithm.object_identifier("the signature algorithm")
    algorithm.expect_if(NULL, "the parameters of the signature algorithm")
    if name != _PSS:
        algorithm.finish()
    return name, _whole_octets(whole, "the signature")


def _whole_octets(reader: Reader, what: str) -> bytes:
    """The next element, a BIT STRING without unused bits."""
    content = reader.content(reader.expect(BIT_STRING, what))
    if not content or content[0] != 0:
        raise MalformedDER(f"{what} is not a number of whole octets")
    return content[1:]


def _skip_version(parts: Reader) -> None:
    version = parts.expect(INTEGER, "the version")
    if not 0 < version.end - version.content <= _LONGEST_VERSION:
        raise MalformedDER(f"the version is a number of {version.end - version.content} octets")


def _key_algorithm(key: Reader) -> tuple[str, str | None]:
    """The object identifier of the key's algorithm, and its parameters where those are one: the curve."""
    algorithm = key.enter(SEQUENCE, "the algorithm of the public key")
    name, parameters = algorithm.object_identifier("the algorithm of the public key"), None
    if (curve := algorithm.expect_if(OBJECT_IDENTIFIER, "the curve of the public key")) is not None:
        parameters = dotted(algorithm.content(curve), "the curve of the public key")
    _whole_octets(key, "the public key")
    key.finish()
    return name, parameters


def _subject(names: Reader) -> Iterator[tuple[str, str | None]]:
    number = 0
    while names.more():
        together = names.enter(SET, "a part of the subject")
        if not together.more():
            raise MalformedDER("a part of the subject is empty")
        while together.more():
            number += 1
            if number > MAXIMUM_SUBJECT:
                raise MalformedDER(f"the subject has more than {MAXIMUM_SUBJECT} attributes")
            attribute = together.enter(SEQUENCE, "an attribute of the subject")
            name = attribute.object_identifier("the type of an attribute of the subject")
            value = attribute.expect(None, f"the value of {name} in the subject")
            attribute.finish()
            yield name, _text(value.tag, attribute.content(value), name)


def _text(tag: int, content: bytes, name: str) -> str | None:
    decode = _TEXTS.get(tag)
    if decode is None:
        return None
    try:
        return decode(content)
    except UnicodeDecodeError as error:
        raise MalformedDER(f"the value of {name} in the subject is not text in {error.encoding}") from None


def _extensions(attributes: Reader) -> Mapping[str, bytes]:
    found: dict[str, bytes] = {}
    number = 0
    while attributes.more():
        number += 1
        if number > MAXIMUM_ATTRIBUTES:
            raise MalformedDER(f"it has more than {MAXIMUM_ATTRIBUTES} attributes")
        attribute = attributes.enter(SEQUENCE, "an attribute")
        name = attribute.object_identifier("the type of an attribute")
        if name in _EXTENSION_REQUESTS:
            values = attribute.enter(SET, f"the value of attribute {name}")
            attribute.finish()
            for oid, value in _requested(values, name):
                if oid in found:
                    raise MalformedDER(f"extension {extension_name(oid)} occurs twice")
                if len(found) == MAXIMUM_EXTENSIONS:
                    raise MalformedDER(f"it has more than {MAXIMUM_EXTENSIONS} extensions")
                found[oid] = value
    return found


def _requested(values: Reader, attribute: str) -> Iterator[tuple[str, bytes]]:
    """The extensions in the value of an attribute, which has one value (RFC 2985, 5.4.2)."""
    if not values.more():
        return
    extensions = values.enter(SEQUENCE, "the list of extensions")
    if values.more():
        raise MalformedDER(f"attribute {attribute} has more than one value")
    while extensions.more():
        extension = extensions.enter(SEQUENCE, "an extension")
        oid = extension.object_identifier("the type of an extension")
        extension.expect_if(BOOLEAN, f"critical of extension {oid}")
        value = extension.expect(OCTET_STRING, f"the value of extension {oid}")
        if extension.more():
            raise MalformedDER(f"extension {extension_name(oid)} has more than a value")
        yield oid, extension.content(value)
