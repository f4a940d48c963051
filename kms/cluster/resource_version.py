"""Which of two versions of an object is the newer one.

Since Kubernetes 1.35 resourceVersions of one resource are defined to be integers that grow (KEP-5504); every API server
on etcd has always made them so.
"""

from __future__ import annotations


def newer(a: str, b: str) -> bool:
    """Whether resourceVersion `a` is newer than `b`. One that is no number is newer than whatever differs from it."""
    try:
        return int(a) > int(b)
    except ValueError:
        return a != b
