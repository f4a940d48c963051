"""The commands in the documentation."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
FIRST_CERTIFICATE = ROOT / "docs" / "first-certificate.md"
README = ROOT / "README.md"
CONTRIBUTING = ROOT / "CONTRIBUTING.md"
CERT_MANAGER = ROOT / "docs" / "cert-manager.md"
CLIENTS = ROOT / "docs" / "clients.md"
INSTALL = ROOT / "docs" / "install.md"
CORPORATE_ROOT = ROOT / "docs" / "corporate-root.md"
OPERATIONS = ROOT / "docs" / "operations.md"
KEY_STORES = ROOT / "docs" / "key-stores.md"
EXTERNAL_CAS = ROOT / "docs" / "external-cas.md"
_FENCED = re.compile(r"^```(?P<language>\w+)\n(?P<text>.*?)^```$", re.MULTILINE | re.DOTALL)


HELM = "helm "
"""The prefix of blocks with Helm commands, which tests/chart runs."""


@dataclass(frozen=True, slots=True)
class Snippet:
    """A code block with its position."""

    file: Path
    line: int
    text: str

    def __str__(self) -> str:
        return f"{self.file.relative_to(ROOT)}:{self.line}"


def snippets(file: Path, language: str = "sh") -> Iterator[Snippet]:
    """The blocks of a Markdown file in `language`, in order."""
    text = file.read_text()
    for block in _FENCED.finditer(text):
        if block["language"] == language:
            yield Snippet(file, text.count("\n", 0, block.start()) + 1, block["text"])


def section(file: Path, title: str, language: str = "sh") -> list[Snippet]:
    """The blocks of a section (`## title`) of a Markdown file, in order."""
    lines = file.read_text().splitlines()
    begin = lines.index(f"## {title}") + 1
    end = next((number for number, line in enumerate(lines[begin:], begin) if line.startswith("## ")), len(lines))
    return [each for each in snippets(file, language) if begin < each.line <= end]


def placed(snippet: Snippet, here: Mapping[str, str]) -> str:
    """Replace values of the documentation by those of a test. Each must occur exactly once."""
    text = snippet.text
    for documented, ours in here.items():
        assert text.count(documented) == 1, f"{snippet}: {documented}"
        text = text.replace(documented, ours)
    return text


def documents() -> list[Path]:
    """All pages of the documentation."""
    return [*sorted((ROOT / "docs").glob("**/*.md")), *sorted(ROOT.glob("*.md"))]


def run_snippets(file: Path, word: str, *, folder: Path, environment: Mapping[str, str]) -> None:
    """Run the commands of a page, in one shell, that have `word` in their block. They must succeed."""
    variables = {**os.environ, **environment}
    variables["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{variables['PATH']}"
    done = subprocess.run(
        ("bash", "-e", "-c", "".join(each.text for each in snippets(file) if word in each.text)),
        cwd=folder,
        env=variables,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stdout
