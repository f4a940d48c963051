from __future__ import annotations

from typing import Literal

import pytest
from msgspec.structs import replace

from acme_server.accounts import terms
from acme_server.api.problems import status_of
from acme_server.problems import ProblemType, Refused
from kms.resources.accounts import AccountStatus, ACMEAccount
from kms.resources.profiles import AcmeEnrollment
from tests.support.accounts import account

NOW, BEFORE = "https://example.com/terms/2", "https://example.com/terms/1"


def agreed_to(url: str | None) -> ACMEAccount:
    return replace(account("a"), status=AccountStatus(state="valid", terms_of_service_agreed=url))


def profile(
    url: str | None = NOW, changes: Literal["Ignore", "RequireAgreement"] = "RequireAgreement"
) -> AcmeEnrollment:
    return AcmeEnrollment(terms_of_service=url, terms_of_service_changes=changes)


@pytest.mark.requirement("M81")
def test_who_opens_an_account_agrees_where_there_is_something_to_agree_to() -> None:
    terms.require_agreement(profile(None), agreed=False)
    terms.require_agreement(profile(), agreed=True)
    with pytest.raises(Refused) as caught:
        terms.require_agreement(profile(), agreed=False)
    assert caught.value.type is ProblemType.USER_ACTION_REQUIRED


@pytest.mark.requirement("M86")
@pytest.mark.parametrize("before", [BEFORE, None])
def test_an_account_that_agreed_to_other_terms_is_told_how_to_agree(before: str | None) -> None:
    with pytest.raises(Refused) as caught:
        terms.require_current(profile(), agreed_to(before))
    assert (caught.value.type, status_of(caught.value)) == (ProblemType.USER_ACTION_REQUIRED, 403)
    assert caught.value.members["instance"] == NOW
    assert "newAccount" in caught.value.detail
    assert NOW in caught.value.detail


@pytest.mark.requirement("M86")
def test_where_changes_are_ignored_and_where_there_are_none_nobody_is_asked() -> None:
    terms.require_current(profile(), agreed_to(NOW))
    terms.require_current(profile(None), agreed_to(BEFORE))
    terms.require_current(profile(changes="Ignore"), agreed_to(BEFORE))
