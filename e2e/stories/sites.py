"""Web servers that obtain their certificates themselves: waits, and visits over HTTPS."""

from __future__ import annotations

import socket
import ssl
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

from cryptography import x509

from e2e.cluster.processes import Deadline, last_lines
from e2e.stories.clients import LIMIT, ClientFailed
from e2e.stories.story import SITE_ADDRESS, Story

T = TypeVar("T")

_POLL = 0.1


def wait_for(find: Callable[[], T | None], failure: str, *logs: Path) -> T:
    """Return the result of `find` as soon as it is not None.

    Raises:
        ClientFailed: it stays None; the text has the failure and the ends of the logs.
    """
    deadline = Deadline(LIMIT)
    while (found := find()) is None:
        if not deadline:
            ends = [last_lines(each) for each in logs if each.exists()]
            raise ClientFailed("\n".join((f"{failure}. The end of the logs:", *ends)))
        time.sleep(_POLL)
    return found


@contextmanager
def visit(story: Story, name: str) -> Iterator[tuple[ssl.SSLSocket, x509.Certificate]]:
    """Connect to a site as a client that trusts the profile's chain; yields the connection and its certificate.

    Raises:
        OSError: the site does not listen, or its certificate is not trusted.
    """
    trust = ssl.create_default_context(cadata=story.enrollment.chain)
    with (
        socket.create_connection((SITE_ADDRESS, story.tls_alpn01_port), timeout=5) as connection,
        trust.wrap_socket(connection, server_hostname=name) as tls,
    ):
        yield tls, x509.load_der_x509_certificate(tls.getpeercert(binary_form=True) or b"")
