"""Earlier CertificateAuthorities of the same namespace and name: are they the same CA, and which keys did they have?"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime

from kms.pki.ca import request_key, subject_key_id
from kms.pki.certificate import Signer
from kms.pki.keys import is_key_of, load_private_key
from kms.pki.subjects import subject_name
from kms.resources.authorities import CertificateAuthority, FormerKey, InternalAuthority
from kms.resources.compile import subject_attributes
from kms.resources.core import Secret
from kms.resources.kept import LONGEST_CERTIFICATE, kept_until, parse_former_keys
from kms.resources.secret_names import CERTIFICATE_REQUEST, TLS_PRIVATE_KEY
from kms_operator.objects import signer_in
from kms_operator.reconcilers.kept_keys import MARGIN

FORMER_KEYS = 500
"""The most former keys of a CA; more would mean a new key each day."""


def agrees(held: Signer, spec: InternalAuthority, issuer: Signer | None) -> bool:
    """Whether the CA has the fields that cannot be changed: subject, key algorithm, and issuer.

    Whoever signs a request may be another CA each time.
    """
    certificate, key = held.certificate, spec.private_key
    if certificate.subject != subject_name(spec.subject.common_name, subject_attributes(spec.subject)):
        return False
    if not is_key_of(held.key, key.algorithm, key.size):
        return False
    if spec.signed_by is not None:
        return True
    if spec.issuer_ref is None or certificate.issuer == certificate.subject:
        return spec.issuer_ref is None and certificate.issuer == certificate.subject
    return issuer is None or certificate.issuer == issuer.certificate.subject


def is_same_authority(secret: Secret, spec: InternalAuthority, issuer: Signer | None) -> bool:
    """Whether the Secret of an earlier CA has the key of this one, which may still wait for its certificate.

    It has a request if people, or an external CA, certify it.
    """
    held, request = signer_in(secret), secret.text(CERTIFICATE_REQUEST)
    by_request = spec.signed_by is not None
    if request is None or not (by_request or spec.issuer_ref is not None):
        return not by_request and request is None and held is not None and agrees(held, spec, issuer)
    try:
        key = load_private_key(secret.data.get(TLS_PRIVATE_KEY, b""))
    except ValueError:
        return False
    subject = subject_name(spec.subject.common_name, subject_attributes(spec.subject))
    algorithm, size = spec.private_key.algorithm, spec.private_key.size
    return request_key(request) == (subject, key.public_key()) and is_key_of(key, algorithm, size)


def former_keys(
    authority: CertificateAuthority, signer: Signer, secrets: Iterable[Secret | None], *, now: datetime
) -> tuple[FormerKey, ...]:
    """Return the other keys that the CA has had: what they have signed and revoked stays on its list until it ends.

    They are in `secrets`: that of the CA, and those of earlier objects of its name. What the status says counts only
    where the first one is missing, or is not as the operator has written it.
    """
    status = authority.status
    found: list[FormerKey] = []
    own, *earlier = secrets
    complete = own is not None and LONGEST_CERTIFICATE in own.metadata.annotations and signer_in(own) is not None
    if not complete:
        if status.subject_key_id is not None and status.not_after is not None:
            found.append(FormerKey(subject_key_id=status.subject_key_id, not_after=status.not_after))
        found += status.former_keys
    for secret in (own, *earlier):
        held = signer_in(secret)
        is_same = held is not None and held.certificate.subject == signer.certificate.subject
        if secret is None or held is None or not (is_same or secret is own):
            continue
        found.append(FormerKey(subject_key_id=subject_key_id(held.certificate), not_after=held.not_after))
        found += parse_former_keys(secret.metadata)
    ends: dict[str, datetime] = {}
    for each in found:
        ends[each.subject_key_id] = max(each.not_after, ends.get(each.subject_key_id, each.not_after))
    ends.pop(subject_key_id(signer.certificate), None)
    kept = [FormerKey(subject_key_id=key_id, not_after=end) for key_id, end in ends.items() if now <= end + MARGIN]
    return tuple(kept[:FORMER_KEYS])


def describe_another(authority: CertificateAuthority, signer: Signer, before: Iterable[Secret]) -> str:
    """Return that a CA of this name was deleted whose key is not used; empty if there was none, or it is the same."""
    for secret in before:
        held, until = signer_in(secret), kept_until(secret.metadata)
        if until is None or held is None or held.key.public_key() == signer.key.public_key():
            continue
        if authority.spec.imported is not None and held.certificate.subject == signer.certificate.subject:
            continue  # the owner of an imported CA has given it another key
        return (
            f"this is another CA than the deleted one of the same name, since subject, key algorithm or issuer differ;"
            f" the key of that one is kept until {until:%Y-%m-%dT%H:%M:%SZ} in Secret {secret.metadata.name}"
        )
    return ""
