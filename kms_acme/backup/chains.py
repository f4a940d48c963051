"""Whether a backup has the chains to which its orders refer, and whether these are what their names say."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

from kms.resources.certificate_chains import chain_name
from kms.resources.meta import Key
from kms_acme.backup.contents import CHAIN, ORDER, Entry, Stored


@dataclass(frozen=True, slots=True)
class ChainFault:
    """A chain without which the certificates of `orders` orders are not whole; `digest` is that of a changed one."""

    key: Key
    orders: int
    digest: str | None = None

    def __str__(self) -> str:
        """Name it for people, in a clause."""
        name, orders = f"{CHAIN.kind} {'/'.join(self.key)}", "1 order refers" if self.orders == 1 else "{} orders refer"
        what = "is missing" if self.digest is None else f"was changed: its text has the digest {self.digest}"
        return f"{name} {what}; {orders.format(self.orders)} to it"


class ChainCheck:
    """Looks at all entries of a backup, in any order; it keeps names and digests alone."""

    def __init__(self) -> None:
        self._references: Counter[Key] = Counter()
        self._digests: dict[Key, str] = {}

    def add(self, entry: Entry) -> None:
        """Look at an entry; only orders and chains matter."""
        if entry.kind is CHAIN:
            self._digests[entry.key] = digest(entry.object)
        elif entry.kind is ORDER and (name := _reference(entry.object)) is not None:
            self._references[entry.key[0], name] += 1

    def faults(self) -> Iterator[ChainFault]:
        """The chains to which orders refer and that are missing or were changed, by name."""
        for key, orders in sorted(self._references.items()):
            found = self._digests.get(key)
            if found != key[1]:
                yield ChainFault(key, orders, found)


def digest(chain: Stored) -> str:
    """The digest of the text of a chain, which is the name of one that nobody has changed."""
    return chain_name(str((chain.spec or {}).get("certificates")))


def is_genuine(chain: Stored) -> bool:
    """Whether the chain contains what its name says."""
    return digest(chain) == chain.metadata.name


def _reference(order: Stored) -> str | None:
    reference = (order.status or {}).get("chainRef")
    name = reference.get("name") if isinstance(reference, dict) else None
    return name if isinstance(name, str) else None
