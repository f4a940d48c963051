"""What an account keeps of its EABCredential, and what the credential allows the account now. Pure.

An account follows the credential of the namespace and name that it was opened with. If the credential is deleted, the
account keeps what it said last; if it is made again, the account follows the new object, whose UID is another one. Only
a suspension outlives that: it ends with the object that said so, or by an administrator.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from msgspec.structs import replace

from acme_server.problems import ProblemType, Refused
from kms.pki.quoting import quoted
from kms.resources.accounts import LIVE_STATES, ACMEAccount, CredentialRecord
from kms.resources.credentials import EABCredential
from kms.resources.meta import Key
from kms.resources.profiles import AcmeEnrollment


def last_record(account: ACMEAccount) -> CredentialRecord | None:
    """What the credential of the account said last: later, or when it opened the account. None: it has none."""
    binding = account.spec.external_account
    if binding is None:
        return None
    if account.status.credential is not None:
        return account.status.credential
    opened = account.metadata.creation_timestamp or datetime.min.replace(tzinfo=UTC)
    return CredentialRecord(
        state="Active",
        uid=binding.uid,
        changed_at=opened,
        names=binding.names,
        profiles=binding.profiles,
        client_namespace=binding.client_namespace,
        shared=binding.shared,
    )


def is_credential_of(account: ACMEAccount, credential: EABCredential) -> bool:
    """Whether the account follows the credential: one of this namespace and name, on the profile of the account.

    A credential that is being deleted counts as gone, however long a finalizer keeps it.
    """
    binding, metadata = account.spec.external_account, credential.metadata
    return (
        binding is not None
        and metadata.deletion_timestamp is None
        and (metadata.namespace, metadata.name) == (binding.namespace, binding.name)
        and credential.profile_key == (account.metadata.namespace, account.spec.profile_ref.name)
    )


def objection(account: ACMEAccount, credential: EABCredential | None, acme: AcmeEnrollment) -> str | None:
    """Why the account may not act; None: its credential allows that.

    `credential` is the one that the account follows; None: there is none any more.
    """
    binding, last = account.spec.external_account, account.status.credential
    if binding is None:
        return None
    name = f"{binding.namespace}/{binding.name}"
    if credential is None and acme.credential_deletion == "SuspendAccounts":
        return f"The account's EAB credential {name} was deleted."
    if credential is not None and credential.spec.suspended:
        return f"The account's EAB credential {name} is suspended."
    if last is not None and last.suspended and (credential is None or credential.metadata.uid != last.uid):
        return f"The account's EAB credential {name} was suspended when it was deleted."
    return None


def opening_objection(credential: EABCredential, *, now: datetime) -> str | None:
    """Why the credential opens no account now, as the end of a sentence about its key; None: it may."""
    if credential.spec.suspended:
        return "is suspended"
    expires = credential.spec.expires_at
    return "has expired" if expires is not None and now >= expires else None


def require_entitled(entitled: tuple[str, ...] | None, name: str | None, *, credential: Key) -> None:
    """Raise Refused (invalidProfile) if the credential does not entitle its accounts to the order profile `name`.

    A name is no authorisation. The directory's own profile, without a name, is for all its accounts. `entitled` of None
    are all order profiles.
    """
    if name and entitled is not None and name not in entitled:
        allowed = ", ".join(entitled) or "none"
        raise Refused(
            ProblemType.INVALID_PROFILE,
            f"The account's EAB credential {'/'.join(credential)} does not entitle it to profile {quoted(name)}; "
            f"it does to {allowed}.",
        )


def may_be_made_again(account: ACMEAccount, *, now: datetime, within: timedelta) -> bool:
    """Whether the account's credential, which is gone, was deleted so recently that it may be about to be replaced.

    That would change nothing for an account whose suspension outlives the credential.
    """
    last = last_record(account)
    return last is not None and not last.suspended and (last.state != "Deleted" or now - last.changed_at < within)


def with_record(account: ACMEAccount, credential: EABCredential | None, *, now: datetime) -> ACMEAccount:
    """The account with a record of what its credential says; None: it is gone.

    Unchanged if it holds that already, and where it is not open or has ended.
    """
    last = last_record(account)
    if last is None or account.status.state not in LIVE_STATES:
        return account
    if credential is None:
        wanted = replace(last, state="Deleted")
    else:
        spec, uid = credential.spec, credential.metadata.uid
        outlived = last.suspended and uid != last.uid and not spec.suspended
        suspended = spec.suspended or outlived
        wanted = replace(
            last,
            state="Suspended" if suspended else "Active",
            uid=last.uid if outlived else uid,
            suspended=suspended,
            names=spec.names,
            profiles=spec.profiles,
            client_namespace=spec.client_namespace,
            shared=spec.shared,
        )
    if wanted == last:
        return account
    return replace(account, status=replace(account.status, credential=replace(wanted, changed_at=now)))
