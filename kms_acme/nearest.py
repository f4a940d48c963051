"""What to say of an object that does not exist: the names that are nearest. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches

from kms.resources.meta import Key

_SHOWN = 3


def no_such(kind: str, key: Key, known: Iterable[Key]) -> str:
    """`there is no CertificateProfile pki/wbe; the nearest is pki/web`."""
    wanted, names = "/".join(key), ["/".join(each) for each in known]
    same_name = sorted(each for each in names if each.endswith(f"/{key[1]}"))
    near = list(dict.fromkeys((*get_close_matches(wanted, names), *same_name)))[:_SHOWN]
    if not near:
        return f"there is no {kind} {wanted}"
    return f"there is no {kind} {wanted}; the nearest {'is' if len(near) == 1 else 'are'} {', '.join(near)}"
