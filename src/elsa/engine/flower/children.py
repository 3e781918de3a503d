"""Flower's processes: started again when they end or hang, never outliving whoever wants them."""

import logging
import os
import re
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from time import monotonic
from types import TracebackType
from typing import Self

from elsa.errors import ConfigError

_log = logging.getLogger(__name__)
_QUIET = {
    "FLWR_TELEMETRY_ENABLED": "0",
    "FLWR_DISABLE_UPDATE_CHECK": "1",
    "FLWR_DISABLE_RUNTIME_DEPENDENCY_INSTALLATION": "1",
    "RAY_USAGE_STATS_ENABLED": "0",
}
_COLOUR = re.compile("\x1b\\[[0-9;]*m")
_PAUSE, _LONGEST_PAUSE = 1.0, 10.0
"""Seconds before a child that ended is started again: the first time, and at most."""
_STEADY = 60.0
"""Seconds after which a child counts as one that runs."""
_LOOK, _DEAF = 5.0, 30.0
"""Seconds between looks at whether a child answers, and after which one that does not is ended."""
_FIRST = 600.0
"""Seconds besides for its first answer."""
_LAST_WORDS = 20
"""Lines of a child that are kept, to be told if it ends."""


class Children:
    """Runs Flower's commands within a `with`; at its end, or this process's, they are gone.

    All belong to the process group of a keeper that ends the group when the pipe from this process
    closes, so kill -9 leaves nothing behind, the folder included.

    Attributes:
        folder: private to this user, for sockets, keys and the database.
    """

    def __init__(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="elsa-flower-"))
        self._environment = os.environ | _QUIET | {"FLWR_HOME": str(self.folder / "home")}
        # a command of this very environment comes first, whatever PATH says
        self._commands = Path(sys.executable).parent
        self._environment["PATH"] = f"{self._commands}{os.pathsep}{os.environ.get('PATH', '')}"
        self._environment["NO_PROXY"] = ",".join(["127.0.0.1", os.environ.get("NO_PROXY", "")])
        self._over = threading.Event()
        self._children: list[Child] = []
        script = Path(__file__).with_name("keeper.py")
        self._keeper = subprocess.Popen(
            [sys.executable, "-I", "-S", str(script), str(self.folder)],
            stdin=subprocess.PIPE,
            process_group=0,
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._over.set()
        assert self._keeper.stdin is not None
        self._keeper.stdin.close()
        self._keeper.wait()
        for child in self._children:
            child.join()
        shutil.rmtree(self.folder, ignore_errors=True)

    def supervise(
        self,
        command: str,
        *words: str,
        answers: Callable[[], bool] | None = None,
        takes: "Child | None" = None,
    ) -> "Child":
        """Start a command, and again whenever it ends.

        Args:
            command: its name.
            words: what it is given.
            answers: asked now and then whether it does; where it did and does no longer, it is
                ended, as one that hangs or was frozen.
            takes: what is ended with it, since it would wait for what went lost with this one.
        """
        self._children.append(Child(self, command, words, self._over, answers, takes))
        return self._children[-1]

    def once(self, command: str, *words: str, seconds: float = 120.0) -> str:
        """What a command writes on standard output.

        Raises:
            ConfigError: it failed, or took longer; with what it said.
        """
        process = self.start(command, words)
        try:
            told, _ = process.communicate(timeout=seconds)
        except subprocess.TimeoutExpired:
            process.kill()
            told, _ = process.communicate()
        if process.returncode:
            raise ConfigError(f"{command} {' '.join(words[:2])} failed: {told.strip()[-500:]}")
        return told

    def start(self, command: str, words: Sequence[str]) -> subprocess.Popen[str]:
        """A process of the group; its standard output and error come over a pipe.

        Raises:
            ConfigError: Flower is not installed.
        """
        path = self._commands / command
        try:
            return subprocess.Popen(
                [str(path), *words],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                errors="replace",
                env=self._environment,
                cwd=self.folder,
                process_group=self._keeper.pid,
            )
        except FileNotFoundError as error:
            raise ConfigError(
                f"{path}: not there; deploy.link = 'flower' needs it: pip install 'elsa[flower]'"
            ) from error


class Child:
    """A supervised command.

    Attributes:
        starts: how often it was started.
    """

    def __init__(
        self,
        group: Children,
        command: str,
        words: Sequence[str],
        over: threading.Event,
        answers: Callable[[], bool] | None,
        takes: "Child | None",
    ) -> None:
        self._group, self._command, self._words, self._over = group, command, words, over
        self._answers, self._takes = answers, takes
        self._last: list[str] = []
        self.starts = 0
        self._process = self._start()
        self._supervisor = threading.Thread(target=self._supervise, name=command, daemon=True)
        self._supervisor.start()

    @property
    def alive(self) -> bool:
        """Whether it runs now."""
        return self._process.poll() is None

    @property
    def pid(self) -> int:
        """Its process, now."""
        return self._process.pid

    def end(self) -> None:
        """End it at once; it is started again."""
        self._process.kill()

    def last_words(self) -> str:
        """The last lines that it said."""
        return "\n".join(self._last)

    def join(self) -> None:
        """Wait until nobody listens to it any more, once its group has ended."""
        self._supervisor.join()
        self._listener.join()

    def _start(self) -> subprocess.Popen[str]:
        process = self._group.start(self._command, self._words)
        self.starts += 1
        self._listener = threading.Thread(target=self._listen, args=(process,), daemon=True)
        self._listener.start()
        return process

    def _supervise(self) -> None:
        pause = _PAUSE
        while True:
            begun = monotonic()
            status = self._ended()
            pause = _PAUSE if monotonic() - begun > _STEADY else pause
            if self._over.wait(pause):
                return
            if self._takes is not None:
                self._takes.end()
            last = self._last[-1] if self._last else "nothing was said"
            _log.warning("%s ended (%d): %s; starting it again", self._command, status, last)
            pause = min(2 * pause, _LONGEST_PAUSE)
            self._process = self._start()

    def _ended(self) -> int:
        """Its exit status, once it has ended, or was ended because it does not answer any more."""
        heard = monotonic() + _FIRST
        while True:
            try:
                return self._process.wait(None if self._answers is None else _LOOK)
            except subprocess.TimeoutExpired:
                assert self._answers is not None
            if self._answers():
                heard = monotonic()
            elif monotonic() - heard > _DEAF and not self._over.is_set():
                _log.warning("%s does not answer for %.0f s; ending it", self._command, _DEAF)
                self._process.kill()

    def _listen(self, process: subprocess.Popen[str]) -> None:
        assert process.stdout is not None
        with process.stdout as lines:
            for line in lines:
                self._note(_COLOUR.sub("", line).strip())

    def _note(self, said: str) -> None:
        if not said.partition(":")[2]:
            return
        self._last = [*self._last, said][-_LAST_WORDS:]
        level = logging.WARNING if said.startswith(("ERROR", "CRITICAL")) else logging.DEBUG
        _log.log(level, "%s: %s", self._command, said)


def free_port() -> int:
    """A port of loopback that nobody listens at now."""
    with socket.create_server(("127.0.0.1", 0)) as found:
        return int(found.getsockname()[1])


def write_private(path: Path, content: bytes) -> Path:
    """Write a file that only this user may read."""
    with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:  # noqa: PTH123
        file.write(content)
    return path


def quoted(values: Mapping[str, str]) -> str:
    """Values as Flower's command line takes them."""
    return " ".join(f'{name}="{value}"' for name, value in values.items())
