"""The story of an order, and of its certificate."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime

from acme_server.orders.lifetimes import is_over
from kms.resources.accounts import ACMEAccount
from kms.resources.meta import condition
from kms.resources.orders import (
    OPEN_STATES,
    ACMEOrder,
    Authorization,
    Challenge,
    ChallengeType,
    StoredProblem,
    token_of,
)
from kms.resources.profiles import CertificateProfile
from kms_acme.explain.story import Line, Story, clock_time, in_order
from kms_acme.remedies import remedies_for_text


def explain_order(
    order: ACMEOrder, account: ACMEAccount | None, profile: CertificateProfile | None, *, now: datetime
) -> Story:
    """The story of an order with all its authorizations (with_authorizations).

    `account` and `profile` of None: they are gone.
    """
    name = f"{order.metadata.namespace}/{order.metadata.name}"
    lines = [*_beginning(order, account, profile), *_proofs(order), *_waiting(order, account), *_issuance(order)]
    lines += _end(order)
    return Story(
        title=f"ACMEOrder {name}",
        lines=in_order(lines),
        now=_state(order, now=now),
        is_well=_is_well(order, now=now),
        remedies=tuple(dict.fromkeys(_remedies(order, now=now))),
    )


def names_of(order: ACMEOrder) -> str:
    """The names of the order in one text."""
    return ", ".join(each.value for each in order.spec.identifiers)


def _beginning(order: ACMEOrder, account: ACMEAccount | None, profile: CertificateProfile | None) -> Iterator[Line]:
    namespace, spec = order.metadata.namespace, order.spec
    chosen = f' as "{spec.profile}"' if spec.profile else ""
    what = "an authorization" if spec.preauthorization else "a certificate"
    yield Line(
        f"Account {namespace}/{spec.account_ref.name}{_of_account(account)} ordered {what} for {names_of(order)} from"
        f" profile {namespace}/{spec.profile_ref.name}{chosen}.",
        order.metadata.creation_timestamp,
    )
    if spec.client_namespace is not None:
        yield Line(f"Its clients are in namespace {spec.client_namespace}.")
    if spec.replaces is not None:
        yield Line(f"It is a renewal, of the certificate {spec.replaces}.")
    if spec.not_before is not None or spec.not_after is not None:
        dates = [f"from {clock_time(spec.not_before)}"] if spec.not_before is not None else []
        dates += [f"until {clock_time(spec.not_after)}"] if spec.not_after is not None else []
        yield Line(f"It asked for validity {' '.join(dates)}.")
    if profile is None:
        yield Line(f"The profile {namespace}/{spec.profile_ref.name} no longer exists.")
    else:
        yield Line(
            f"Policy {namespace}/{profile.spec.policy_ref.name} decides about names, and CA"
            f" {namespace}/{profile.issuer_name} signs."
            if spec.contents_ref is None
            else f"Certificates, policy and CA are those of profile {namespace}/{spec.contents_ref.name}."
        )


def _of_account(account: ACMEAccount | None) -> str:
    if account is None:
        return " (which is gone)"
    facts = [f"EABCredential {'/'.join(account.credential)}"] if account.credential is not None else []
    facts += account.status.contact
    return f" ({', '.join(facts)})" if facts else ""


def _proofs(order: ACMEOrder) -> Iterator[Line]:
    proven_before = {each.authorization: each for each in order.spec.authorized}
    for position, authorization in enumerate(order.status.authorizations):
        name = order.spec.identifiers[position].value
        before = proven_before.get(position)
        if before is not None and before.order is None:
            yield Line(f"{name} needed no proof: the profile accepts the credential (ownershipValidation: Skipped).")
        elif before is not None:
            yield Line(
                f"{name} needed no new proof: it was proven by {before.type} at {clock_time(before.validated)} for"
                f" order {before.order}, which holds until {clock_time(before.expires)}."
            )
        else:
            for challenge in authorization.challenges:
                yield from _attempt(order, position, authorization, challenge)
        if authorization.state in {"deactivated", "expired", "revoked"}:
            yield Line(f"The authorization for {name} is {authorization.state}.")


def _attempt(order: ACMEOrder, position: int, authorization: Authorization, challenge: Challenge) -> Iterator[Line]:
    name = order.spec.identifiers[position].value
    place = tried_place(challenge.type, authorization.identifier.value, token_of(order.spec, position, challenge.type))
    match challenge.state:
        case "valid":
            yield Line(
                f"{name} was proven by {challenge.type}: the server found the answer at {place}.", challenge.validated
            )
        case "invalid":
            ended = condition(order.status.conditions, "Ready")
            when = challenge.started or (ended.last_transition_time if ended is not None else None)
            yield Line(f"{name} was not proven by {challenge.type}: {_what_was_tried(challenge, name, place)}.", when)
            yield from _problem(challenge.error)
        case "processing":
            yield Line(f"The server is trying {challenge.type} for {name} at {place}.", challenge.started)
            yield from _problem(challenge.error)
        case "pending":
            if authorization.state == "pending":
                yield Line(
                    f"{challenge.type} for {name} was offered ({place}); the client has not asked to validate it."
                )


def _what_was_tried(challenge: Challenge, name: str, place: str) -> str:
    """How far the server came. For dns-01, the lookup is all that it does."""
    error = challenge.error
    types = {error.type, *(each.type for each in error.subproblems)} if error is not None else set()
    if types == {"dns"} and challenge.type != "dns-01":
        return f"the lookup of the addresses of {name} failed, so the server has not asked {place}"
    if error is not None and error.type == "caa":
        return f"the server found the answer at {place}, and CAA records are in the way"
    return f"the server tried {place}"


def _problem(problem: StoredProblem | None) -> Iterator[Line]:
    if problem is not None:
        yield Line(f"What came back ({problem.type}): {problem.detail}")
        for each in problem.subproblems:
            yield Line(f"Before that ({each.type}): {each.detail}")


def tried_place(type_: ChallengeType, name: str, token: str | None) -> str:
    """What the server contacts for a challenge."""
    match type_:
        case "http-01":
            host = f"[{name}]" if ":" in name else name
            return f"http://{host}/.well-known/acme-challenge/{token or '<token>'}"
        case "dns-01":
            return f"the TXT records of _acme-challenge.{name}"
        case "tls-alpn-01":
            return f"port 443 of {name} (acme-tls/1)"


def _waiting(order: ACMEOrder, account: ACMEAccount | None) -> Iterator[Line]:
    """Where to look if the client says that it has sent its request: what is refused is not stored in the order."""
    if order.status.state == "ready" and account is not None and account.credential is not None:
        namespace, name = account.credential
        yield Line(
            "A certificate request that is refused does not change the order; the client is told why, and so are the"
            f" Events of its credential: kubectl -n {namespace} describe eab/{name}"
        )


def _issuance(order: ACMEOrder) -> Iterator[Line]:
    status, namespace = order.status, order.metadata.namespace
    if status.accepted is not None and status.certificate is None:
        yield Line("The certificate request was accepted.", status.accepted)
    if status.authority is not None and status.issuance is not None:
        asked = f"CA {namespace}/{status.authority.name} ({status.authority.type}) was asked for the certificate"
        yield Line(f"{asked}, attempt {status.issuance.attempt}.", status.issuance.not_before)
    ready = condition(status.conditions, "Ready")
    if status.state == "processing" and ready is not None and ready.message:
        yield Line(f"It has no certificate yet ({ready.reason}): {ready.message}", ready.last_transition_time)
    if status.certificate is not None and status.not_before is not None and status.not_after is not None:
        yield Line(
            f"Certificate {status.serial_number} was issued, valid from {clock_time(status.not_before)} until"
            f" {clock_time(status.not_after)}.",
            status.issued_at,
        )
        if status.left_out:
            yield Line(f"The request also asked for what the certificate does not have: {', '.join(status.left_out)}.")
    if status.revocation is not None:
        yield Line(f"The certificate was revoked ({status.revocation.reason}).", status.revocation.time)


def _end(order: ACMEOrder) -> Iterator[Line]:
    error = order.status.error
    if order.status.state != "invalid" or error is None:
        return
    ready = condition(order.status.conditions, "Ready")
    yield Line(f"The order failed ({error.type}): {error.detail}", ready.last_transition_time if ready else None)
    if ready is not None and error.detail not in ready.message and ready.message not in error.detail:
        # What an external CA has said, or what is wrong with its certificate: clients are not told.
        yield Line(f"The cause ({ready.reason}): {ready.message}")
    known = {each.error.detail for one in order.status.authorizations for each in one.challenges if each.error}
    for sub in error.subproblems:
        if sub.detail not in known:
            about = f" for {sub.identifier.value}" if sub.identifier is not None else ""
            yield Line(f"{sub.type}{about}: {sub.detail}")


def _state(order: ACMEOrder, *, now: datetime) -> str:
    status = order.status
    if status.revocation is not None:
        return "The certificate is revoked."
    if status.not_after is not None:
        how = "expired at" if is_over(status.not_after, now=now) else "is valid until"
        return f"The certificate {how} {clock_time(status.not_after)}."
    if status.state in OPEN_STATES and is_over(order.spec.expires, now=now):
        return f"The order expired at {clock_time(order.spec.expires)}; the client has to order again."
    until = clock_time(order.spec.expires)
    open_states = {
        "pending": f"The order waits for proofs until {until}.",
        "ready": f"All names are proven; the order waits for the client's certificate request until {until}.",
        "processing": "The certificate is being issued.",
    }
    return open_states.get(status.state, "The order has failed; the client has to order again.")


def _is_well(order: ACMEOrder, *, now: datetime) -> bool:
    status = order.status
    if status.state == "invalid" or status.revocation is not None:
        return False
    ends = status.not_after if status.not_after is not None else order.spec.expires
    return not is_over(ends, now=now)


def _remedies(order: ACMEOrder, *, now: datetime) -> Iterator[str]:
    if _is_well(order, now=now) and order.status.state != "pending":
        return
    for position, authorization in enumerate(order.status.authorizations):
        for challenge in authorization.challenges:
            if challenge.error is not None and challenge.state in {"invalid", "processing"}:
                token = token_of(order.spec, position, challenge.type)
                yield _look_up(challenge.type, challenge.error.type, authorization.identifier.value, token)
    error = order.status.error
    if error is not None:
        yield from remedies_for_text(error.detail)
        for each in error.subproblems:
            yield from remedies_for_text(each.detail, each.identifier)


def _look_up(type_: ChallengeType, problem: str, name: str, token: str | None) -> str:
    """The command that shows what the server saw."""
    if problem == "caa":
        return f"dig CAA {name}"
    if type_ == "dns-01":
        return f"dig TXT _acme-challenge.{name}"
    if problem == "dns":
        # The server may ask other DNS servers than the machine of the administrator.
        return f"dig A {name}; dig AAAA {name}  # at the DNS servers of the server (--dns-server)"
    if type_ == "tls-alpn-01":
        return f"openssl s_client -connect {name}:443 -servername {name} -alpn acme-tls/1 </dev/null"
    return f"curl --verbose {tried_place(type_, name, token)}"
