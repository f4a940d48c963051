"""Pages for people: one form for all of them, without scripts, cookies and anything from elsewhere.

Text from the configuration is escaped by `text`; links lead only where `link` lets them.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterable
from html import escape

from aiohttp import hdrs, web

_STYLE = """
:root { color-scheme: light dark; --line: #8886; --soft: #8881; background: Canvas; color: CanvasText; }
* { box-sizing: border-box; }
body { margin: 0 auto; padding: 1.5rem 1rem 4rem; max-width: 52rem; font: 1rem/1.5 system-ui, sans-serif;
  overflow-wrap: anywhere; }
h1 { font-size: 1.6rem; line-height: 1.2; }
h2 { font-size: 1.2rem; margin-top: 2.2rem; }
dt { font-weight: 600; margin-top: .6rem; }
dd { margin: 0; }
pre { overflow-x: auto; padding: .8rem; border: 1px solid var(--line); border-radius: .4rem; background: var(--soft);
  user-select: all; white-space: pre; overflow-wrap: normal; font-size: .875rem; }
code { font-family: ui-monospace, monospace; font-size: .9em; }
details { border-top: 1px solid var(--line); }
summary { padding: .7rem .2rem; font-weight: 600; cursor: pointer; }
:focus-visible { outline: 3px solid; outline-offset: 2px; }
"""
_DIGEST = base64.b64encode(hashlib.sha256(_STYLE.encode()).digest()).decode()
_HEADERS = {
    "Content-Security-Policy": f"default-src 'none'; style-src 'sha256-{_DIGEST}'; base-uri 'none'; form-action 'none';"
    " frame-ancestors 'none'",
    "Referrer-Policy": "no-referrer",
    hdrs.X_CONTENT_TYPE_OPTIONS: "nosniff",
}


def text(value: str) -> str:
    """Text in HTML, also inside an attribute."""
    return escape(value, quote=True)


def link(url: str, words: str | None = None) -> str:
    """A link, if the URL is one of HTTP: any other scheme could run a script. Otherwise its text."""
    if not url.startswith(("https://", "http://")):
        return text(words or url)
    return f'<a href="{text(url)}">{text(words or url)}</a>'


def code(value: str) -> str:
    """A block to copy: one click selects all of it, and the keyboard can scroll it."""
    return f'<pre tabindex="0"><code>{text(value)}</code></pre>'


def section(title: str, *parts: str) -> str:
    """A section with a heading."""
    return f"<section>\n<h2>{text(title)}</h2>\n{''.join(parts)}</section>\n"


def folded(title: str, *parts: str) -> str:
    """What opens by a click or by the keyboard."""
    return f"<details>\n<summary>{text(title)}</summary>\n{''.join(parts)}</details>\n"


def definitions(pairs: Iterable[tuple[str, str]]) -> str:
    """A list of words and what they mean; the meanings are HTML."""
    found = "".join(f"<dt>{text(word)}</dt><dd>{meaning}</dd>\n" for word, meaning in pairs)
    return f"<dl>\n{found}</dl>\n"


def page(title: str, *parts: str) -> str:
    """A whole page."""
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{text(title)}</title>\n<style>{_STYLE}</style>\n</head>\n<body>\n<main>\n<h1>{text(title)}</h1>\n"
        f"{''.join(parts)}</main>\n</body>\n</html>\n"
    )


def answer(html: bytes | str, *, seconds: int) -> web.Response:
    """The page, which caches may keep for so long."""
    headers = _HEADERS | {
        hdrs.CONTENT_TYPE: "text/html; charset=utf-8",
        hdrs.CACHE_CONTROL: f"public, max-age={seconds}",
        hdrs.VARY: hdrs.ACCEPT,
    }
    return web.Response(body=html if isinstance(html, bytes) else html.encode(), headers=headers)
