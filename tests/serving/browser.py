"""A headless Chromium driven through its DevTools protocol."""

import base64
import contextlib
import itertools
import json
import os
import subprocess
import time
import urllib.request
from importlib import resources
from pathlib import Path

from websockets.sync.client import connect

AXE = resources.files("axe_playwright_python") / "axe.min.js"
VIOLATIONS = """axe.run().then(({ violations }) =>
  violations.flatMap(({ id, help, nodes }) => nodes.map((node) => `${id}: ${help}: ${node.html.slice(0, 160)}`)))"""
UNNAMED = """[...document.querySelectorAll("canvas, svg")].filter((one) => one.checkVisibility())
  .filter((one) => !one.ariaLabel && one.ariaHidden !== "true")
  .map((one) => `no name: ${one.outerHTML.slice(0, 160)}`)"""
"""axe asks for a name only of pictures that say they are one."""
FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-dev-shm-usage",
    "--remote-debugging-port=0",
)


class Browser:
    """One page of one browser; a context manager.

    Args:
        folder: for the profile and for downloads (``folder/downloads``).
    """

    def __init__(self, folder):
        self.folder, self.complaints, self._numbers = Path(folder), [], itertools.count(1)

    def __enter__(self):
        profile, self.downloads = self.folder / "profile", self.folder / "downloads"
        self._process = subprocess.Popen(
            ["chromium", *FLAGS, f"--user-data-dir={profile}", "about:blank"],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            env={**os.environ, "HOME": str(self.folder)},
        )
        told = profile / "DevToolsActivePort"
        self._until(lambda: told.exists() and told.read_text().count("\n") >= 1, "chromium did not start")
        port = told.read_text().splitlines()[0]
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/json") as answer:
            (page,) = [target for target in json.load(answer) if target["type"] == "page"]
        self._socket = connect(page["webSocketDebuggerUrl"], max_size=2**26)
        for domain in ("Page", "Runtime", "Log"):
            self.call(f"{domain}.enable")
        self.call("Browser.setDownloadBehavior", behavior="allow", downloadPath=str(self.downloads))
        return self

    def __exit__(self, *_):
        with contextlib.suppress(Exception):
            self.call("Browser.close")
        self._process.kill()
        self._process.wait()

    def call(self, method, **params):
        """One command of the protocol; what the page complains of meanwhile is kept."""
        number = next(self._numbers)
        self._socket.send(json.dumps({"id": number, "method": method, "params": params}))
        while True:
            message = json.loads(self._socket.recv(timeout=60))
            if message.get("method") in ("Runtime.exceptionThrown", "Log.entryAdded"):
                self.complaints.append(json.dumps(message["params"])[:500])
            if message.get("id") == number:
                assert "error" not in message, message
                return message["result"]

    def open(self, url, width=1280, height=1000, phone=False):
        """Go to an address in a window of that size."""
        size = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": phone}
        self.call("Emulation.setDeviceMetricsOverride", **size)
        self.js("window.left = true")
        self.call("Page.navigate", url=url)
        self.until("!window.left && document.readyState === 'complete'")

    def js(self, expression):
        """The value of an expression, awaited if it is a promise."""
        found = self.call("Runtime.evaluate", expression=expression, awaitPromise=True, returnByValue=True)
        assert "exceptionDetails" not in found, found
        return found["result"].get("value")

    def until(self, expression, seconds=60):
        """Wait until an expression is true; until then it may also fail."""
        self._until(lambda: self.js(f"try {{ {expression} }} catch {{ false }}"), f"still not: {expression}", seconds)

    def click(self, selector):
        """Press an element's middle with the mouse."""
        self.drag(selector, (0.5, 0.5), (0.5, 0.5))

    def drag(self, selector, start, end):
        """Drag from one place of an element to another, in shares of its size."""
        self.js(f"document.querySelector({selector!r}).scrollIntoView({{block: 'center'}})")
        box = self.js(
            f"(() => {{ const r = document.querySelector({selector!r}).getBoundingClientRect();"
            "return [r.left, r.top, r.width, r.height] })()"
        )
        places = [{"x": box[0] + at[0] * box[2], "y": box[1] + at[1] * box[3]} for at in (start, end)]
        held = {"button": "left", "clickCount": 1}
        self.call("Input.dispatchMouseEvent", type="mousePressed", **places[0], **held)
        for share in (0.25, 0.5, 0.75, 1):
            at = {axis: places[0][axis] + share * (places[1][axis] - places[0][axis]) for axis in "xy"}
            if start != end:
                self.call("Input.dispatchMouseEvent", type="mouseMoved", **at, button="left", buttons=1)
        self.call("Input.dispatchMouseEvent", type="mouseReleased", **places[1], **held)

    def press(self, key, code=0, text=""):
        """Press and release a key."""
        for kind in ("keyDown", "keyUp"):
            self.call("Input.dispatchKeyEvent", type=kind, key=key, windowsVirtualKeyCode=code, text=text)

    def shot(self, file):
        """Keep a picture of the whole page."""
        size = self.call("Page.getLayoutMetrics")["cssContentSize"]
        clip = {"x": 0, "y": 0, "width": size["width"], "height": size["height"], "scale": 1}
        data = self.call("Page.captureScreenshot", format="png", captureBeyondViewport=True, clip=clip)["data"]
        Path(file).write_bytes(base64.b64decode(data))

    def faults_of_access(self):
        """Violations of accessibility rules (WCAG 2 A and AA, best practices) that axe-core finds on the open page."""
        if not self.js("'axe' in window"):
            self.js(AXE.read_text(encoding="utf-8"))
        return self.js(VIOLATIONS) + self.js(UNNAMED)

    def downloaded(self, name, seconds=20):
        """The bytes of a file that the page hands out."""
        file = self.downloads / name
        self._until(file.exists, f"{name} was not downloaded", seconds)
        return file.read_bytes()

    @staticmethod
    def _until(ready, what, seconds=60):
        limit = time.monotonic() + seconds
        while not ready():
            assert time.monotonic() < limit, what
            time.sleep(0.05)
