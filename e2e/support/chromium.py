"""A real Chromium without a window, driven over the DevTools protocol."""

from __future__ import annotations

import asyncio
import base64
import itertools
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import aiohttp

_FLAGS = (
    "--headless",
    "--no-sandbox",  # tests run as root
    "--disable-gpu",
    "--disable-quic",
    "--disable-dev-shm-usage",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--remote-debugging-port=0",
    "about:blank",
)
_LIMIT = 60.0
_LARGEST = 64 * 2**20
"""Octets of an answer: screenshots."""
KEYS = {"Tab": 9, "Enter": 13, "Escape": 27, " ": 32}
_WATCH_POLICY = """
window.violations = [];
document.addEventListener("securitypolicyviolation", (each) => window.violations.push(`${each.violatedDirective}: ${each.blockedURI}`));
"""  # noqa: E501 - a script


class ScriptFailed(Exception):
    """A script in the page has thrown."""


class Tab:
    """One page. `problems` are errors of scripts, of the console and dialogs; `requests` all addresses it asked for."""

    def __init__(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        self.problems: list[str] = []
        self.requests: list[str] = []
        self._socket = socket
        self._numbers = itertools.count(1)
        self._waiting: dict[int, asyncio.Future[dict[str, Any]]] = {}
        self._loaded = asyncio.Event()

    async def begin(self) -> None:
        """Ask for events."""
        for domain in ("Page", "Runtime", "Log", "Network"):
            await self.call(f"{domain}.enable")
        await self.call("Page.addScriptToEvaluateOnNewDocument", source=_WATCH_POLICY)

    async def call(self, method: str, **parameters: Any) -> dict[str, Any]:
        """Call a method of the DevTools protocol."""
        number = next(self._numbers)
        answer: asyncio.Future[dict[str, Any]] = asyncio.get_running_loop().create_future()
        self._waiting[number] = answer
        await self._socket.send_json({"id": number, "method": method, "params": parameters})
        async with asyncio.timeout(_LIMIT):
            return await answer

    async def open(self, url: str) -> None:
        """Navigate, and wait until the page is loaded."""
        self._loaded.clear()
        await self.call("Page.navigate", url=url)
        async with asyncio.timeout(_LIMIT):
            await self._loaded.wait()

    async def evaluate(self, script: str) -> Any:
        """The value of an expression, awaited if it is a promise."""
        answer = await self.call("Runtime.evaluate", expression=script, awaitPromise=True, returnByValue=True)
        if "exceptionDetails" in answer:
            raise ScriptFailed(json.dumps(answer["exceptionDetails"])[:2_000])
        return answer["result"].get("value")

    async def wait_for(self, script: str) -> Any:
        """Wait until an expression is true."""
        async with asyncio.timeout(_LIMIT):
            while not (value := await self.evaluate(script)):  # noqa: ASYNC110 - the page says nothing by itself
                await asyncio.sleep(0.05)
        return value

    async def press(self, key: str) -> None:
        """Press a key and release it."""
        text = {"Enter": "\r", " ": " "}.get(key, "")
        common = {"key": key, "code": "Space" if key == " " else key, "windowsVirtualKeyCode": KEYS[key]}
        await self.call("Input.dispatchKeyEvent", type="keyDown", text=text, **common)
        await self.call("Input.dispatchKeyEvent", type="keyUp", **common)

    async def type(self, text: str) -> None:
        """Insert text where the focus is."""
        await self.call("Input.insertText", text=text)

    async def resize(self, width: int, height: int) -> None:
        """Set the size of the page, in CSS pixels."""
        await self.call(
            "Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=False
        )

    async def prefer(self, scheme: str) -> None:
        """Prefer `light` or `dark` colours."""
        await self.call("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme}])

    async def screenshot(self, file: Path) -> None:
        """Write what is visible as PNG."""
        answer = await self.call("Page.captureScreenshot", format="png", optimizeForSpeed=False)
        await asyncio.to_thread(file.write_bytes, base64.b64decode(answer["data"]))

    async def listen(self) -> None:
        """Take answers and events until the browser ends."""
        async for message in self._socket:
            document = json.loads(message.data)
            if "id" in document:
                self._answer(document)
            elif handle := self._events.get(document["method"]):
                handle(self, document["params"])

    def _answer(self, document: dict[str, Any]) -> None:
        waiting = self._waiting.pop(document["id"])
        if waiting.done():
            return
        if "error" in document:
            waiting.set_exception(ScriptFailed(document["error"]["message"]))
        else:
            waiting.set_result(document["result"])

    def _on_load(self, _: dict[str, Any]) -> None:
        self._loaded.set()

    def _on_log(self, event: dict[str, Any]) -> None:
        if event["entry"]["level"] == "error":
            self.problems.append(f"{event['entry']['text']} {event['entry'].get('url', '')}")

    def _on_exception(self, event: dict[str, Any]) -> None:
        self.problems.append(json.dumps(event["exceptionDetails"])[:1_000])

    def _on_dialog(self, event: dict[str, Any]) -> None:
        self.problems.append(f"dialog: {event['message']}")

    def _on_request(self, event: dict[str, Any]) -> None:
        self.requests.append(event["request"]["url"])

    _events: dict[str, Callable[[Tab, dict[str, Any]], None]] = {  # noqa: RUF012 - never changed
        "Page.loadEventFired": _on_load,
        "Log.entryAdded": _on_log,
        "Runtime.exceptionThrown": _on_exception,
        "Page.javascriptDialogOpening": _on_dialog,
        "Network.requestWillBeSent": _on_request,
    }


@asynccontextmanager
async def browsing(program: Path, profile: Path) -> AsyncIterator[Tab]:
    """A tab of a new browser, whose data are in the empty folder `profile`."""
    process = await asyncio.create_subprocess_exec(
        str(program),
        f"--user-data-dir={profile}",
        *_FLAGS,
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.DEVNULL,
    )
    try:
        port = await _port(profile, process)
        async with aiohttp.ClientSession() as session:
            async with session.get(f"http://127.0.0.1:{port}/json/list") as answer:
                address = next(each["webSocketDebuggerUrl"] for each in await answer.json() if each["type"] == "page")
            async with session.ws_connect(address, max_msg_size=_LARGEST) as socket:
                tab = Tab(socket)
                listening = asyncio.create_task(tab.listen())
                await tab.begin()
                yield tab
                listening.cancel()
                with suppress(asyncio.CancelledError):
                    await listening
    finally:
        with suppress(ProcessLookupError):
            process.terminate()
        await process.wait()


async def _port(profile: Path, process: asyncio.subprocess.Process) -> int:
    """The port of the DevTools protocol, once the browser listens."""
    file = profile / "DevToolsActivePort"
    async with asyncio.timeout(_LIMIT):
        while not (file.exists() and file.read_text().strip()):
            if process.returncode is not None:
                raise ScriptFailed(f"Chromium ended with exit code {process.returncode}")
            await asyncio.sleep(0.05)
    return int(file.read_text().split()[0])
