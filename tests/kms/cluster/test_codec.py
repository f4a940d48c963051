from __future__ import annotations

import json
import logging

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kms.cluster.codec import (
    Identity,
    decode,
    decode_event,
    decode_items,
    decode_known_event,
    decode_page,
    encode,
)
from kms.cluster.errors import ClusterError, Gone, Undecodable
from kms.cluster.unreadable import cut, is_cut
from kms.resources.core import Secret
from kms.resources.kinds import ACCOUNTS, CREDENTIALS, ISSUERS, SECRETS
from kms.resources.meta import ObjectMeta
from tests.support.accounts import account


def test_an_object_is_sent_with_its_api_version_and_kind() -> None:
    body = json.loads(encode(ACCOUNTS, account("a")))
    assert (body["apiVersion"], body["kind"]) == ("pki.kms.hanzo.ai/v1alpha1", "ACMEAccount")
    assert body["metadata"] == {"name": "a", "namespace": "pki"}


def test_what_has_been_encoded_decodes_to_itself() -> None:
    assert decode(ACCOUNTS, encode(ACCOUNTS, account("a"))) == account("a")


def test_a_mapping_gets_the_api_version_and_kind_of_its_kind_whatever_it_says() -> None:
    body = json.loads(encode(SECRETS, {"kind": "Pod", "metadata": {"name": "x"}}))
    assert body == {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "x"}}


def test_an_object_that_does_not_fit_is_named_and_its_content_is_not_quoted() -> None:
    body = b'{"metadata":{"name":"a","namespace":"pki"},"data":{"secret":"%%% not base64 %%%"}}'
    with pytest.raises(Undecodable, match="Secret pki/a does not fit its model") as caught:
        decode(SECRETS, body)
    assert "%%%" not in str(caught.value)


def test_one_bad_object_does_not_hide_the_others_of_a_list(caplog: pytest.LogCaptureFixture) -> None:
    good = encode(ACCOUNTS, account("good"))
    page = decode_page(b'{"metadata":{"resourceVersion":"7"},"items":[{"metadata":{"name":"bad"}},' + good + b"]}")
    with caplog.at_level(logging.WARNING):
        found, (unreadable,) = decode_items(ACCOUNTS, page.items)
    assert found == (account("good"),)
    assert (unreadable.metadata.name, str(unreadable)) == ("bad", "Object missing required field `spec`")
    assert "object cannot be read" in caplog.text
    assert page.resource_version == "7"


def test_a_list_without_items_is_empty() -> None:
    assert decode_page(b'{"metadata":{"resourceVersion":"7"},"items":null}').items == ()


@pytest.mark.parametrize("body", [b"", b"[]", b"<html>", b'{"items":1}'])
def test_what_is_no_list_is_refused(body: bytes) -> None:
    with pytest.raises(Undecodable):
        decode_page(body)


def test_an_event_carries_its_object_and_version() -> None:
    stored = msgspec.structs.replace(account("a"), metadata=ObjectMeta(name="a", namespace="pki", resource_version="9"))
    event = decode_event(ACCOUNTS, b'{"type":"MODIFIED","object":' + encode(ACCOUNTS, stored) + b"}\n")
    assert (event.type, event.object, event.resource_version) == ("MODIFIED", stored, "9")


def test_an_event_about_a_known_version_has_no_object() -> None:
    stored = msgspec.structs.replace(account("a"), metadata=ObjectMeta(name="a", namespace="pki", resource_version="9"))
    line = b'{"type":"MODIFIED","object":' + encode(ACCOUNTS, stored) + b"}\n"
    event = decode_known_event(line, lambda seen: seen == Identity("pki", "a", "9"))
    assert event is not None
    assert (event.type, event.object, event.resource_version) == ("MODIFIED", None, "9")
    assert decode_known_event(line, lambda _: False) is None


@pytest.mark.parametrize(
    "line",
    [
        b'{"type":"DELETED","object":{"metadata":{"name":"a","resourceVersion":"9"}}}',
        b'{"type":"BOOKMARK","object":{"metadata":{"resourceVersion":"9"}}}',
        b'{"type":"ERROR","object":{"kind":"Status","code":410}}',
        b'{"type":"MODIFIED","object":{"metadata":7}}',
        b'{"type":"MODIFIED","object":' + b"[" * 100_000,
        b'{"type":"MODIFIED","object":{"metadata":{"name":"\xff"}}}',
    ],
)
def test_no_other_line_is_known(line: bytes) -> None:
    assert decode_known_event(line, lambda _: True) is None


def test_a_bookmark_has_only_a_version() -> None:
    event = decode_event(ACCOUNTS, b'{"type":"BOOKMARK","object":{"metadata":{"resourceVersion":"9"}}}')
    assert (event.type, event.object, event.resource_version) == ("BOOKMARK", None, "9")


@pytest.mark.parametrize(
    ("object_", "version"),
    [('{"metadata":{"name":"bad","resourceVersion":"9"}}', "9"), ('{"metadata":7}', ""), ("7", "")],
)
def test_an_event_with_an_object_that_does_not_fit_only_moves_the_version(
    object_: str, version: str, caplog: pytest.LogCaptureFixture
) -> None:
    event = decode_event(ACCOUNTS, f'{{"type":"ADDED","object":{object_}}}'.encode())
    assert (event.type, event.object, event.resource_version) == ("ADDED", None, version)
    assert event.unreadable is not None
    assert "object cannot be read" in caplog.text


def nested(levels: int) -> str:
    return '{"a":' * levels + "1" + "}" * levels


@pytest.mark.requirement("SEC82")
@pytest.mark.parametrize("levels", [70, 1_500, 9_900])
def test_an_object_that_is_nested_deeply_hides_no_other(levels: int) -> None:
    good = '{"metadata":{"name":"good","namespace":"pki"},"spec":{"acme":{"solvers":["[{"]}}}'
    metadata = '{"name":"deep","namespace":"pki","uid":"u","resourceVersion":"9","labels":{"a":"b"}}'
    deep = f'{{"spec":{nested(levels)},"metadata":{metadata}}}'
    page = decode_page(f'{{"metadata":{{"resourceVersion":"10"}},"items":[{good},{deep},{good}]}}'.encode())
    found, (unreadable,) = decode_items(ISSUERS, page.items)
    assert [each.metadata.name for each in found] == ["good", "good"]
    assert unreadable.metadata == ObjectMeta(
        name="deep", namespace="pki", uid="u", resource_version="9", labels={"a": "b"}
    )
    assert "nested" in unreadable.problem
    for type_ in ("MODIFIED", "DELETED"):
        event = decode_event(ISSUERS, f'{{"type":"{type_}","object":{deep}}}'.encode())
        assert (event.type, event.object, event.resource_version) == (type_, None, "9")
        assert event.unreadable is not None
        assert event.unreadable.metadata == unreadable.metadata
    with pytest.raises(Undecodable, match=r"Issuer pki/deep does not fit its model: .*nested") as refused:
        decode(ISSUERS, deep.encode())
    assert refused.value.unreadable is not None


@pytest.mark.parametrize("size", [10, 100, 1_000])
def test_what_is_cut_is_valid_and_what_is_shallow_is_left_alone(size: int) -> None:
    text = json.dumps({"a": ['"', "\\", '[{"', {"b": list(range(size))}], "c": {"d": "]}" * size}}).encode()
    assert cut(text) == text
    deep = b'{"x":[' + text + b"," + nested(500 + size).encode() + b"," + text + b'],"y":' + text + b"}"
    shallow = json.loads(cut(deep))
    assert (shallow["x"][0], shallow["x"][2], shallow["y"]) == (json.loads(text),) * 3
    assert is_cut(cut(deep))
    assert not is_cut(text)


@pytest.mark.requirement("SEC64", "SEC82")
@pytest.mark.parametrize(
    ("spec", "field", "problem"),
    [
        ({"profileRef": {"name": "web"}, "expiresAt": "2027-01-01T00:00:00+99:99"}, "spec.expiresAt", "RFC3339"),
        ({"profileRef": {"name": "web"}, "expiresAt": "2027-01-01T00:00:00"}, "spec.expiresAt", "timezone"),
        ({"profileRef": {"name": "web"}, "names": {"dnsNames": {"wildcards": "hunter2"}}}, "wildcards", "enum value"),
        ({"profileRef": {"name": "web"}, "maximumAccounts": "hunter2"}, "spec.maximumAccounts", "int"),
        ({"profileRef": {}}, "spec.profileRef", "name"),
    ],
)
def test_what_is_wrong_is_said_by_field_and_without_a_value(spec: object, field: str, problem: str) -> None:
    with pytest.raises(Undecodable) as refused:
        decode(CREDENTIALS, json.dumps({"metadata": {"name": "a", "namespace": "pki"}, "spec": spec}).encode())
    found = refused.value.unreadable
    assert found is not None
    assert found.field.endswith(field)
    assert problem in found.problem
    assert "hunter2" not in f"{found} {refused.value}"


def test_an_error_event_is_raised() -> None:
    with pytest.raises(Gone, match="too old"):
        decode_event(ACCOUNTS, b'{"type":"ERROR","object":{"kind":"Status","code":410,"message":"too old"}}')


@given(st.binary() | st.builds(lambda value: json.dumps(value).encode(), st.recursive(st.none() | st.text(), st.lists)))
def test_no_line_raises_anything_but_a_cluster_error(line: bytes) -> None:
    with pytest.raises(ClusterError):
        decode_event(ACCOUNTS, line)


def test_secret_bytes_survive_the_way_there_and_back() -> None:
    secret = Secret(metadata=ObjectMeta(name="s", namespace="kms-acme"), data={"key": bytes(range(256))})
    assert decode(SECRETS, encode(SECRETS, secret)) == secret
