"""The JSON objects of RFC 8555, 7.1 that clients receive.

Members without a value are absent: several clients fail on empty strings and null.
Times are whole seconds in UTC (`2026-11-23T14:00:00Z`): not every client reads fractions.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from acme_server.api.problems import stored_problem
from acme_server.certificates.renewal_info import RenewalInfo
from acme_server.model import Profile
from acme_server.orders import transitions
from acme_server.urls import OrderURLs, URLs
from kms.clock import in_utc
from kms.resources import ACMEAccount, ACMEOrder
from kms.resources.orders import Authorization, Challenge, challenge_of, token_of

View = dict[str, Any]


def timestamp(moment: datetime) -> str:
    """The time in the form of RFC 3339 as all clients read it: `2026-11-23T14:00:00Z`."""
    return in_utc(moment).isoformat(timespec="seconds").replace("+00:00", "Z")


def directory(profile: Profile, offered: Mapping[str, str], urls: URLs) -> View:
    """The directory, with the resources that the profile enables.

    `description` in its metadata is none of the members of RFC 8555, 7.1.1; clients ignore it, and people find it.
    `offered` are the available order profiles, each with its description.
    """
    at = profile.namespace, profile.name
    acme = profile.acme
    meta = {
        "termsOfService": acme.terms_of_service,
        "website": acme.website,
        "caaIdentities": acme.caa_identities,
        "externalAccountRequired": acme.external_account_binding == "Required",
        "profiles": offered,
        "description": profile.resource.spec.description,
    }
    view: View = {
        "newNonce": urls.resource(*at, "new-nonce"),
        "newAccount": urls.resource(*at, "new-account"),
        "newOrder": urls.resource(*at, "new-order"),
        "keyChange": urls.resource(*at, "key-change"),
        "renewalInfo": urls.resource(*at, "renewal-info"),
        "revokeCert": urls.resource(*at, "revoke-cert"),
    }
    if acme.pre_authorization == "Enabled":
        view["newAuthz"] = urls.resource(*at, "new-authz")
    view["meta"] = {name: value for name, value in meta.items() if value is False or value}
    return view


def account(account: ACMEAccount, urls: URLs) -> View:
    """An account.

    `externalAccountBinding` is left out. RFC 8555, 7.3.4 wants it back verbatim, but no client reads it, and
    certbot's library cannot send an account object back that holds one: it raises TypeError on the next update.
    """
    # RFC 8555 has no word for a suspended account: its certificates are valid, and it may become usable again.
    view: View = {"status": "valid" if account.status.state == "suspended" else account.status.state}
    if account.status.contact:
        view["contact"] = account.status.contact
    if account.status.terms_of_service_agreed:
        view["termsOfServiceAgreed"] = True
    view["orders"] = urls.orders(account)
    return view


def orders(urls: list[str]) -> View:
    """A page of the list of an account's orders."""
    return {"orders": urls}


def order(order: ACMEOrder, urls: OrderURLs) -> View:
    """An order, with the name of its profile if it has one."""
    spec, status = order.spec, order.status
    view: View = {
        "status": status.state,
        "expires": timestamp(spec.expires),
        "identifiers": spec.identifiers,
        "authorizations": urls.authorizations,
        "finalize": urls.finalize,
    }
    if spec.not_before is not None:
        view["notBefore"] = timestamp(spec.not_before)
    if spec.not_after is not None:
        view["notAfter"] = timestamp(spec.not_after)
    if spec.replaces is not None:
        view["replaces"] = spec.replaces
    if spec.profile is not None:
        view["profile"] = spec.profile
    if status.error is not None:
        view["error"] = stored_problem(status.error, transitions.subproblems_of(order))
    if status.state == "valid":
        view["certificate"] = urls.certificate
    return view


def renewal_info(info: RenewalInfo) -> View:
    """When to renew a certificate."""
    window = info.window
    return {"suggestedWindow": {"start": timestamp(window.start), "end": timestamp(window.end)}}


def authorization(order: ACMEOrder, position: int, urls: URLs) -> View:
    """The authorization for the identifier at `position`."""
    shown = order.status.authorizations[position]
    view: View = {
        "status": shown.state,
        "expires": timestamp(shown.expires),
        "identifier": shown.identifier,
        "challenges": [_challenge(order, position, each, urls) for each in _relevant(shown)],
    }
    if shown.wildcard:
        view["wildcard"] = True
    return view


def challenge(order: ACMEOrder, position: int, type_: str, urls: URLs) -> View | None:
    """The challenge of that type; None if the authorization has none."""
    found = challenge_of(order, position, type_)
    return _challenge(order, position, found, urls) if found else None


def _relevant(authorization: Authorization) -> tuple[Challenge, ...]:
    """All challenges of a pending authorization; later only those that were tried."""
    tried = tuple(each for each in authorization.challenges if each.state != "pending")
    return authorization.challenges if authorization.state == "pending" or not tried else tried


def _challenge(order: ACMEOrder, position: int, challenge: Challenge, urls: URLs) -> View:
    """A challenge. Its token is always there: several clients cannot read one without."""
    view: View = {
        "type": challenge.type,
        "url": urls.challenge(order, position, challenge.type),
        "status": challenge.state,
        "token": token_of(order.spec, position, challenge.type) or "",
    }
    if challenge.validated is not None:
        view["validated"] = timestamp(challenge.validated)
    if challenge.error is not None:
        view["error"] = stored_problem(challenge.error)
    return view
