"""`kms-acme account`: suspends, resumes and deactivates accounts as an administrator, with a kubeconfig's rights."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Literal

from acme_server.accounts import transitions
from acme_server.accounts.credential_records import last_record
from acme_server.problems import Refused
from kms.clock import Clock
from kms.cluster import errors
from kms.cluster.client import Cluster
from kms.resources.accounts import LIVE_STATES, ACMEAccount
from kms.resources.client_namespaces import clients_at
from kms.resources.kinds import ACCOUNTS
from kms.resources.meta import Unreadable
from kms_acme.status_changes import NotChanged, change_each, list_objects, replace_status

Action = Literal["suspend", "resume", "deactivate"]


@dataclass(frozen=True, slots=True)
class Selection:
    """The accounts to change: exactly one of the first three members is set.

    `account` and `credential` are (namespace, name); `clients` is a namespace of EABCredentials or of their clients.
    `profiles` limits the search to the profiles of one namespace.
    """

    account: tuple[str, str] | None = None
    credential: tuple[str, str] | None = None
    clients: str | None = None
    profiles: str | None = None


async def find_accounts(
    cluster: Cluster, selection: Selection, *, on_unreadable: Callable[[Unreadable], None]
) -> tuple[ACMEAccount, ...]:
    """The selected accounts that are open. Raises NotChanged if there is none, and ClusterError.

    `on_unreadable` is called with each account that does not fit its model: it may be one of them.
    """
    if selection.account is not None:
        return (await _account(cluster, selection.account),)
    fields = "spec.aliasOf.name="
    if selection.credential is not None:
        fields += f",spec.externalAccount.name={selection.credential[1]}"
    listed = list_objects(cluster, ACCOUNTS, selection.profiles, on_unreadable=on_unreadable, fields=fields)
    found = tuple([each async for each in listed if _is_selected(each, selection)])
    if not found:
        raise NotChanged("no such accounts; `kubectl get acmeaccounts -A` lists all accounts")
    return found


def _is_selected(account: ACMEAccount, selection: Selection) -> bool:
    binding, last = account.spec.external_account, last_record(account)
    if binding is None or last is None or account.status.state is None:
        return False
    if account.credential == selection.credential:
        return True
    clients = clients_at(binding.namespace, last, profile_namespace=account.metadata.namespace)
    return selection.clients in {clients.home, clients.namespace}


async def _account(cluster: Cluster, key: tuple[str, str]) -> ACMEAccount:
    name = "/".join(key)
    try:
        found = await cluster.get(ACCOUNTS, *key)
    except errors.NotFound:
        raise NotChanged(f"there is no ACMEAccount {name}") from None
    if found.spec.alias_of is not None:
        raise NotChanged(f"ACMEAccount {name} is an alias; name its account, {key[0]}/{found.spec.alias_of.name}")
    if found.status.state is None:
        raise NotChanged(f"ACMEAccount {name} is not open; a server is still opening it, or has failed to")
    return found


def filter_affected(accounts: Sequence[ACMEAccount], action: Action) -> tuple[ACMEAccount, ...]:
    """The accounts that the action changes: those that have ended, for example, cannot be suspended."""
    return tuple(each for each in accounts if _is_affected(each, action))


def _is_affected(account: ACMEAccount, action: Action) -> bool:
    status = account.status
    match action:
        case "suspend":
            return status.state == "valid"
        case "resume":
            outlived = status.credential is not None and status.credential.suspended
            return status.state == "suspended" or (status.state == "valid" and outlived)
        case "deactivate":
            return status.state in LIVE_STATES


def require_not_ended(account: ACMEAccount) -> None:
    """Raise NotChanged if the account is deactivated or revoked."""
    if account.status.state not in LIVE_STATES:
        raise NotChanged(f"the account is {account.status.state}, which is final")


async def change_all(
    cluster: Cluster,
    accounts: Sequence[ACMEAccount],
    action: Action,
    *,
    clock: Clock,
    on_done: Callable[[ACMEAccount, str | None], None],
) -> int:
    """Change these accounts and return the number of failures.

    `on_done` is called with each account, and with the error where changing it failed.
    """
    return await change_each(accounts, lambda account: _change(cluster, account, action, clock=clock), on_done=on_done)


async def _change(cluster: Cluster, account: ACMEAccount, action: Action, *, clock: Clock) -> None:
    """Write one change. An account that was changed like this meanwhile is no failure."""
    try:
        changed = await replace_status(cluster, ACCOUNTS, account, partial(_TRANSITIONS[action], now=clock()))
    except Refused as refused:
        raise NotChanged(refused.detail) from None
    if action != "deactivate":
        require_not_ended(changed)


_TRANSITIONS: Mapping[Action, Callable[..., ACMEAccount]] = {
    "suspend": transitions.suspended,
    "resume": transitions.resumed,
    "deactivate": transitions.deactivated,
}
