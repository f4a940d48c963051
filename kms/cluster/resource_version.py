"""The order of resourceVersions.

Since Kubernetes 1.35 resourceVersions of one resource are defined to be integers that grow (KEP-5504); every API server
on etcd has always made them so.
"""

from __future__ import annotations


def newer(a: str, b: str) -> bool:
    """Whether resourceVersion `a` is newer than `b`. If either is not a number, any difference counts as newer."""
    try:
        return int(a) > int(b)
    except ValueError:
        return a != b


def went_back(version: str, now: str) -> bool:
    """Whether `now` is older than a `version` that was current before: etcd was restored from a snapshot."""
    before, current = number(version), number(now)
    return before is not None and current is not None and current < before


def number(version: str) -> int | None:
    """The resourceVersion as an integer, positive and without leading zeros; None: it is none and has no order."""
    return int(version) if version.isascii() and version.isdigit() and version[0] != "0" else None
