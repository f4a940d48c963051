"""docs/images/demo.svg: the output of a real run of `make demo` as a picture.

    .venv/bin/python -m e2e.demo | .venv/bin/python -m e2e.demo.picture

Values that differ between runs (ports, serial numbers, names, times) are replaced, so the same demo gives the same
picture.
"""

from __future__ import annotations

import re
import sys
import textwrap
import xml.etree.ElementTree as ET
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from xml.sax.saxutils import escape

ROOT = Path(__file__).parents[2]
PICTURE = ROOT / "docs" / "images" / "demo.svg"

COLUMNS = 146
LINE, CHARACTER, MARGIN = 17, 7.25, 16
_INDENT = {"title": 0, "command": 2, "output": 4}
"""Columns."""
_PROMPT = {"title": "", "command": "$ ", "output": ""}
_SVG = "http://www.w3.org/2000/svg"
_STYLE = """<style>
rect { fill: #0d1117 }
text { font: 12px ui-monospace, SFMono-Regular, Menlo, Consolas, monospace; white-space: pre; fill: #8b949e }
.title text { fill: #f0f6fc; font-weight: bold }
.command text { fill: #79c0ff }
</style>"""
SHOWN = 4
"""Lines of output to keep per command; the last command keeps all."""

_TITLE = re.compile(r"\[ *\d+ s\] (?P<text>.*)")
_COMMAND = re.compile(r"  \$ (?P<text>.*)")
_OUTPUT = re.compile(r"    (?P<text>.*)|$")
_DROPPED = re.compile(r"\.\.\. \d+ s$|curl: \(7\) ")
"""Output of slow machines only: progress, and a server that does not listen yet."""
_PORTS = ("5353", "8443", "8080", "9090", "9091", "5002", "9443")
_HEXADECIMAL = "5C0F7A3E91B84D26"
_LETTERS = "abcdefghijklmnopqrstuvwxyz234567"
_REPLACED = (
    (re.compile(re.escape(f"{ROOT}/")), ""),
    (re.compile(r"\S*bin/python[\d.]*(?= -m)"), ".venv/bin/python"),
    (re.compile(r"[^\s=]*/kms-acme/(?=demo|clusters)"), "~/.local/state/kms-acme/"),
    (re.compile(r"[^\s=]*/kms-acme/cluster/[0-9a-f]{16}"), "~/.cache/kms-acme/cluster"),
    (re.compile(r"after \d+\.\d s"), "after 4 s"),
    (re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ"), "yyyy-mm-ddThh:mm:ssZ"),
    (re.compile(r"\d{4}-\d\d-\d\d"), "yyyy-mm-dd"),
    (re.compile(r"[A-Z][a-z]{2} [ \d]\d \d\d:\d\d:\d\d \d{4} GMT"), "Mmm dd hh:mm:ss yyyy GMT"),
    (re.compile(r"\b[0-9a-f]{64}\b"), 4 * "0123456789abcdef"),
    (re.compile(r"\d+s$"), "9s"),
)
_PORT = re.compile(r"(?<=[a-z\d]:)\d{4,5}\b|(?<=port )\d{4,5}\b")
_SERIAL = re.compile(r"(?<=serial=)[0-9A-F]{16,}")
_NAME = re.compile(r"\b(?=[a-z]*[2-7])[a-z2-7]{24,}\b")
"""Identifiers of accounts and orders, and EAB key identifiers."""


@dataclass(frozen=True)
class Part:
    """A "title", a "command" or a line of "output"."""

    kind: str
    text: str


@dataclass
class StandIns:
    """Replaces values that differ between runs, the same value always by the same placeholder."""

    known: dict[str, str] = field(default_factory=dict)
    counts: dict[str, int] = field(default_factory=dict)

    def apply(self, text: str) -> str:
        """Replace the values in a text."""
        for pattern, replacement in _REPLACED:
            text = pattern.sub(replacement, text)
        text = _PORT.sub(lambda found: self._one("port", found[0]), text)
        text = _SERIAL.sub(lambda found: self._one("serial", found[0]), text)
        return _NAME.sub(lambda found: self._one("name", found[0]), text)

    def _one(self, kind: str, value: str) -> str:
        if value not in self.known:
            number = self.counts[kind] = self.counts.get(kind, -1) + 1
            self.known[value] = _stand_in(kind, number, len(value))
        return self.known[value]


def _stand_in(kind: str, number: int, length: int) -> str:
    if kind == "port":
        return _PORTS[number % len(_PORTS)]
    letters = _HEXADECIMAL if kind == "serial" else _LETTERS
    return (letters[number * 5 % len(letters) :] + letters * length)[:length]


def parts(transcript: str) -> list[Part]:
    """The titles, commands and output of a run, with placeholders."""
    stand_ins, found = StandIns(), []
    for line in transcript.splitlines():
        if match := _TITLE.fullmatch(line):
            found.append(Part("title", stand_ins.apply(match["text"])))
        elif match := _COMMAND.fullmatch(line):
            found.append(Part("command", stand_ins.apply(match["text"])))
        elif found and (match := _OUTPUT.fullmatch(line)) and not _DROPPED.match(match["text"] or ""):
            found.append(Part("output", stand_ins.apply(match["text"] or "")))
    return found


def steps(shown: Iterable[Part]) -> list[Part]:
    """The titles and the commands."""
    return [each for each in shown if each.kind != "output"]


def shortened(shown: Sequence[Part]) -> Iterator[Part]:
    """Keep the first lines of output of each command, and all lines of the last command."""
    last = max((number for number, each in enumerate(shown) if each.kind == "command"), default=0)
    lines: list[Part] = []
    for each in shown[:last]:
        if each.kind == "output":
            lines += [each] if each.text else []
        else:
            yield from _first(lines)
            lines = []
            yield each
    yield from _first(lines)
    yield from shown[last:]


def _first(lines: list[Part]) -> Iterator[Part]:
    if len(lines) <= SHOWN + 1:
        yield from lines
    else:
        yield from lines[:SHOWN]
        yield Part("output", f"... {len(lines) - SHOWN} more lines")


def svg(shown: Iterable[Part]) -> str:
    """Draw a terminal. Each part becomes a group with its text."""
    groups, row = [], 0
    for each in shown:
        row += each.kind == "title"
        texts = []
        for number, line in enumerate(_wrapped(each)):
            row += 1
            left = MARGIN + CHARACTER * (_INDENT[each.kind] + 2 * (number > 0))
            texts.append(f'<text x="{left:g}" y="{MARGIN + LINE * row}">{escape(line)}</text>')
        groups.append(f'<g class="{each.kind}">{"".join(texts)}</g>')
    size = f'width="{2 * MARGIN + CHARACTER * COLUMNS:.0f}" height="{2 * MARGIN + LINE * (row + 1)}"'
    frame = f'<svg xmlns="{_SVG}" {size} role="img">'
    return "\n".join((frame, _STYLE, '<rect width="100%" height="100%" rx="8"/>', *groups, "</svg>\n"))


def _wrapped(part: Part) -> list[str]:
    width = COLUMNS - _INDENT[part.kind] - 2
    text = f"{_PROMPT[part.kind]}{part.text}"
    return textwrap.wrap(text, width, drop_whitespace=False, break_on_hyphens=False) or [""]


def drawn(picture: str) -> list[Part]:
    """The parts of a picture."""
    groups = ET.fromstring(picture).iter(f"{{{_SVG}}}g")  # noqa: S314 - our own
    texts = ((each.attrib["class"], "".join(each.itertext())) for each in groups)
    return [Part(kind, text.removeprefix(_PROMPT[kind])) for kind, text in texts]


def main() -> None:
    """Print the output of the demo and draw it."""
    lines = []
    for line in sys.stdin:
        sys.stdout.write(line)
        sys.stdout.flush()
        lines.append(line)
    shown = parts("".join(lines))
    if shown[-1:] != [Part("title", "Done.")]:
        sys.exit("The demo did not finish; the picture is unchanged.")
    PICTURE.parent.mkdir(exist_ok=True)
    PICTURE.write_text(svg(shortened(shown)), encoding="utf-8")
    print(f"wrote {PICTURE.relative_to(ROOT)}")


if __name__ == "__main__":
    main()
