"""Lines for the person at the terminal, and their wish to stop."""

import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType


def say(line: str) -> None:
    """Print a line on standard error."""
    sys.stderr.write(f"{line}\n")


@contextmanager
def stoppable(
    kept: str = "the last checkpoint is kept", say: Callable[[str], None] = say
) -> Iterator[list[int]]:
    """Collect interrupts instead of dying of them; a second Ctrl-C dies at once.

    Args:
        kept: what is not lost by stopping.
        say: told of it.
    """
    stopped: list[int] = []

    def stop(number: int, _: FrameType | None) -> None:
        stopped.append(number)
        signal.signal(signal.SIGINT, signal.default_int_handler)
        say(f"stopping; {kept} (Ctrl-C again to stop at once)")

    before = {number: signal.signal(number, stop) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield stopped
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
