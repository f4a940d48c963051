"""The story of an account."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import datetime

from acme_server.accounts.credential_records import is_credential_of, objection
from kms.resources.accounts import ACMEAccount
from kms.resources.credentials import EABCredential
from kms.resources.orders import OrderState
from kms.resources.profiles import CertificateProfile
from kms_acme.explain.story import Line, Story, clock_time, in_order


def explain_account(
    account: ACMEAccount,
    credential: EABCredential | None,
    profile: CertificateProfile | None,
    orders: Mapping[OrderState, int],
    *,
    latest: datetime | None,
) -> Story:
    """The story of an account. `credential` is the one that it names, `latest` the time of its latest order."""
    namespace, name = account.metadata.namespace, account.metadata.name
    followed = credential if credential is not None and is_credential_of(account, credential) else None
    acme = profile.spec.enrollment.acme if profile is not None else None
    why = objection(account, followed, acme) if acme is not None else None
    lines = [*_lines(account, followed), *_orders(orders, latest)]
    return Story(
        title=f"ACMEAccount {namespace}/{name}",
        lines=in_order(lines),
        now=_state(account, why),
        is_well=account.status.state == "valid" and why is None,
        remedies=tuple(_remedies(account, followed)),
    )


def _lines(account: ACMEAccount, credential: EABCredential | None) -> Iterator[Line]:
    metadata, binding, status = account.metadata, account.spec.external_account, account.status
    how = ", without a credential"
    if binding is not None:
        how = f", with EABCredential {binding.namespace}/{binding.name} (key identifier {binding.key_id})"
    yield Line(
        f"The account was opened on profile {metadata.namespace}/{account.spec.profile_ref.name}{how}.",
        metadata.creation_timestamp,
    )
    if status.contact:
        yield Line(f"Its contacts are {', '.join(status.contact)}.")
    if status.terms_of_service_agreed:
        yield Line(f"It has agreed to the terms of service at {status.terms_of_service_agreed}.")
    if status.key is not None:
        yield Line("It has changed its key.", status.key.changed_at)
    record = status.credential
    if record is not None:
        yield Line(f"The server noted that its credential is {record.state.lower()}.", record.changed_at)
    if credential is not None and credential.spec.expires_at is not None:
        yield Line(
            f"The credential opens no accounts after {clock_time(credential.spec.expires_at)}; this account stays."
        )
    if credential is not None and credential.spec.names is not None:
        yield Line("The credential narrows the names of the policy (spec.names).")
    if status.suspended_at is not None:
        yield Line("An administrator suspended it.", status.suspended_at)
    if status.deactivated_at is not None:
        yield Line("It was deactivated.", status.deactivated_at)


def _orders(orders: Mapping[OrderState, int], latest: datetime | None) -> Iterator[Line]:
    total = sum(orders.values())
    if not total:
        yield Line("It has no orders.")
        return
    counts = ", ".join(f"{number} {state}" for state, number in sorted(orders.items()))
    yield Line(f"It made its latest order. All of its orders: {counts}.", latest)


def _state(account: ACMEAccount, why: str | None) -> str:
    alias = account.spec.alias_of
    if alias is not None:
        return f"This is an alias of account {account.metadata.namespace}/{alias.name}, for a later key."
    match account.status.state:
        case None:
            return "The account is not open yet: a server is opening it, or has failed to."
        case "valid":
            return f"The account may not act: {why}" if why is not None else "The account may order certificates."
        case "suspended":
            return "The account is suspended; it may read and download what it has."
        case state:
            return f"The account is {state}, which is final."


def _remedies(account: ACMEAccount, credential: EABCredential | None) -> Iterator[str]:
    name = f"{account.metadata.namespace}/{account.metadata.name}"
    if account.status.state == "suspended" or (
        account.status.credential is not None and account.status.credential.suspended
    ):
        yield f"kms-acme account resume --account {name}"
    if credential is not None and credential.spec.suspended:
        namespace, own = credential.metadata.namespace, credential.metadata.name
        yield f'kubectl -n {namespace} patch eab/{own} --type=merge -p \'{{"spec": {{"suspended": false}}}}\''
