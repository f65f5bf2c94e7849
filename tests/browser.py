"""A real browser driven through its DevTools protocol: starts chromium headless, and records what a page does.

tornado's WebSocket client speaks to it; tornado comes with `distributed`, so the tests need no package of their own.
"""

import asyncio
import base64
import itertools
import json
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

from patience import PATIENCE
from tornado.httpclient import HTTPRequest
from tornado.websocket import WebSocketClientConnection, websocket_connect

FLAGS = (
    "--headless=new", "--no-sandbox", "--disable-gpu", "--remote-debugging-port=0", "--disable-background-networking",
    "--no-first-run", "--disable-component-update", "--disable-sync", "--disable-dev-shm-usage", "--hide-scrollbars",
)  # fmt: skip
MESSAGE_BYTES = 100 * 2**20  # a screenshot comes in one message


def find_browser() -> str | None:
    """The chromium on this machine; None without one."""
    return next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)


async def connection_to(url: str) -> WebSocketClientConnection:
    """A connection to an address of the browser, which may take its time; tornado by itself gives it 20 seconds."""
    request = HTTPRequest(url, connect_timeout=PATIENCE, request_timeout=PATIENCE)
    return await websocket_connect(request, max_message_size=MESSAGE_BYTES)


class Page:
    """One page of a Browser.

    Attributes:
        errors: console errors, uncaught exceptions, and what the page's policy blocked.
        requests: addresses that were asked for, save the page's own.
    """

    def __init__(self, connection: Any):
        self.connection = connection
        self.errors: list[str] = []
        self.requests: list[str] = []
        self.events: list[str] = []
        self._numbers = itertools.count(1)
        self._address = ""

    async def send(self, method: str, **parameters: Any) -> dict[str, Any]:
        """Call a method of the protocol and return its result."""
        number = next(self._numbers)
        await self.connection.write_message(json.dumps({"id": number, "method": method, "params": parameters}))
        while True:
            message = await self._next()
            if message.get("id") == number:
                if "error" in message:
                    raise RuntimeError(f"{method}: {message['error']}")
                return message["result"]

    async def _next(self) -> dict[str, Any]:
        text = await self.connection.read_message()
        if text is None:
            raise RuntimeError("the browser closed the connection")
        message = json.loads(text)
        self._note(message.get("method", ""), message.get("params", {}))
        return message

    def _note(self, method: str, event: dict[str, Any]) -> None:
        self.events.append(method)
        if method == "Runtime.exceptionThrown":
            self.errors.append(json.dumps(event["exceptionDetails"]))
        elif method == "Runtime.consoleAPICalled" and event["type"] in ("error", "warning", "assert"):
            self.errors.append(json.dumps(event["args"]))
        elif method == "Log.entryAdded" and event["entry"]["level"] in ("error", "warning"):
            self.errors.append(event["entry"]["text"])
        elif method == "Network.requestWillBeSent":
            url = event["request"]["url"]
            if url != self._address and not url.startswith("data:"):  # those are within the page
                self.requests.append(url)

    async def open(self, path: Path) -> None:
        """Load a file and wait until it is loaded."""
        for domain in ("Page", "Runtime", "Log", "Network", "DOM"):
            await self.send(f"{domain}.enable")
        self._address = path.resolve().as_uri()
        self.events.clear()
        await self.send("Page.navigate", url=self._address)
        while "Page.loadEventFired" not in self.events:
            await self._next()

    async def evaluate(self, expression: str) -> Any:
        """The value of a JavaScript expression in the page."""
        result = await self.send("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        if "exceptionDetails" in result:
            raise RuntimeError(json.dumps(result["exceptionDetails"]))
        return result["result"].get("value")

    async def press(self, key: str, code: int, text: str = "") -> None:
        """Press and release a key."""
        event = {"key": key, "windowsVirtualKeyCode": code, "text": text}
        await self.send("Input.dispatchKeyEvent", type="keyDown" if text else "rawKeyDown", **event)
        await self.send("Input.dispatchKeyEvent", type="keyUp", key=key, windowsVirtualKeyCode=code)

    async def click(self, selector: str) -> None:
        """Click with the mouse into the middle of (the first line of) the first element that a CSS selector finds."""
        place = await self.evaluate(
            f"(() => {{ const e = document.querySelector({json.dumps(selector)});"
            " e.scrollIntoView({block: 'center'});"
            " const r = e.getClientRects()[0]; return [r.x + r.width / 2, r.y + r.height / 2]; })()"
        )
        where = {"x": place[0], "y": place[1], "button": "left", "clickCount": 1}
        await self.send("Input.dispatchMouseEvent", type="mousePressed", **where)
        await self.send("Input.dispatchMouseEvent", type="mouseReleased", **where)

    async def look(self, width: int, dark: bool = False, media: str = "screen") -> None:
        """Set the window's width in pixels, the colour scheme and the medium ("screen" or "print")."""
        await self.send(
            "Emulation.setDeviceMetricsOverride", width=width, height=900, deviceScaleFactor=1, mobile=width < 600
        )
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        await self.send("Emulation.setEmulatedMedia", media=media, features=[scheme])

    async def screenshot(self, path: Path, clip: dict[str, float] | None = None) -> None:
        """Save a PNG of the whole page, or of {x, y, width, height} of it."""
        area = {"clip": {**clip, "scale": 1}} if clip else {}
        image = await self.send("Page.captureScreenshot", captureBeyondViewport=True, **area)
        path.write_bytes(base64.b64decode(image["data"]))


class Browser:
    """A browser with one page, as a context manager; it ends with the block.

    Attributes:
        page: what it shows.
    """

    def __init__(self, executable: str, profile: Path):
        """
        Args:
            executable: the browser.
            profile: an empty folder for the browser's own files.
        """
        self._command = [executable, *FLAGS, f"--user-data-dir={profile}", "about:blank"]
        self._profile = profile
        self._loop = asyncio.new_event_loop()

    def __enter__(self) -> "Browser":
        environment = {**os.environ, "HOME": str(self._profile), "TMPDIR": str(self._profile)}
        quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        self._process = subprocess.Popen(self._command, env=environment, **quiet)
        try:
            self.page = self.run(self._connect())
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._process.terminate()
        self._process.wait(PATIENCE)
        self._loop.close()

    def run(self, work: Any) -> Any:
        """The result of a coroutine, e.g. `browser.run(browser.page.open(path))`."""
        return self._loop.run_until_complete(work)

    async def _connect(self) -> Page:
        port = self._profile / "DevToolsActivePort"  # the browser writes the port that it chose, then its own address
        for _ in range(PATIENCE * 10):
            if port.is_file() and len(port.read_text().split()) == 2:
                break
            if self._process.poll() is not None:
                raise RuntimeError(f"the browser ended with code {self._process.returncode}")
            await asyncio.sleep(0.1)
        number, address = port.read_text().split()
        whole = Page(await connection_to(f"ws://127.0.0.1:{number}{address}"))
        target = (await whole.send("Target.createTarget", url="about:blank"))["targetId"]
        url = f"ws://127.0.0.1:{number}/devtools/page/{target}"
        return Page(await connection_to(url))
