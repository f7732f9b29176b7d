"""A headless Chromium that tests drive as a person would: Chrome's DevTools protocol over two pipes."""

import base64
import contextlib
import json
import os
import shutil
import subprocess
import threading
import time

CHROMIUM = shutil.which("chromium")
# What is cut off or missing on a page, as value() gives it.
SIZES = """(() => { const page = document.documentElement; return {
  wide: page.scrollWidth - page.clientWidth, images: document.images.length,
  cut: [...document.querySelectorAll("body *")].filter((e) => {
    return e.getBoundingClientRect().right > page.clientWidth + 1; }).length,
  missing: [...document.images].filter((i) => !i.naturalWidth || !i.alt).length}; })()"""
PATIENCE = 60  # seconds for an answer


class Browser:
    """One tab. Its complaints, of the console and of scripts, are kept in `messages`."""

    def __init__(self, profile):
        read_end, self._out = os.pipe()
        self._in, write_end = os.pipe()
        flags = ["--headless", "--no-sandbox", "--disable-gpu", "--remote-debugging-pipe", f"--user-data-dir={profile}"]
        # The protocol's file descriptors are 3 and 4.
        script = f'exec "$0" "$@" 3<&{read_end} 4>&{write_end}'
        command = ["bash", "-c", script, CHROMIUM, *flags, "about:blank"]
        self._process = subprocess.Popen(command, pass_fds=(read_end, write_end), stderr=subprocess.DEVNULL)
        os.close(read_end)
        os.close(write_end)
        self._number, self._session, self._rest, self.messages, self.loads = 0, None, b"", [], 0
        self._watch = threading.Timer(2 * PATIENCE, self._process.kill)
        self._watch.start()
        (target,) = (t for t in self.ask("Target.getTargets")["targetInfos"] if t["type"] == "page")
        attached = self.ask("Target.attachToTarget", targetId=target["targetId"], flatten=True)
        self._session = attached["sessionId"]
        for domain in ("Page", "Runtime", "Log"):
            self.ask(f"{domain}.enable")

    def close(self):
        with contextlib.suppress(OSError):
            self.ask("Browser.close")
        self._process.wait(PATIENCE)
        self._watch.cancel()
        os.close(self._in)
        os.close(self._out)

    def ask(self, method, **params):
        """What the browser answers to a command."""
        self._number += 1
        message = {"id": self._number, "method": method, "params": params}
        os.write(
            self._out, json.dumps(message | ({"sessionId": self._session} if self._session else {})).encode() + b"\0"
        )
        while True:
            answer = self._next()
            if answer.get("id") == self._number:
                assert "error" not in answer, answer
                return answer["result"]

    def _next(self):
        while b"\0" not in self._rest:
            part = os.read(self._in, 2**16)
            if not part:
                raise OSError("the browser is gone")
            self._rest += part
        first, self._rest = self._rest.split(b"\0", 1)
        message = json.loads(first)
        method = message.get("method")
        if method in ("Runtime.consoleAPICalled", "Runtime.exceptionThrown", "Log.entryAdded"):
            self.messages.append(message["params"])
        self.loads += method == "Page.loadEventFired"
        return message

    def open(self, path, width, dark=False):
        """Load a file in a window of this width."""
        size = {"width": width, "height": 800, "deviceScaleFactor": 1, "mobile": False}
        self.ask("Emulation.setDeviceMetricsOverride", **size)
        scheme = [{"name": "prefers-color-scheme", "value": "dark" if dark else "light"}]
        self.ask("Emulation.setEmulatedMedia", features=scheme)
        before = self.loads
        self.ask("Page.navigate", url=path.resolve().as_uri())
        while self.loads == before:
            self._next()

    def value(self, expression):
        """What a JavaScript expression is worth in the page."""
        answer = self.ask("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in answer, answer
        return answer["result"].get("value")

    def press(self, key):
        for kind in ("keyDown", "keyUp"):
            code = {"ArrowLeft": 37, "ArrowRight": 39, "Home": 36, "End": 35}[key]
            self.ask("Input.dispatchKeyEvent", type=kind, key=key, code=key, windowsVirtualKeyCode=code)

    def click(self, x, y):
        for kind in ("mousePressed", "mouseReleased"):
            self.ask("Input.dispatchMouseEvent", type=kind, x=x, y=y, button="left", clickCount=1)

    def until(self, expression, seconds=15):
        """Wait for an expression to become true; whether it did."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            with contextlib.suppress(AssertionError):  # while the page is loaded anew
                if self.value(expression):
                    return True
            time.sleep(0.1)
        return False

    def screenshot(self, path):
        """A picture of the whole page."""
        answer = self.ask("Page.captureScreenshot", captureBeyondViewport=True)
        path.write_bytes(base64.b64decode(answer["data"]))
