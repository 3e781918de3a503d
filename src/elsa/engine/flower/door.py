"""A private socket of this machine: how Flower's apps, processes of their own, reach elsa's.

A conversation is a request and its answer, each a head (a JSON object) and the bytes of a frame.
The socket lies in a folder that only this user may enter; no pickles cross it. This module and
those that import it in Flower's processes load neither torch nor gRPC.
"""

import json
import logging
import threading
from collections.abc import Callable
from multiprocessing.connection import Client, Connection, Listener
from pathlib import Path
from types import TracebackType
from typing import Any, Self

Head = dict[str, Any]
Answerer = Callable[[Head, bytes], tuple[Head, bytes]]
_log = logging.getLogger(__name__)


class Caller:
    """The caller's end, within a `with`."""

    def __init__(self, path: str) -> None:
        """Connect; raises OSError if nobody listens."""
        self._line = Client(path, "AF_UNIX")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._line.close()

    def ask(
        self, head: Head, frame: bytes = b"", seconds: float | None = None
    ) -> tuple[Head, bytes]:
        """The answer.

        Raises:
            TimeoutError: it did not come in so many seconds.
            OSError, EOFError: the other end is gone.
        """
        _send(self._line, head, frame)
        if not self._line.poll(seconds):
            raise TimeoutError(f"no answer within {seconds:.0f} s")
        return _receive(self._line)


class Door:
    """The listening end: each caller has a thread; open until `close`."""

    def __init__(
        self,
        path: Path,
        answer: Answerer,
        came: Callable[[], None] = lambda: None,
        left: Callable[[], None] = lambda: None,
    ) -> None:
        """Listen.

        Args:
            path: of the socket, not there yet.
            answer: from a request's head and frame to those of the answer; called by several
                threads at once.
            came: told that a caller is there.
            left: told that it is gone.
        """
        self.path = path
        self._answer, self._came, self._left = answer, came, left
        self._listener = Listener(str(path), "AF_UNIX", backlog=16)
        path.chmod(0o600)
        self._closed = False
        threading.Thread(target=self._accept, name="door", daemon=True).start()

    def close(self) -> None:
        """Take no more callers."""
        self._closed = True
        self._listener.close()

    def _accept(self) -> None:
        while not self._closed:
            try:
                line = self._listener.accept()
            except OSError:
                if self._closed:
                    return
                raise
            threading.Thread(target=self._converse, args=(line,), daemon=True).start()

    def _converse(self, line: Connection) -> None:
        self._came()
        try:
            while True:
                _send(line, *self._answer(*_receive(line)))
        except (EOFError, OSError):
            pass  # a caller hangs up when it is done, or was killed
        except Exception:
            _log.exception("a caller at %s ends", self.path)
        finally:
            line.close()
            self._left()


def _send(line: Connection, head: Head, frame: bytes) -> None:
    line.send_bytes(json.dumps(head).encode())
    line.send_bytes(frame)


def _receive(line: Connection) -> tuple[Head, bytes]:
    head = json.loads(line.recv_bytes())
    return head, line.recv_bytes()
