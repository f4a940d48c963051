"""Terms of service: who has to agree to which, and when (RFC 8555, 7.3 and 7.3.3)."""

from __future__ import annotations

from acme_server.problems import ProblemType, Refused
from kms.resources.accounts import ACMEAccount
from kms.resources.profiles import AcmeEnrollment


def require_agreement(acme: AcmeEnrollment, *, agreed: bool) -> None:
    """Raise Refused (userActionRequired) where a new account must agree to terms and does not."""
    if acme.terms_of_service is not None and not agreed:
        raise _not_agreed("The terms of service must be agreed to", acme.terms_of_service)


def outdated(acme: AcmeEnrollment, account: ACMEAccount) -> bool:
    """Whether the account must agree to terms that it has not seen before it may order again."""
    return (
        acme.terms_of_service_changes == "RequireAgreement"
        and acme.terms_of_service is not None
        and account.status.terms_of_service_agreed != acme.terms_of_service
    )


def require_current(acme: AcmeEnrollment, account: ACMEAccount) -> None:
    """Raise Refused (userActionRequired) where `outdated`. The detail tells how to agree."""
    if acme.terms_of_service is not None and outdated(acme, account):
        raise _not_agreed(
            "The terms of service have changed; agree to them by a newAccount request with the key of the account and "
            "termsOfServiceAgreed",
            acme.terms_of_service,
        )


def _not_agreed(what: str, terms: str) -> Refused:
    return Refused(
        ProblemType.USER_ACTION_REQUIRED,
        f"{what}: {terms}",
        members={"instance": terms},
    )
