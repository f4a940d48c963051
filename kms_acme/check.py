"""`kms-acme check`: whether an ACME directory works, by the first requests of an ACME client. `helm test` runs it."""

from __future__ import annotations

import http.client
import json
import ssl
import time
from collections.abc import Callable
from pathlib import Path
from urllib.error import HTTPError, URLError
from urllib.request import Request, urlopen

_TIMEOUT = 10.0
_PAUSE = 0.5
_LONGEST = 1_000_000
_UNTRUSTED = frozenset({18, 19, 20, 21})
"""Errors of OpenSSL (X509_V_ERR): the certificate or its CA is not one of those that are trusted."""
_PRIVATE_CA = (
    "if its CA is private, name it with --ca-certificate: ca.crt of the Secret PROFILE-acme in the profile's namespace"
)
_ANOTHER_CA = "its CA is another one than that of --ca-certificate"
_NEEDED = ("newNonce", "newAccount", "newOrder")


class CheckFailed(Exception):
    """The directory does not work; the message says why."""


def check(url: str, *, authority: Path | None) -> None:
    """Read the directory and get a nonce (RFC 8555, 7.1.1 and 7.2). Raises CheckFailed."""
    context = ssl.create_default_context(cafile=authority)
    untrusted = _ANOTHER_CA if authority is not None else _PRIVATE_CA
    with _answer(Request(url), context, untrusted) as answer:  # noqa: S310 - https alone, see below
        try:
            directory = json.loads(answer.read(_LONGEST))
        except ValueError:
            raise CheckFailed(f"{url} is not an ACME directory: it is not JSON") from None
    if not isinstance(directory, dict) or not all(isinstance(directory.get(each), str) for each in _NEEDED):
        raise CheckFailed(f"{url} is not an ACME directory: it lacks {' or '.join(_NEEDED)}")
    with _answer(Request(directory["newNonce"], method="HEAD"), context, untrusted) as answer:  # noqa: S310 - likewise
        if not answer.headers.get("Replay-Nonce"):
            raise CheckFailed(f"{directory['newNonce']} sent no nonce")


def check_until(
    url: str,
    *,
    authority: Path | None,
    wait: float,
    sleep: Callable[[float], None] = time.sleep,
    monotonic: Callable[[], float] = time.monotonic,
) -> None:
    """Repeat the check until it succeeds. Raises CheckFailed after `wait` seconds of failures."""
    deadline = monotonic() + wait
    while True:
        try:
            return check(url, authority=authority)
        except CheckFailed:
            if monotonic() >= deadline:
                raise
        sleep(_PAUSE)


def _answer(request: Request, context: ssl.SSLContext, untrusted: str) -> http.client.HTTPResponse:
    if request.type != "https":
        raise CheckFailed(f"{request.full_url} is not an https URL")
    try:
        answer: http.client.HTTPResponse = urlopen(request, timeout=_TIMEOUT, context=context)  # noqa: S310 - likewise
    except HTTPError as error:
        with error:
            detail = _read_detail(error)
        raise CheckFailed(f"{request.full_url} answered {error.code}{detail}") from error
    except (URLError, OSError, http.client.HTTPException) as error:
        reason = error.reason if isinstance(error, URLError) else error
        is_untrusted = isinstance(reason, ssl.SSLCertVerificationError) and reason.verify_code in _UNTRUSTED
        hint = f"; {untrusted}" if is_untrusted else ""
        raise CheckFailed(f"{request.full_url} did not answer: {reason}{hint}") from error
    return answer


def _read_detail(error: HTTPError) -> str:
    """The detail of a problem document, as the end of a sentence; empty if there is none."""
    try:
        problem = json.loads(error.read(_LONGEST))
    except (ValueError, OSError, http.client.HTTPException):
        return ""
    detail = problem.get("detail") if isinstance(problem, dict) else None
    return f": {detail}" if isinstance(detail, str) else ""
