from __future__ import annotations

import pytest
from prometheus_client import generate_latest

from acme_server.metrics import Metrics
from acme_server.unvalidated_profiles import UnvalidatedProfiles
from kms.resources.meta import LocalRef, ObjectMeta
from kms.resources.profiles import AcmeEnrollment, CertificateProfile, Enrollment, ProfileSpec


def profile(name: str, **acme: object) -> CertificateProfile:
    return CertificateProfile(
        metadata=ObjectMeta(namespace="pki", name=name),
        spec=ProfileSpec(
            issuer_ref=LocalRef(name="ca"),
            policy_ref=LocalRef(name="policy"),
            enrollment=Enrollment(acme=AcmeEnrollment(**acme)),  # type: ignore[arg-type]
        ),
    )


@pytest.mark.requirement("SEC50")
def test_profiles_that_skip_the_validation_of_ownership_are_in_the_log_and_in_the_metrics(
    caplog: pytest.LogCaptureFixture,
) -> None:
    unvalidated, metrics = UnvalidatedProfiles(), Metrics()
    metrics.watch_unvalidated_profiles(unvalidated.count)
    unvalidated.update(profile("web"), False)
    for _ in range(3):
        unvalidated.update(profile("trusting", ownership_validation="Skipped"), False)
    warned = [each for each in caplog.records if each.levelname == "WARNING"]
    assert [each.message for each in warned] == ["ownership of names is not validated"]
    assert warned[0].__dict__["profile"] == "pki/trusting"
    assert b"kms_acme_profiles_without_ownership_validation 1.0" in generate_latest(metrics.registry)
    unvalidated.update(profile("trusting"), False)
    assert unvalidated.count() == 0
    unvalidated.update(profile("trusting", ownership_validation="Skipped"), False)
    unvalidated.update(profile("trusting", ownership_validation="Skipped"), True)
    assert unvalidated.count() == 0
