"""A real headless Chromium for tests, driven over its DevTools protocol."""

import base64
import itertools
import json
import shutil
import subprocess
import time
from pathlib import Path
from typing import Any
from urllib.request import urlopen

from served import PATIENCE

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
KEYS = {
    "ArrowLeft": ("ArrowLeft", 37), "ArrowRight": ("ArrowRight", 39), " ": ("Space", 32), "1": ("Digit1", 49),
    "2": ("Digit2", 50), "3": ("Digit3", 51), "s": ("KeyS", 83), "u": ("KeyU", 85), "o": ("KeyS", 79),
    "ㄴ": ("KeyS", 229), "ㅕ": ("KeyU", 229), "Tab": ("Tab", 9),
}  # fmt: skip
"""By what a key writes, its place on the keyboard and its code. `o` has the place of s on a Dvorak keyboard."""


class Browser:
    """One tab. Everything that the page asks for and logs is kept."""

    def __init__(self, folder: Path):
        from websockets.sync.client import connect

        assert CHROMIUM
        words = ["--headless=new", "--no-sandbox", "--disable-gpu", "--remote-debugging-port=0", "--no-first-run"]
        self.process = subprocess.Popen(
            [CHROMIUM, *words, f"--user-data-dir={folder}", "about:blank"],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        told = folder / "DevToolsActivePort"
        self._until(lambda: told.exists() and told.read_text().count("\n") >= 1)
        port = told.read_text().split()[0]
        with urlopen(f"http://127.0.0.1:{port}/json/list", timeout=PATIENCE) as answer:
            (tab,) = [t for t in json.load(answer) if t["type"] == "page"]
        self.socket = connect(tab["webSocketDebuggerUrl"], max_size=None, ping_interval=None)
        self.numbers = itertools.count(1)
        self.events: list[dict[str, Any]] = []
        for domain in ("Page", "Runtime", "Network", "Log"):
            self.ask(f"{domain}.enable")

    def close(self) -> None:
        """End it."""
        self.socket.close()
        self.process.kill()
        self.process.wait()

    def ask(self, method: str, **params: Any) -> dict[str, Any]:
        """Send a command; its result."""
        number = next(self.numbers)
        self.socket.send(json.dumps({"id": number, "method": method, "params": params}))
        while True:
            message = json.loads(self.socket.recv(PATIENCE))
            if message.get("id") == number:
                assert "error" not in message, message
                return dict(message["result"])
            self.events.append(message)

    def value(self, script: str) -> Any:
        """What an expression is in the page."""
        done = self.ask("Runtime.evaluate", expression=script, returnByValue=True)
        assert "exceptionDetails" not in done, done
        return done["result"].get("value")

    def go(self, address: str) -> None:
        """Load a page."""
        self._loading(lambda: self.ask("Page.navigate", url=address))

    def press(self, key: str, loads: bool = True) -> None:
        """Press a key; `loads`: and wait for the page that comes of it."""
        place, code = KEYS[key]
        text = {"text": key} if len(key) == 1 else {}
        names = {"key": key, "code": place, "windowsVirtualKeyCode": code}

        def act() -> None:
            self.ask("Input.dispatchKeyEvent", type="keyDown", **names, **text)
            self.ask("Input.dispatchKeyEvent", type="keyUp", **names)

        self._loading(act) if loads else act()

    def click(self, selector: str) -> None:
        """Click on an element, and wait for the page that comes of it."""
        self._loading(lambda: self.value(f"document.querySelector({json.dumps(selector)}).click()"))

    def picture(self, path: Path, width: int, height: int, scheme: str = "light") -> None:
        """A screenshot of the page in a window of that size, in the format of the file's name."""
        size = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 600}
        self.ask("Emulation.setDeviceMetricsOverride", **size)
        self.ask("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme}])
        how: dict[str, Any] = {"format": "webp", "quality": 80} if path.suffix == ".webp" else {}
        path.write_bytes(base64.b64decode(self.ask("Page.captureScreenshot", **how)["data"]))
        self.ask("Emulation.clearDeviceMetricsOverride")

    def seen(self, method: str) -> list[dict[str, Any]]:
        """The parameters of the events of that name so far."""
        return [e["params"] for e in self.events if e.get("method") == method]

    def _loading(self, act: Any) -> None:
        before = len(self.seen("Page.loadEventFired"))
        act()

        def loaded() -> bool:
            self.ask("Runtime.evaluate", expression="0")  # reads the events that came
            return len(self.seen("Page.loadEventFired")) > before

        self._until(loaded)

    @staticmethod
    def _until(ready: Any) -> None:
        deadline = time.monotonic() + PATIENCE
        while not ready():
            assert time.monotonic() < deadline
            time.sleep(0.02)
