"""The groups of the key exchange in TLS: elliptic curves only, whatever OpenSSL has as its default.

By default OpenSSL also takes the finite-field groups of RFC 7919. The peer chooses among the groups that both take, and
one key exchange in the largest of them blocks the event loop for a sixth of a second.
"""

from __future__ import annotations

import _ssl
import ctypes
import ssl
import sys

SERVER_GROUPS = "X25519:P-256"
"""What clients may choose. All of them know P-256 (RFC 8446, 9.1); P-384 would cost the server seven times as much."""
CLIENT_GROUPS = "X25519:P-256:P-384:P-521"
"""What servers that we connect to may choose: some take a single curve."""

# Of TLS 1.2: none with a key exchange in a finite field, or with the RSA key of the certificate.
_CIPHERS = "ECDHE+AESGCM:ECDHE+CHACHA20:ECDHE+AES"
_FALLBACK = "prime256v1"
_SET_GROUPS_LIST = 92  # SSL_CTRL_SET_GROUPS_LIST in openssl/ssl.h


def restrict_key_exchange(context: ssl.SSLContext, groups: str) -> None:
    """Take only these groups, a list as in OpenSSL; P-256 alone if this Python or OpenSSL cannot set the list."""
    context.set_ciphers(_CIPHERS)
    if hasattr(context, "set_groups"):  # since Python 3.15
        context.set_groups(groups)
    elif not (sys.version_info < (3, 15) and _set_groups(context, groups)):
        context.set_ecdh_curve(_FALLBACK)


def _set_groups(context: ssl.SSLContext, groups: str) -> bool:
    """Call OpenSSL directly: before 3.15, the ssl module can set a single group only. False if that is not possible.

    The SSL_CTX is the first member of the context in all these versions. Their _ssl is a shared library, whose
    dependencies include the OpenSSL that it uses, or has OpenSSL built in, without symbols.
    """
    try:
        library = ctypes.CDLL(_ssl.__file__)
        control, clear_errors = library.SSL_CTX_ctrl, library.ERR_clear_error
    except (AttributeError, OSError):
        return False
    control.argtypes = [ctypes.c_void_p, ctypes.c_int, ctypes.c_long, ctypes.c_char_p]
    control.restype = ctypes.c_long
    pointer = ctypes.c_void_p.from_address(id(context) + object.__basicsize__)
    if control(pointer, _SET_GROUPS_LIST, 0, groups.encode()) == 1:
        return True
    clear_errors()
    return False
