"""Certificate requests as clients make them with openssl: each writes a configuration file and calls `openssl req`.

The clients are shell scripts and a Perl module that no package registry has. Their configuration is written here by
hand, for the same request.
"""

from __future__ import annotations

import subprocess
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from e2e.load.keys import certificate_key
from e2e.support import tools


@dataclass(frozen=True, slots=True)
class Style:
    """How a client asks for a certificate."""

    subject: str
    """As `openssl req -subj` takes it; {name} stands for the first name."""
    extensions: tuple[str, ...] = ()
    """Lines of the configuration file before subjectAltName."""


STYLES = {
    "acme.sh 2": Style("/CN={name}", ("keyUsage=nonRepudiation,digitalSignature,keyEncipherment",)),
    "acme.sh 3": Style("/CN={name}", ("extendedKeyUsage=serverAuth,clientAuth",)),
    "acme.sh with OCSP stapling": Style(
        "/CN={name}",
        (
            *("extendedKeyUsage=serverAuth,clientAuth", "basicConstraints=CA:FALSE"),
            "1.3.6.1.5.5.7.1.24=DER:30:03:02:01:05",
        ),
    ),
    "Crypt::LE": Style("/O=-/L=-/ST=-/C=GB/CN={name}"),
    "getssl": Style("/"),
    "getssl with a subject": Style("/C=DE/ST=Bavaria/O=Example/OU=Web/CN={name}"),
    "openssl's questions answered": Style(
        "/C=AU/ST=Some-State/O=Internet Widgits Pty Ltd/CN={name}/emailAddress=team@example.com"
    ),
    "a network device": Style(
        "/DC=com/DC=example/CN={name}/serialNumber=FTX1234A5B6/unstructuredName={name}",
        ("basicConstraints=CA:FALSE", "keyUsage=digitalSignature,keyEncipherment", "nsCertType=server"),
    ),
}
"""Clients, each with its way to ask for DNS names."""
ACME_SH_FOR_AN_ADDRESS = Style("/O=acme.sh", ("extendedKeyUsage=serverAuth,clientAuth",))
"""acme.sh has no common name for an IP address, but needs a subject."""


def made_with_openssl(style: Style, identifiers: Iterable[Mapping[str, str]], folder: Path) -> bytes:
    """A CSR in DER for the identifiers of an order and a new key.

    Raises:
        subprocess.CalledProcessError: openssl does not know something in the style.
    """
    key, config, request = (folder / name for name in ("key.pem", "openssl.cnf", "request.der"))
    key.write_bytes(certificate_key().private_bytes(Encoding.PEM, PrivateFormat.TraditionalOpenSSL, NoEncryption()))
    named = [(each["type"].upper(), each["value"]) for each in identifiers]
    alternative = ",".join(f"{type_}:{value}" for type_, value in named)
    lines = (
        *("[ req_distinguished_name ]", "[ req ]", "distinguished_name = req_distinguished_name"),
        *("req_extensions = v3_req", "[ v3_req ]", *style.extensions, f"subjectAltName={alternative}"),
    )
    config.write_text("\n".join(lines) + "\n", encoding="ascii")
    command = (tools.required(tools.OPENSSL), "req", "-new", "-sha256", "-config", config, "-key", key)
    written = ("-subj", style.subject.format(name=named[0][1]), "-outform", "DER", "-out", request)
    subprocess.run((*command, *written), check=True, capture_output=True)
    return request.read_bytes()
