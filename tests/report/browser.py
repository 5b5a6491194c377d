"""A page as headless Chromium shows it, over its debugging pipe: broken images, widths, the console, the Tab key."""

from __future__ import annotations

import base64
import json
import os
import select
import shlex
import shutil
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Any

import pytest

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
in_a_browser = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine: apt install chromium")
OPTIONS = (
    "--headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking "
    "--disable-component-update --disable-sync --disable-dev-shm-usage --remote-debugging-pipe about:blank"
).split()
PROBE = """(async () => {
  const images = [...document.images];
  await Promise.all(images.map(image => image.decode().catch(() => null)));
  const hidden = one => one.closest(".skip") || (one.closest("thead") && getComputedStyle(one.closest("thead")).position === "absolute");
  const beyond = [...document.querySelectorAll("body *")].filter(one => one.getBoundingClientRect().right > innerWidth + 1 && !hidden(one));
  return {
    images: images.length, broken: images.filter(image => !image.naturalWidth).length, width: innerWidth,
    scroll: document.documentElement.scrollWidth, beyond: beyond.slice(0, 3).map(one => one.outerHTML.slice(0, 120)),
    scripts: document.scripts.length, background: getComputedStyle(document.body).backgroundColor,
    ink: getComputedStyle(document.body).color, text: document.body.innerText,
  };
})()"""
FOCUSED = "document.activeElement === document.body ? '' : document.activeElement.textContent.trim()"
SECONDS = 60.0


class Browser:
    """One Chromium; a context manager. ``console`` collects what the pages write there, refused resources included."""

    def __enter__(self) -> Browser:
        assert CHROMIUM is not None
        self._profile = tempfile.TemporaryDirectory(ignore_cleanup_errors=True)
        theirs_in, self._out = os.pipe()
        self._in, theirs_out = os.pipe()
        command = shlex.join([CHROMIUM, *OPTIONS, f"--user-data-dir={self._profile.name}"])
        self._process = subprocess.Popen(
            ["bash", "-c", f"exec {command} 3<&{theirs_in} 4>&{theirs_out}"],
            pass_fds=(theirs_in, theirs_out), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        os.close(theirs_in)
        os.close(theirs_out)
        self._buffer, self._last, self._session = b"", 0, ""
        self._events: list[dict[str, Any]] = []
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        self._session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.call(f"{domain}.enable")
        return self

    def __exit__(self, *_error: object) -> None:
        os.close(self._out)
        os.close(self._in)
        self._process.kill()
        self._process.wait()
        self._profile.cleanup()

    def call(self, method: str, **parameters: Any) -> dict[str, Any]:
        self._last += 1
        message = {"id": self._last, "method": method, "params": parameters}
        if self._session:
            message["sessionId"] = self._session
        os.write(self._out, json.dumps(message).encode() + b"\0")
        answer = self._until(lambda one: one.get("id") == self._last)
        assert "error" not in answer, (method, answer["error"])
        result: dict[str, Any] = answer["result"]
        return result

    def _until(self, wanted: Any) -> dict[str, Any]:
        end = time.monotonic() + SECONDS
        while time.monotonic() < end:
            while b"\0" in self._buffer:
                raw, self._buffer = self._buffer.split(b"\0", 1)
                message: dict[str, Any] = json.loads(raw)
                self._events.append(message)
                if wanted(message):
                    return message
            if select.select([self._in], [], [], 1.0)[0]:
                self._buffer += os.read(self._in, 1 << 20)
        raise TimeoutError("Chromium did not answer")

    def open(
        self, page: Path, width: int = 360, *, height: int = 800, dark: bool = False, media: str = ""
    ) -> dict[str, Any]:
        """Show a page and measure it: number of images and of broken ones, widths, elements that stick out."""
        self._events.clear()
        self.call("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=False)
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        still = {"name": "prefers-reduced-motion", "value": "reduce"}  # no smooth scrolling
        self.call("Emulation.setEmulatedMedia", media=media, features=[scheme, still])
        self.call("Page.navigate", url=page.as_uri())
        self._until(lambda one: one.get("method") == "Page.loadEventFired")
        return self.run(PROBE)

    def run(self, program: str) -> Any:
        answer = self.call("Runtime.evaluate", expression=program, awaitPromise=True, returnByValue=True)
        assert "exceptionDetails" not in answer, answer["exceptionDetails"]
        return answer["result"].get("value")

    def console(self) -> list[str]:
        """What the page wrote to the console since it was opened."""
        names = ("Runtime.consoleAPICalled", "Runtime.exceptionThrown", "Log.entryAdded")
        return [json.dumps(one["params"]) for one in self._events if one.get("method") in names]

    def requests(self) -> list[str]:
        """The addresses that the page asked for since it was opened, itself included."""
        sent = [one["params"] for one in self._events if one.get("method") == "Network.requestWillBeSent"]
        return [one["request"]["url"] for one in sent]

    def press(self, key: str, *, shift: bool = False) -> None:
        """Press and release a key: "Tab", "Enter", "Escape", "ArrowLeft", or a letter."""
        number = {
            "Tab": 9,
            "Enter": 13,
            "Escape": 27,
            "ArrowLeft": 37,
            "ArrowUp": 38,
            "ArrowRight": 39,
            "ArrowDown": 40,
        }
        text = {"text": "\r"} if key == "Enter" else {"text": key} if len(key) == 1 else {}
        event = {"key": key, "code": key, "windowsVirtualKeyCode": number.get(key, 0), "modifiers": 8 * shift}
        self.call("Input.dispatchKeyEvent", type="keyDown", **event, **text)
        self.call("Input.dispatchKeyEvent", type="keyUp", **event)

    def mouse(self, kind: str, x: float, y: float, **more: Any) -> None:
        """``kind``: "mouseMoved", "mousePressed", "mouseReleased", "mouseWheel", at a place of the window."""
        self.call("Input.dispatchMouseEvent", type=kind, x=x, y=y, **more)

    def tab(self) -> str:
        """Press Tab; the text of what has the focus then."""
        self.press("Tab")
        found: str = self.run(FOCUSED)
        return found

    def screenshot(self, out: Path) -> None:
        """The whole page as PNG."""
        picture = self.call("Page.captureScreenshot", captureBeyondViewport=True)["data"]
        out.write_bytes(base64.b64decode(picture))
