"""Chromium without a window, driven by its DevTools protocol, for tests of the page."""

from __future__ import annotations

import itertools
import json
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from websockets.sync.client import connect
from websockets.sync.connection import Connection

from espalier.testing_tools import tool

_PATIENCE_SECONDS = 30.0


class Tab:
    """One page, and all that its browser asked for and complained of since it was opened.

    `requests` are the addresses of everything that was asked for, also of what was then refused.
    `complaints` are errors and warnings of the console, exceptions, and breaches of the policy.
    """

    def __init__(self, socket: Connection) -> None:
        """Listen at a page's DevTools socket."""
        self._socket, self._numbers = socket, itertools.count(1)
        self.requests: list[str] = []
        self.complaints: list[str] = []
        for domain in ("Page", "Network", "Runtime", "Log"):
            self.call(f"{domain}.enable")

    def call(self, method: str, **parameters: Any) -> dict[str, Any]:
        """The answer to a command of the protocol."""
        number = next(self._numbers)
        self._socket.send(json.dumps({"id": number, "method": method, "params": parameters}))
        while True:
            message = json.loads(self._socket.recv(timeout=_PATIENCE_SECONDS))
            if message.get("id") != number:
                self._note(message)
                continue
            assert "error" not in message, f"{method}: {message['error']}"
            answer: dict[str, Any] = message["result"]
            return answer

    def run(self, script: str) -> Any:
        """The value of an expression in the page."""
        answer = self.call("Runtime.evaluate", expression=script, returnByValue=True)
        assert "exceptionDetails" not in answer, answer["exceptionDetails"]
        return answer["result"].get("value")

    def until(self, script: str) -> Any:
        """Wait until an expression in the page is true; its value."""
        deadline = time.monotonic() + _PATIENCE_SECONDS
        while not (value := self.run(script)):
            text = self.run("document.body.innerText")
            assert time.monotonic() < deadline, f"{script}; complaints {self.complaints}; {text}"
            time.sleep(0.05)
        return value

    def open(self, url: str) -> None:
        """Go to an address and wait until it is loaded."""
        self.call("Page.navigate", url=url)
        self.until(f"location.href.startsWith({url!r}) && document.readyState === 'complete'")

    def type(self, selector: str, text: str) -> None:
        """Put the cursor into a field that is then empty, and press keys."""
        field = f"document.querySelector({selector!r})"
        self.run(f"({field}.focus(), {field}.select())")
        self.call("Input.insertText", text=text)

    def press_enter(self) -> None:
        """Press the Enter key."""
        key = {"key": "Enter", "code": "Enter", "windowsVirtualKeyCode": 13, "text": "\r"}
        self.call("Input.dispatchKeyEvent", type="keyDown", **key)
        self.call("Input.dispatchKeyEvent", type="keyUp", **key)

    def click(self, selector: str) -> None:
        """Press the mouse on the middle of an element, wherever it is then."""
        script = (
            f"(box => [box.x + box.width / 2, box.y + box.height / 2])"
            f"((e => (e.scrollIntoView(), e.getBoundingClientRect()))"
            f"(document.querySelector({selector!r})))"
        )
        x, y = self.run(script)
        for kind in ("mousePressed", "mouseReleased"):
            self.call("Input.dispatchMouseEvent", type=kind, x=x, y=y, button="left", clickCount=1)

    def show_on(self, width: int, *, scheme: str = "light") -> None:
        """Look as on a screen of that width, in a light or dark scheme."""
        self.call(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=800,
            deviceScaleFactor=1,
            mobile=True,
        )
        feature = {"name": "prefers-color-scheme", "value": scheme}
        self.call("Emulation.setEmulatedMedia", features=[feature])

    def _note(self, message: dict[str, Any]) -> None:
        told = message.get("params", {})
        match message["method"]:
            case "Network.requestWillBeSent":
                self.requests.append(told["request"]["url"])
            case "Runtime.consoleAPICalled" if told["type"] in ("error", "warning", "assert"):
                self.complaints.append(str(told["args"]))
            case "Runtime.exceptionThrown":
                self.complaints.append(str(told["exceptionDetails"]))
            case "Log.entryAdded" if told["entry"]["level"] in ("error", "warning"):
                self.complaints.append(f"{told['entry']['text']} {told['entry'].get('url', '')}")


@contextmanager
def browser(folder: Path) -> Iterator[Tab]:
    """A tab of a fresh Chromium with its profile in `folder`; skips the test where there is none."""
    program = tool("chromium", "chromium-browser", "google-chrome")
    port_file = folder / "DevToolsActivePort"
    with (folder / "chromium.log").open("wb") as log:
        process = subprocess.Popen(
            [
                *(str(program), "--headless=new", "--disable-gpu", "--no-first-run"),
                # Root, and a container, have no sandbox for it; the page is our own.
                *("--no-sandbox", "--disable-dev-shm-usage", "--disable-background-networking"),
                *("--remote-debugging-port=0", f"--user-data-dir={folder}", "about:blank"),
            ],
            stdout=log,
            stderr=log,
            env={"HOME": str(folder), "PATH": "/usr/bin:/bin"},
        )
    try:
        deadline = time.monotonic() + _PATIENCE_SECONDS
        while not (port_file.exists() and len(port_file.read_text().splitlines()) > 1):
            assert process.poll() is None, (folder / "chromium.log").read_text()
            assert time.monotonic() < deadline, (folder / "chromium.log").read_text()
            time.sleep(0.05)
        port, path = port_file.read_text().splitlines()[:2]
        with _page(f"ws://127.0.0.1:{port}", path) as socket:
            yield Tab(socket)
    finally:
        process.terminate()
        try:
            process.wait(10)
        finally:
            process.kill()


def _page(address: str, path: str) -> Connection:
    """A socket to a new tab of the browser whose own socket is at `path`."""
    with connect(address + path) as whole:
        command = {"id": 1, "method": "Target.createTarget", "params": {"url": "about:blank"}}
        whole.send(json.dumps(command))
        target = json.loads(whole.recv(timeout=_PATIENCE_SECONDS))["result"]["targetId"]
    return connect(f"{address}/devtools/page/{target}", max_size=None)
