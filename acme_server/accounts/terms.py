"""Agreement to terms of service (RFC 8555, 7.3 and 7.3.3)."""

from __future__ import annotations

from acme_server.problems import ProblemType, Refused
from kms.resources.accounts import ACMEAccount
from kms.resources.profiles import AcmeEnrollment


def require_agreement(acme: AcmeEnrollment, *, agreed: bool) -> None:
    """Raise Refused (userActionRequired) if a new account must agree to terms and does not."""
    if acme.terms_of_service is not None and not agreed:
        raise _action_required("The terms of service must be agreed to", acme.terms_of_service)


def is_outdated(acme: AcmeEnrollment, account: ACMEAccount) -> bool:
    """Whether the account must agree to terms that it has not seen before it may order again."""
    return (
        acme.terms_of_service_changes == "RequireAgreement"
        and acme.terms_of_service is not None
        and account.status.terms_of_service_agreed != acme.terms_of_service
    )


def require_current(acme: AcmeEnrollment, account: ACMEAccount) -> None:
    """Raise Refused (userActionRequired) where `is_outdated`. The detail tells how to agree."""
    if acme.terms_of_service is not None and is_outdated(acme, account):
        raise _action_required(
            "The terms of service have changed; agree to them by a newAccount request with the key of the account and "
            "termsOfServiceAgreed",
            acme.terms_of_service,
        )


def _action_required(what: str, terms: str) -> Refused:
    return Refused(
        ProblemType.USER_ACTION_REQUIRED,
        f"{what}: {terms}",
        members={"instance": terms},
    )
