"""Records of revocations outlive orders and accounts, so they have a limit of their own, in octets."""

from __future__ import annotations

import tracemalloc
from datetime import UTC, datetime

import msgspec
import pytest
from msgspec.structs import replace

from acme_server.orders import transitions
from acme_server.state.index import Index
from acme_server.state.revocation_records import RevocationRecords, certificate_record
from acme_server.state.weight import weigh_record
from kms.pki.certificate import certificate_pem
from kms.resources.meta import ObjectMeta
from kms.resources.revocations import AccountRevocation, CertificateRevocation, RevocationRecord, RevocationRecordSpec
from tests.support import pki
from tests.support.acmeorders import certified

pytestmark = pytest.mark.requirement("SEC72", "SEC73")
LATE = datetime(2027, 11, 30, 12, 30, 59, 999_999, tzinfo=UTC)
MANY = 200


def record(number: int, namespace: str = "busy", *, thumbprints: int = 0, longest: bool = False) -> RevocationRecord:
    """A record of a certificate, or of an account with so many keys; the `longest` that the schema admits."""
    keys = tuple(f"{number:05}-{position:03}".ljust(43, "x") for position in range(thumbprints))
    certificate = CertificateRevocation(
        authority_key_id="ab" * (64 if longest else 20),
        serial_number=f"{number:0{128 if longest else 40}x}",
        public_key_digest=f"{number:064x}",
        not_after=LATE,
        time=LATE,
        reason="cessationOfOperation",
    )
    return RevocationRecord(
        metadata=ObjectMeta(
            namespace="kms-acme", name=f"compromised-{number:052}", uid="u" * 36, resource_version=f"{number + 1}"
        ),
        spec=RevocationRecordSpec(
            namespace=namespace.ljust(63, "x") if longest else namespace,
            profile="p" * (253 if longest else 3),
            until=LATE,
            certificate=None if keys else certificate,
            account=AccountRevocation(state="deactivated", thumbprints=keys) if keys else None,
        ),
    )


@pytest.mark.parametrize("thumbprints", [0, 1, 102])
@pytest.mark.parametrize("longest", [False, True])
def test_no_record_takes_more_than_it_weighs_in_etcd_and_half_in_memory(thumbprints: int, *, longest: bool) -> None:
    one = record(1, thumbprints=thumbprints, longest=longest)
    assert weigh_record(one) >= len(msgspec.json.encode(one)) + 700, "with what the API server adds"
    records = RevocationRecords(index := Index[RevocationRecord]())
    encoded = [msgspec.json.encode(record(number, thumbprints=thumbprints, longest=longest)) for number in range(MANY)]
    decoder = msgspec.json.Decoder(RevocationRecord)
    tracemalloc.start()
    before, _ = tracemalloc.get_traced_memory()
    for each in encoded:
        index.update(decoder.decode(each), False)
    after, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert len(records) == MANY
    assert (after - before) / MANY < weigh_record(one) / 2


def test_a_namespace_has_a_share_of_the_records_and_leaves_room_for_another() -> None:
    weight = weigh_record(record(1))
    records = RevocationRecords(index := Index[RevocationRecord](), maximum_octets=100 * weight, namespace_share=0.5)
    stored = 0
    while records.has_room("busy", weight):
        index.update(record(stored), False)
        stored += 1
    assert 45 <= stored <= 51
    assert records.has_room("busy", weight, urgent=True), "a compromised key is recorded still"
    assert records.has_room("quiet", 20 * weight)
    for _ in range(stored):
        stored -= 1
        index.delete(record(stored).metadata)
    assert records.has_room("busy", 50 * weight)


@pytest.mark.requirement("X42")
def test_certificates_of_two_cas_with_one_serial_number_have_two_records() -> None:
    names = set()
    for which in ("one", "another"):
        signer = pki.root(common_name=which, with_key=pki.key(which=which))
        chain = certificate_pem(signer.certificate)
        order = transitions.revoked(certified(), "superseded", now=LATE)
        for authority_key_id in ("", None):
            status = replace(order.status, authority_key_id=authority_key_id, certificate=chain, serial_number="1")
            found = certificate_record(replace(order, status=status), "kms-acme")
            assert found is not None
            names.add(found.metadata.name)
    assert len(names) == 2
