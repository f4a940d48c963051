"""A PKCS #11 token in software, Debian's softhsm2. Tests are skipped where it is not installed."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from kms.issuers.key_stores import KeyLocation
from kms.resources.authorities import KeyStore, PKCS11KeyStore, SecretKeyRef
from kms.resources.secret_names import PIN

MODULE = "/usr/lib/softhsm/libsofthsm2.so"
_UTIL = "softhsm2-util"


@dataclass(frozen=True)
class Token:
    """An initialised token. SOFTHSM2_CONF of this process, and of those that it starts, leads to it."""

    label: str = "kms"
    pin: str = "1234"
    module: str = MODULE

    def store(self, key: str) -> KeyStore:
        """The key store as a CertificateAuthority names it."""
        reference = SecretKeyRef(name="hsm", key="pin")
        return KeyStore(pkcs11=PKCS11KeyStore(module=self.module, token=self.label, key=key, pin_secret_ref=reference))

    def location(self, key: str) -> KeyLocation:
        """The key with the PIN of the token."""
        return KeyLocation.of(self.store(key), {PIN: self.pin.encode()})

    def with_pin(self, pin: str) -> Token:
        """The same token, as somebody with another PIN names it."""
        return replace(self, pin=pin)


@contextmanager
def running_token(directory: Path, *, initialize: bool = True) -> Iterator[Token]:
    """A new token in this directory; with `initialize` False, whoever uses it does that.

    Skips the test if softhsm2 is not installed.
    """
    if not Path(MODULE).exists() or shutil.which(_UTIL) is None:
        pytest.skip(f"{MODULE} is not installed (Debian: apt-get install softhsm2)")
    pytest.importorskip("pkcs11", reason="python-pkcs11 is not installed (pip install -e .[pkcs11])")
    tokens, configuration, token = directory / "tokens", directory / "softhsm2.conf", Token()
    tokens.mkdir()
    configuration.write_text(f"directories.tokendir = {tokens}\nobjectstore.backend = file\nlog.level = ERROR\n")
    before = os.environ.get("SOFTHSM2_CONF")
    os.environ["SOFTHSM2_CONF"] = str(configuration)
    command = [_UTIL, "--init-token", "--free", "--label", token.label, "--pin", token.pin, "--so-pin", "5678"]
    try:
        if initialize:
            subprocess.run(command, check=True, capture_output=True, timeout=60)
        yield token
    finally:
        if before is None:
            del os.environ["SOFTHSM2_CONF"]
        else:
            os.environ["SOFTHSM2_CONF"] = before
