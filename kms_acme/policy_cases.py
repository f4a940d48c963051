"""Requests with the answers that are expected of a policy: a test suite, with its summary and JUnit XML. Pure."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import timedelta
from xml.etree import ElementTree as ET

import msgspec
import yaml

from kms.resources.durations import parse_duration
from kms.resources.meta import Key
from kms_acme.policy_test import Request, Undecided, Verdict, sentences


class BadCases(ValueError):
    """The file with cases is invalid. The message says where and what to write."""


class _Strict(msgspec.Struct, frozen=True, kw_only=True, rename="camel", forbid_unknown_fields=True):
    """A part of the file: what it does not know is an error."""


class _Case(_Strict, frozen=True, kw_only=True):
    allow: tuple[str, ...] | None = None
    deny: tuple[str, ...] | None = None
    csr: str | None = None
    duration: str | None = None
    profile: str | None = None
    credential: str | None = None
    order_profile: str | None = None
    rule: str | None = None
    description: str = ""


class _Suite(_Strict, frozen=True, kw_only=True):
    cases: tuple[_Case, ...]
    profile: str | None = None
    credential: str | None = None


@dataclass(frozen=True, slots=True)
class Case:
    """A request, and whether it is to be granted. `rule` is part of what the answer must say, such as a field."""

    title: str
    request: Request
    allow: bool
    rule: str | None = None


@dataclass(frozen=True, slots=True)
class Result:
    """How a case went. `why` is empty where it passed; `undecided` where there was no answer at all."""

    case: Case
    why: str = ""
    undecided: bool = False

    @property
    def passed(self) -> bool:
        """Whether the answer was the expected one."""
        return not self.why


def parse_cases(
    text: str, *, profile: Key | None, credential: Key | None, read: Callable[[str], bytes]
) -> tuple[Case, ...]:
    """The cases of a file in YAML. Raises BadCases.

    `profile` and `credential` are for cases that name none. `read` reads the file of a certificate request.
    """
    try:
        suite = msgspec.convert(yaml.safe_load(text), _Suite)
    except yaml.YAMLError as error:
        raise BadCases(" ".join(str(error).split())) from None
    except msgspec.ValidationError as error:
        raise BadCases(f"{error}; write cases: [{{allow: [NAME]}}, {{deny: [NAME], rule: FIELD}}]") from None
    if not suite.cases:
        raise BadCases("there are no cases")
    home = _key(suite.profile, "profile") or profile
    usual = _key(suite.credential, "credential") or credential
    return tuple(
        _case(f"cases[{position}]", each, profile=home, credential=usual, read=read)
        for position, each in enumerate(suite.cases)
    )


def _case(
    where: str,
    case: _Case,
    *,
    profile: Key | None,
    credential: Key | None,
    read: Callable[[str], bytes],
) -> Case:
    if (case.allow is None) == (case.deny is None):
        raise BadCases(f"{where} needs either allow or deny")
    names = case.allow if case.allow is not None else case.deny or ()
    if not names and case.csr is None:
        raise BadCases(f"{where} has neither names nor csr")
    of = _key(case.profile, f"{where}.profile") or profile
    if of is None:
        raise BadCases(f"{where} has no profile; write profile: NAMESPACE/NAME, or use --profile")
    try:
        duration: timedelta | None = parse_duration(case.duration) if case.duration is not None else None
        csr = read(case.csr) if case.csr is not None else None
    except (ValueError, OSError) as error:
        raise BadCases(f"{where}: {error}") from None
    request = Request(
        profile=of,
        names=names,
        credential=_key(case.credential, f"{where}.credential") or credential,
        csr=csr,
        duration=duration,
        order_profile=case.order_profile,
    )
    shown = ", ".join(names) or case.csr or ""
    title = case.description or f"{'allow' if case.allow is not None else 'deny'} {shown}"
    return Case(title, request, case.allow is not None, case.rule)


def _key(text: str | None, where: str) -> Key | None:
    if text is None:
        return None
    namespace, _, name = text.partition("/")
    if not namespace or not name or "/" in name:
        raise BadCases(f"{where}: {text!r} is not of the form NAMESPACE/NAME")
    return namespace, name


def run_case(case: Case, evaluate: Callable[[Request], Verdict]) -> Result:
    """Compare the answer to one request with what is expected. A request that has no answer fails in any case."""
    try:
        verdict = evaluate(case.request)
    except Undecided as error:
        return Result(case, str(error), undecided=True)
    said = "; ".join(each.strip() for each in sentences(verdict))
    if verdict.is_granted != case.allow:
        return Result(case, said)
    if case.rule is not None and case.rule not in said:
        return Result(case, f"{said}; but not by rule {case.rule}")
    return Result(case)


def summary(results: Sequence[Result]) -> str:
    """How many cases passed, as a sentence."""
    passed = sum(each.passed for each in results)
    return f"{passed} of {len(results)} {'case' if len(results) == 1 else 'cases'} passed."


def junit(results: Sequence[Result]) -> bytes:
    """The results as JUnit XML."""
    counts = {
        "tests": str(len(results)),
        "failures": str(sum(not each.passed and not each.undecided for each in results)),
        "errors": str(sum(each.undecided for each in results)),
    }
    suite = ET.Element("testsuite", {"name": "kms-acme policy test", **counts})
    for each in results:
        attributes = {"classname": "/".join(each.case.request.profile), "name": each.case.title}
        element = ET.SubElement(suite, "testcase", attributes)
        if not each.passed:
            ET.SubElement(element, "error" if each.undecided else "failure", {"message": each.why})
    root = ET.Element("testsuites", counts)
    root.append(suite)
    ET.indent(root)
    document: bytes = ET.tostring(root, encoding="utf-8", xml_declaration=True)
    return document + b"\n"
