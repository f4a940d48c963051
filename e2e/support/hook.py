#!/usr/bin/env python3
"""Called by certbot's manual plugin (`hook.py present`) and by lego's provider `exec` (`hook.py present FQDN VALUE`).

Sends the challenge response to hooks.py, or with `cleanup`, its removal. It only uses the standard library, since it is
started for each challenge.
"""

from __future__ import annotations

import json
import os
import sys
import urllib.request
from collections.abc import Mapping, Sequence


def wanted(arguments: Sequence[str], env: Mapping[str, str]) -> dict[str, str]:
    """The challenge response: a file if certbot names a token, otherwise a TXT record."""
    if arguments:
        fqdn, value = arguments[:2]
        return {"fqdn": fqdn, "value": value}
    domain, value = env["CERTBOT_DOMAIN"], env["CERTBOT_VALIDATION"]
    if token := env.get("CERTBOT_TOKEN"):
        return {"path": f"/.well-known/acme-challenge/{token}", "value": value}
    return {"fqdn": f"_acme-challenge.{domain}", "value": value}


def main() -> None:
    """Send the request to the URL in STORY_HOOKS."""
    action, *arguments = sys.argv[1:]
    body = json.dumps(wanted(arguments, os.environ)).encode()
    headers = {"Content-Type": "application/json"}
    request = urllib.request.Request(f"{os.environ['STORY_HOOKS']}/{action}", body, headers)  # noqa: S310 - loopback
    with urllib.request.urlopen(request, timeout=10) as answer:  # noqa: S310 - likewise
        answer.read()


if __name__ == "__main__":
    main()
