"""The chain of a returned certificate: from its issuer to a trust anchor (RFC 5280, 6.1).

Clients apply the constraints of an anchor too, so they count here. Certificates that do not belong to the chain are
left out: only what was verified is handed out.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Collection, Iterable, Iterator, Sequence
from datetime import datetime
from typing import Final

from cryptography import x509

from kms.pki.certificate import certificate_pem, certifies
from kms.pki.constraints import constraint_violations, constraints_of
from kms.pki.extensions import UnreadableCertificate, find_extension
from kms.pki.names import Name
from kms.pki.quoting import quoted
from kms.pki.returned.base import Rejected
from kms.pki.returned.form import has_weak_signature

MAXIMUM_CHAIN: Final = 5
"""Certificates that clients get, the end entity's among them; cert-manager accepts no more."""

Path = tuple[x509.Certificate, ...]


def find_path(
    leaf: x509.Certificate,
    returned: Sequence[x509.Certificate],
    *,
    known: Sequence[x509.Certificate],
    anchors: Sequence[x509.Certificate],
    names: Sequence[Name],
    now: datetime,
) -> Path:
    """The certificates above `leaf`, each certified by the next; the last one is an anchor.

    Those that were not `returned` are taken from `known`, the chain of the CA. Raises Rejected (InvalidChain) with the
    first obstacle.
    """
    search = _Search((*returned, *known), anchors, names, now)
    found = search.path(leaf)
    if found is None:
        raise Rejected("InvalidChain", search.obstacle or _without_issuer(leaf))
    return found[1:]


class _Search:
    """A search for the shortest path. `obstacle` is the first reason why a certificate cannot follow.

    A CA may return certificates that lead from one to another in many ways. So each is looked at once, where it is
    first reached: no constraint is met by a longer path only.
    """

    def __init__(
        self,
        between: Sequence[x509.Certificate],
        anchors: Sequence[x509.Certificate],
        names: Sequence[Name],
        now: datetime,
    ) -> None:
        self._between = tuple(dict.fromkeys(each for each in between if each not in anchors))
        self._anchors = anchors
        self._names = names
        self._now = now
        self.obstacle: str | None = None

    def path(self, leaf: x509.Certificate) -> Path | None:
        """The path from `leaf` to an anchor; None: there is none."""
        paths: deque[Path] = deque([(leaf,)])
        reached = {leaf}
        while paths:
            path = paths.popleft()
            above = False
            for anchor in _issuers_of(path[-1], self._anchors):
                above = True
                if self._allows(anchor, path):
                    return (*path, anchor)
            for issuer in self._above(path, reached):
                above = True
                if issuer is not None:
                    reached.add(issuer)
                    paths.append((*path, issuer))
            if not above:
                self._obstruct(_without_issuer(path[-1]))
        return None

    def _above(self, path: Path, reached: Collection[x509.Certificate]) -> Iterator[x509.Certificate | None]:
        """Each certificate between leaf and anchors that has issued the last of the path; None: it cannot follow."""
        keys = [(each.subject, each.public_key()) for each in path]
        for issuer in _issuers_of(path[-1], self._between):
            if issuer in reached or (issuer.subject, issuer.public_key()) in keys:  # another path has it, or a loop
                yield None
            elif len(path) == MAXIMUM_CHAIN:
                self._obstruct(f"The chain has more than {MAXIMUM_CHAIN} certificates below its trust anchor.")
                yield None
            else:
                yield issuer if self._allows(issuer, path) else None

    def _allows(self, issuer: x509.Certificate, path: Path) -> bool:
        try:
            objection = next(_objections(issuer, path, self._names, self._now), None)
        except UnreadableCertificate as error:
            objection = str(error)
        if objection is not None:
            self._obstruct(f"{_subject(issuer)} cannot be in the chain: {objection}.")
        return objection is None

    def _obstruct(self, message: str) -> None:
        self.obstacle = self.obstacle or message


def _issuers_of(certificate: x509.Certificate, candidates: Iterable[x509.Certificate]) -> Iterator[x509.Certificate]:
    return (each for each in candidates if each.subject == certificate.issuer and certifies(each, certificate))


def _objections(issuer: x509.Certificate, path: Path, names: Sequence[Name], now: datetime) -> Iterator[str]:
    """Why `issuer`, whose key verifies the last certificate of the path, must not have signed it."""
    constraints, usage = find_extension(issuer, x509.BasicConstraints), find_extension(issuer, x509.KeyUsage)
    if constraints is None or not constraints.ca:
        yield "it is not a CA (basicConstraints)"
    elif constraints.path_length is not None and constraints.path_length < len(path) - 1:
        yield f"its path length allows {constraints.path_length} CAs below it, and {len(path) - 1} are"
    if usage is not None and not usage.key_cert_sign:
        yield "its keyUsage lacks keyCertSign"
    if not issuer.not_valid_before_utc <= now < issuer.not_valid_after_utc:
        yield (
            f"it is valid from {issuer.not_valid_before_utc:%Y-%m-%dT%H:%M:%SZ}"
            f" to {issuer.not_valid_after_utc:%Y-%m-%dT%H:%M:%SZ}"
        )
    if not _is_identified(path[-1], issuer):
        yield f"it is not the issuer that {_subject(path[-1])} names (authorityKeyIdentifier)"
    if has_weak_signature(path[-1]):
        yield f"{_subject(path[-1])} is signed with something other than SHA-2, SHA-3 or EdDSA"
    yield from (
        violation.message for violation in constraint_violations(names, constraints_of(certificate_pem(issuer)))
    )


def _is_identified(certificate: x509.Certificate, issuer: x509.Certificate) -> bool:
    """Whether the authority key identifier, as far as there is one, is that of the issuer (RFC 5280, 4.2.1.1)."""
    authority = find_extension(certificate, x509.AuthorityKeyIdentifier)
    if authority is None:
        return True
    key = find_extension(issuer, x509.SubjectKeyIdentifier)
    if key is not None and authority.key_identifier not in {None, key.digest}:
        return False
    return authority.authority_cert_serial_number in {None, issuer.serial_number}


def _without_issuer(certificate: x509.Certificate) -> str:
    issuer = quoted(certificate.issuer.rfc4514_string())
    return (
        f"The issuer of {_subject(certificate)}, {issuer}, is neither a trust anchor nor among the certificates that"
        " the CA returned."
    )


def _subject(certificate: x509.Certificate) -> str:
    return quoted(certificate.subject.rfc4514_string())
