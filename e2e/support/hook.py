#!/usr/bin/env python3
"""Called by certbot's manual plugin (`hook.py present`) and by lego's provider `exec` (`hook.py present FQDN VALUE`).

Passes on to hooks.py what is to be shown, or with `cleanup` what is not needed any more. Needs nothing but Python: it
is started for every challenge.
"""

from __future__ import annotations

import json
import os
import sys
import urllib.request
from collections.abc import Mapping, Sequence


def wanted(arguments: Sequence[str], env: Mapping[str, str]) -> dict[str, str]:
    """What is to be shown: a file where certbot names a token, else a TXT record."""
    if arguments:
        fqdn, value = arguments[:2]
        return {"fqdn": fqdn, "value": value}
    domain, value = env["CERTBOT_DOMAIN"], env["CERTBOT_VALIDATION"]
    if token := env.get("CERTBOT_TOKEN"):
        return {"path": f"/.well-known/acme-challenge/{token}", "value": value}
    return {"fqdn": f"_acme-challenge.{domain}", "value": value}


def main() -> None:
    """Tell it to the address in STORY_HOOKS."""
    action, *arguments = sys.argv[1:]
    body = json.dumps(wanted(arguments, os.environ)).encode()
    headers = {"Content-Type": "application/json"}
    request = urllib.request.Request(f"{os.environ['STORY_HOOKS']}/{action}", body, headers)  # noqa: S310 - loopback
    with urllib.request.urlopen(request, timeout=10) as answer:  # noqa: S310 - likewise
        answer.read()


if __name__ == "__main__":
    main()
