"""What accounts, orders and records take in etcd and in memory, in octets: the unit in which they are limited. Pure.

etcd holds the JSON that the API server sends. Objects are weighed by what they contain, not as they arrive, so that
every replica weighs the same version alike; what only the API server adds is estimated, rather too high than too low.
"""

from __future__ import annotations

import msgspec

from kms.resources.accounts import ACMEAccount
from kms.resources.orders import OPEN_STATES, ACMEOrder, OrderSpec, with_authorizations
from kms.resources.revocations import RevocationRecord

_ADDED = 160
"""apiVersion, kind and what our models do not have."""
_MANAGED_FIELDS = 1_000
_MANAGED_ITEM = 130
"""What managedFields take, and for an order of an earlier version also of each item of its lists."""
_STATE = 18
_DETAIL = 512
_RESULT = 320
"""What the result of a validation adds, beside the name: it is in the error of a challenge up to twice."""
_BLOCKED_KEY = 600
"""What is added for each thumbprint of a record: it takes 250 octets of memory, and 46 in etcd."""

_LEFT_OUT = 1_200
"""What an order says about what was left out of its certificate (certificate_template.MAXIMUM_LEFT_OUT)."""
_WAITING = 2_000
"""What an order says about the CA that it waits for: 256 characters of the CA, and how far it was asked."""

_encoder = msgspec.json.Encoder()


def weigh_order(order: ACMEOrder) -> int:
    """The octets of the order; of an open one, what it takes until it fails or its CSR is accepted."""
    if order.status.state not in OPEN_STATES:
        return _json(order) + _defaults(order) + _managed_fields(order.spec)
    order = with_authorizations(order)
    return _json(order) + _defaults(order) + _managed_fields(order.spec) + _results(order.spec)


def weigh_account(account: ACMEAccount) -> int:
    """The octets of the account."""
    return _json(account) + _MANAGED_FIELDS


def weigh_record(record: RevocationRecord) -> int:
    """The octets of the record; at least two and a half times what is kept of it in memory."""
    keys = len(record.spec.account.thumbprints) if record.spec.account is not None else 0
    return _json(record) + _MANAGED_FIELDS + keys * _BLOCKED_KEY


def memory_of_order(order: ACMEOrder) -> int:
    """The octets of memory that the decoded order takes, roughly."""
    status = order.status
    challenges = sum([len(each.challenges) for each in status.authorizations])
    names = _octets_of_names(order.spec)
    texts = len(status.certificate or "") + len(status.request or b"")
    errors = challenges * _DETAIL if status.state == "invalid" else 0
    return 4_000 + texts + errors + 2 * names + 600 * len(status.authorizations) + 200 * challenges


def memory_of_account(account: ACMEAccount) -> int:
    """The octets of memory that the decoded account takes, roughly."""
    return 3 * weigh_account(account)


def weigh_issuance(order: ACMEOrder, *, request: int, chain: int, waits: bool = False) -> int:
    """The octets that an order may grow by when it is finalized.

    `request` are the octets of the CSR in DER, which is stored in base64 while the order is processing; `chain` are
    those of the CA's chain in PEM. The certificate repeats the names of the CSR, also in base64, and the order
    what was left out of it. An order that `waits` for a CA says for what, in the CA's words.
    """
    certificate = _octets_of_names(order.spec) + 4 * len(order.spec.identifiers) + 2_048
    return 4 * max(request, certificate) // 3 + chain + (_WAITING if waits else 0) + _LEFT_OUT


def _json(resource: ACMEOrder | ACMEAccount | RevocationRecord) -> int:
    return len(_encoder.encode(resource)) + _ADDED


def _defaults(order: ACMEOrder) -> int:
    """The states that our models leave out, and the CRD adds."""
    return sum([(1 + len(each.challenges)) * _STATE for each in order.status.authorizations])


def _managed_fields(spec: OrderSpec) -> int:
    if not spec.tokens:
        return _MANAGED_FIELDS
    items = len(spec.identifiers) + len(spec.authorized) + len(spec.tokens)
    return _MANAGED_FIELDS + items * _MANAGED_ITEM + _octets_of_names(spec)


def _results(spec: OrderSpec) -> int:
    known = len(spec.authorized)
    return (len(spec.identifiers) - known) * _RESULT + 2 * _octets_of_names(spec)


def _octets_of_names(spec: OrderSpec) -> int:
    return sum([len(each.value) for each in spec.identifiers])
