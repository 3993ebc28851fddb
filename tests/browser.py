"""A headless Chromium, driven through its DevTools protocol: what tests of pages need of it, and no more."""

import contextlib
import itertools
import json
import re
import shutil
import subprocess
import tempfile
import time
from urllib.request import urlopen

import websocket

NAMES = ("chromium", "chromium-browser", "google-chrome")
FLAGS = (
    "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--hide-scrollbars",
    "--no-first-run", "--disable-background-networking", "--remote-debugging-port=0", "--remote-allow-origins=*",
)  # fmt: skip


def find():
    """Path of a Chromium of this machine; None if there is none."""
    return next(filter(None, map(shutil.which, NAMES)), None)


@contextlib.contextmanager
def launch():
    """A context with one :class:`Tab` of a browser that is started for it."""
    with tempfile.TemporaryDirectory(prefix="browser-", ignore_cleanup_errors=True) as profile:
        command = [find(), *FLAGS, f"--user-data-dir={profile}", "about:blank"]
        with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
            try:
                port = next(match[1] for line in process.stderr if (match := re.search(r"ws://[^:]*:(\d+)/", line)))
                with urlopen(f"http://127.0.0.1:{port}/json") as answer:
                    page = next(target for target in json.load(answer) if target["type"] == "page")
                socket = websocket.create_connection(page["webSocketDebuggerUrl"], timeout=60)
                yield Tab(socket)
                socket.close()
            finally:
                process.kill()


class Tab:
    """One tab: opens pages, evaluates JavaScript, keeps what went wrong."""

    def __init__(self, socket):
        self._socket, self._numbers, self._loaded = socket, itertools.count(1), False
        self.problems, self.requests = [], []
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.call(f"{domain}.enable")
        self.call("Emulation.setFocusEmulationEnabled", enabled=True)

    def call(self, method, **parameters):
        """Send a command of the protocol; its result."""
        number = next(self._numbers)
        self._socket.send(json.dumps({"id": number, "method": method, "params": parameters}))
        while (message := json.loads(self._socket.recv())).get("id") != number:
            self._note(message)
        if "error" in message:
            raise RuntimeError(f"{method}: {message['error']['message']}")
        return message["result"]

    def _note(self, event):
        found = event.get("params", {})
        match event["method"]:
            case "Page.loadEventFired":
                self._loaded = True
            case "Network.requestWillBeSent":
                self.requests.append(found["request"]["url"])
            case "Network.loadingFailed" if not found.get("canceled"):
                self.problems.append(f"not loaded: {found['errorText']}")
            case "Runtime.exceptionThrown":
                details = found["exceptionDetails"]
                self.problems.append(details.get("exception", {}).get("description", details["text"]))
            case "Runtime.consoleAPICalled" if found["type"] == "error":
                self.problems.append(" ".join(str(each.get("value")) for each in found["args"]))
            case "Log.entryAdded" if found["entry"]["level"] == "error":
                self.problems.append(f"{found['entry']['text']} {found['entry'].get('url', '')}")

    def open(self, address):
        """Load a page, to its load event; forgets what went wrong before."""
        self.problems, self.requests, self._loaded = [], [], False
        if error := self.call("Page.navigate", url=address).get("errorText"):
            raise RuntimeError(f"{address}: {error}")
        while not self._loaded:
            self._note(json.loads(self._socket.recv()))

    def show_as(self, *, width, height=900, dark=False):
        """Set the size of the window in pixels, and what the reader prefers."""
        self.call("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=False)
        preferred = [{"name": "prefers-color-scheme", "value": "dark" if dark else "light"}]
        self.call("Emulation.setEmulatedMedia", features=preferred)

    def evaluate(self, expression):
        """The value of a JavaScript expression, or of what it promises."""
        answer = self.call("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        if "exceptionDetails" in answer:
            raise RuntimeError(answer["exceptionDetails"].get("exception", {}).get("description", expression))
        return answer["result"].get("value")

    def wait_for(self, expression, seconds=20):
        """The first value of a JavaScript expression that counts as true."""
        end = time.monotonic() + seconds
        while not (value := self.evaluate(expression)):
            if time.monotonic() > end:
                raise TimeoutError(f"{expression}: not within {seconds} seconds; {self.problems}")
            time.sleep(0.1)
        return value

    def screenshot(self, *, whole=False):
        """The window as png, base64; or the whole page."""
        return self.call("Page.captureScreenshot", captureBeyondViewport=whole)["data"]
