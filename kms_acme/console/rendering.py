"""Templates. They escape everything: names, messages and annotations are written by strangers."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from importlib.resources import files
from types import MappingProxyType
from typing import Any
from urllib.parse import quote

from jinja2 import DictLoader, Environment, StrictUndefined

from kms_acme.explain.story import clock_time

_PACKAGE = files("kms_acme.console")
STATIC: Mapping[str, str] = MappingProxyType(
    {"console.css": "text/css", "console.js": "text/javascript", "icon.svg": "image/svg+xml"}
)
"""The files that pages load, by their media type."""


class Templates:
    """The pages below the path `base`; `about` says which cluster they show."""

    def __init__(self, base: str, about: str) -> None:
        folder = _PACKAGE / "templates"
        sources = {each.name: each.read_text("utf-8") for each in folder.iterdir() if each.name.endswith(".html")}
        self._environment = Environment(
            loader=DictLoader(sources),
            autoescape=True,
            undefined=StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
        )
        self._environment.globals.update(base=base, about=about)
        self._environment.filters.update(time=_time, day=_day, path=_path)

    def render(self, name: str, values: Mapping[str, Any]) -> str:
        """The page of that template."""
        return self._environment.get_template(f"{name}.html").render(values)


def static_file(name: str) -> bytes:
    """The content of one of STATIC."""
    return (_PACKAGE / "static" / name).read_bytes()


def _time(moment: datetime | None) -> str:
    return clock_time(moment) if moment is not None else "-"


def _day(moment: datetime | None) -> str:
    return f"{moment:%Y-%m-%d}" if moment is not None else "-"


def _path(*segments: str) -> str:
    """`namespace|path(name)`: segments of a URL path, whatever characters they have."""
    return "/".join(quote(each, safe="") for each in segments)
