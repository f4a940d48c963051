"""The picture of the demo: the same run is the same picture, whatever the ports, the names and the time of day."""

from __future__ import annotations

import re

from e2e.demo.picture import COLUMNS, PICTURE, ROOT, Part, drawn, parts, shortened, steps, svg
from e2e.demo.steps import Demo

RUN = """The demo starts a cluster
    that is not shown

[   {seconds} s] The first & last <step>
  $ {root}/.venv/bin/python -m e2e.cluster up --name demo
    ... 15 s
    Cluster demo is up after {seconds}.9 s.
    {home}/kms-acme/clusters/demo/kubeconfig
  $ kms-acme dev --external-url https://localhost:{port} --listen 127.0.0.1:{port} --http01-port {other}

  $ openssl x509 -noout -serial -dates
    serial={serial}
    notBefore=Nov 30 08:29:{seconds}2 2026 GMT
    one
    two
    three
    four
  $ kubectl get kms -A
    NAME                                             EXPIRES                AGE
    {name}   2026-12-30T08:29:{seconds}2Z   1{seconds}s

    other   x   3s

[  2{seconds} s] Done.
"""


def run(seconds: int, port: str, other: str, serial: str, name: str) -> str:
    values = {"seconds": seconds, "port": port, "other": other, "serial": serial, "name": name}
    return RUN.format(root=ROOT, home=f"/home/{other}/state", **values)


FIRST = run(3, "23051", "24701", "46874AB6E192BC3F60C5B08AECDBDE1F", "2q" * 26)
SECOND = run(4, "30001", "30002", "00874AB6E192BC3F60C5B08AECDBDE00", "a7" * 26)


def test_two_runs_are_one_picture() -> None:
    assert FIRST != SECOND
    assert svg(shortened(parts(FIRST))) == svg(shortened(parts(SECOND)))
    assert "46874AB6" not in svg(shortened(parts(FIRST)))


def test_another_command_is_another_picture() -> None:
    assert steps(parts(FIRST)) != steps(parts(FIRST.replace("openssl x509", "openssl verify")))


def test_commands_are_whole_and_output_is_shortened() -> None:
    shown = drawn(svg(shortened(parts(FIRST))))
    assert steps(shown) == [
        Part("title", "The first & last <step>"),
        Part("command", ".venv/bin/python -m e2e.cluster up --name demo"),
        Part(
            "command", "kms-acme dev --external-url https://localhost:5353 --listen 127.0.0.1:5353 --http01-port 8443"
        ),
        Part("command", "openssl x509 -noout -serial -dates"),
        Part("command", "kubectl get kms -A"),
        Part("title", "Done."),
    ]
    output = [each.text for each in shown if each.kind == "output"]
    assert "... 2 more lines" in output
    assert "... 15 s" not in output
    assert output[-2:] == ["other   x   9s", ""]


def test_long_lines_are_wrapped_and_found_whole() -> None:
    command = " ".join(f"--option-{number} value" for number in range(30))
    picture = svg([Part("command", command)])
    texts = re.findall("<text [^>]*>([^<]*)</text>", picture)
    assert len(texts) > 1
    assert max(map(len, texts)) <= COLUMNS
    assert drawn(picture) == [Part("command", command)]


def test_the_picture_in_the_documentation_has_the_steps_of_the_demo() -> None:
    """e2e/stories/test_demo.py compares its commands with those of a run."""
    titles = [each.text for each in drawn(PICTURE.read_text()) if each.kind == "title"]
    assert titles == [*Demo.titles(), "Done."]
