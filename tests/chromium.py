"""A headless Chromium with one page: tests look at pages with it, and the lessons' screenshots are made with it.

It is driven over Chromium's own debugging protocol, since its command line can't wait for what a page computes. Nothing
outside this machine is reached: every name but 127.0.0.1 is made unknown.
"""

import base64
import contextlib
import itertools
import json
import os
import shutil
import signal
import subprocess
import tempfile
import time
import urllib.request
from pathlib import Path
from typing import Any

import websocket

EXECUTABLE = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
NOT_INSTALLED = "no Chromium is installed: tried chromium, chromium-browser and google-chrome"

_OPTIONS = [
    "--headless",
    "--no-sandbox",  # without it, Chromium doesn't start as root, as in most containers
    "--disable-gpu",
    "--disable-quic",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--hide-scrollbars",
    "--no-first-run",
    "--host-resolver-rules=MAP * ~NOTFOUND , EXCLUDE 127.0.0.1",
    "--remote-debugging-port=0",
    "about:blank",
]


class Chromium:
    """A context manager: the browser ends, with all its processes, when the block does.

    Args:
        width: Of the page, in CSS pixels.
        height: Of the page, in CSS pixels.
        scale: Pixels of a screenshot for each of these.
    """

    def __init__(self, width: int = 1000, height: int = 800, scale: int = 1):
        self._metrics = {"width": width, "height": height, "deviceScaleFactor": scale, "mobile": False}

    def __enter__(self) -> "Chromium":
        self._profile = tempfile.TemporaryDirectory(ignore_cleanup_errors=True)
        command = [EXECUTABLE, f"--user-data-dir={self._profile.name}", *_OPTIONS]
        quiet = {"stdin": subprocess.DEVNULL, "stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        self._process = subprocess.Popen(command, start_new_session=True, **quiet)
        try:
            self._socket = websocket.create_connection(self._page_address(), timeout=60, suppress_origin=True)
        except BaseException:
            self._process.kill()
            self._end()
            raise
        self._numbers = itertools.count(1)
        self.call("Page.enable")
        self.call("Emulation.setDeviceMetricsOverride", **self._metrics)
        return self

    def __exit__(self, *_: object) -> None:
        with contextlib.suppress(websocket.WebSocketException, OSError, RuntimeError):
            self.call("Browser.close")
        self._socket.close()
        self._end()

    def _page_address(self) -> str:
        """Return the address of the one page's debugging socket, once Chromium has written its port to a file."""
        port_file = Path(self._profile.name) / "DevToolsActivePort"
        deadline = time.monotonic() + 60
        while not (port_file.exists() and port_file.read_text().count("\n")):
            if self._process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError("Chromium didn't start.")
            time.sleep(0.05)
        port = port_file.read_text().split()[0]
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/json/list") as answer:
            return next(page["webSocketDebuggerUrl"] for page in json.load(answer) if page["type"] == "page")

    def _end(self) -> None:
        try:
            self._process.wait(timeout=10)
        except subprocess.TimeoutExpired:
            os.killpg(self._process.pid, signal.SIGKILL)  # the group is its own: nobody else's browser is in it
            self._process.wait()
        self._profile.cleanup()

    def call(self, method: str, **params: Any) -> dict[str, Any]:
        """Call a method of the debugging protocol and return its result; events in between are dropped."""
        number = next(self._numbers)
        self._socket.send(json.dumps({"id": number, "method": method, "params": params}))
        while (message := json.loads(self._socket.recv())).get("id") != number:
            pass
        if "error" in message:
            raise RuntimeError(f"{method}: {message['error']['message']}")
        return message["result"]

    def set_cookie(self, name: str, value: str, url: str) -> None:
        """Set a cookie of a page that is not open yet."""
        self.call("Network.setCookie", name=name, value=value, url=url)

    def run_in_every_page(self, script: str) -> None:
        """Run JavaScript in each page that is opened from now on, before the page's own."""
        self.call("Page.addScriptToEvaluateOnNewDocument", source=script)

    def open(self, url: str) -> None:
        """Open a page and wait until it is loaded. It may compute for longer than that: see `wait_for`."""
        self.call("Page.navigate", url=url)
        self.wait_for("document.readyState === 'complete'")

    def evaluate(self, expression: str) -> Any:
        """Return the value of a JavaScript expression in the page."""
        answer = self.call("Runtime.evaluate", expression=expression, returnByValue=True)
        if "exceptionDetails" in answer:
            raise RuntimeError(f"{expression}: {answer['exceptionDetails']}")
        return answer["result"].get("value")

    def wait_for(self, expression: str, seconds: float = 30) -> Any:
        """Return the first value of a JavaScript expression that is true.

        Raises:
            TimeoutError: It stayed false.
        """
        deadline = time.monotonic() + seconds
        while not (value := self.evaluate(expression)):
            if time.monotonic() > deadline:
                raise TimeoutError(f"{expression} is still {value!r} after {seconds} s.")
            time.sleep(0.05)
        return value

    def text(self) -> str:
        """Return the text that the page shows."""
        return self.evaluate("document.body.innerText")

    def screenshot(self, path: Path) -> Path:
        """Write what the window shows as a PNG and return its path."""
        path.write_bytes(base64.b64decode(self.call("Page.captureScreenshot", format="png")["data"]))
        return path
