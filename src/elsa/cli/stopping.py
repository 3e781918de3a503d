"""Lines for the person at the terminal, and their wish to stop."""

import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType


def say(line: str) -> None:
    """Print a line on standard error."""
    sys.stderr.write(f"{line}\n")


@contextmanager
def stoppable() -> Iterator[list[int]]:
    """Collect interrupts instead of dying of them; a second Ctrl-C dies at once."""
    stopped: list[int] = []

    def stop(number: int, _: FrameType | None) -> None:
        stopped.append(number)
        signal.signal(signal.SIGINT, signal.default_int_handler)
        say("stopping; the last checkpoint is kept (Ctrl-C again to stop at once)")

    before = {number: signal.signal(number, stop) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield stopped
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
