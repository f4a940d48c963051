"""Teams use clients that make their requests with openssl: acme.sh, getssl, Crypt::LE, and devices.

Their subjects have attributes that the team never chose. The certificate is for the names and the key alone.
"""

from __future__ import annotations

from pathlib import Path

import pytest
from cryptography import x509
from cryptography.x509.oid import ExtensionOID, NameOID

from e2e.load.client import Client
from e2e.load.exchange import Exchange
from e2e.load.keys import AccountKey, ExternalAccount
from e2e.stories.replay import HERE, names_of, ready_address, ready_order
from e2e.stories.requests import ACME_SH_FOR_AN_ADDRESS, STYLES, made_with_openssl
from e2e.stories.story import Story

pytestmark = pytest.mark.usefixtures("all_challenges")


def alternative(leaf: x509.Certificate) -> list[str]:
    names = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    return [*names.get_values_for_type(x509.DNSName), *map(str, names.get_values_for_type(x509.IPAddress))]


@pytest.mark.parametrize("who", STYLES)
async def test_the_request_of_a_client_gets_a_certificate_for_its_names(
    client: Client, story: Story, tmp_path: Path, who: str
) -> None:
    order = await ready_order(client, story, "first", "second")
    names = names_of(order)
    request = made_with_openssl(STYLES[who], order.body["identifiers"], tmp_path)
    leaf = (await client.certificate(await client.finalize(order, request))).leaf
    assert sorted(alternative(leaf)) == sorted(names)
    assert leaf.public_key() == x509.load_der_x509_csr(request).public_key()
    assert {each.oid for each in leaf.subject} <= {NameOID.COMMON_NAME}
    assert all(each.value in names for each in leaf.subject)


async def test_acme_sh_asks_for_an_address_with_its_own_name_as_organization(
    client: Client, story: Story, tmp_path: Path
) -> None:
    order = await ready_address(client, story)
    request = made_with_openssl(ACME_SH_FOR_AN_ADDRESS, order.body["identifiers"], tmp_path)
    leaf = (await client.certificate(await client.finalize(order, request))).leaf
    assert alternative(leaf) == [HERE]
    assert list(leaf.subject) == []
    assert leaf.extensions.get_extension_for_oid(ExtensionOID.SUBJECT_ALTERNATIVE_NAME).critical


async def test_acme_sh_opens_its_account_with_a_blank_after_mailto(
    exchange: Exchange, external_account: ExternalAccount
) -> None:
    client = Client(exchange, AccountKey.generate())
    opened = await client.register(contact=["mailto: team@example.com"], external_account=external_account)
    assert opened.json()["contact"] == ["mailto:team@example.com"]
