"""Requests of a stream, taken in while an earlier one is answered."""

import queue
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress

_GLANCE = 0.5
"""Seconds after which a thread that can hand nothing on looks whether anybody still waits."""


@contextmanager
def read_ahead(requests: Iterator[bytes], most: int) -> Iterator[Iterator[bytes]]:
    """The same requests; up to `most` lie here, read by a thread, while one is being answered.

    gRPC takes in 64 KiB of a stream by itself, and the rest of a frame only once it is asked for;
    so without this a frame would travel when the one before it is done.
    """
    came: queue.Queue[bytes | None] = queue.Queue(most)
    over = threading.Event()

    def hand_on(data: bytes | None) -> None:
        while not over.is_set():
            with suppress(queue.Full):
                came.put(data, timeout=_GLANCE)
                return

    def read() -> None:
        with suppress(Exception):  # a stream that breaks is told of where it is left
            for data in requests:
                hand_on(data)
                if over.is_set():
                    break
        hand_on(None)

    threading.Thread(target=read, name="read ahead", daemon=True).start()
    try:
        yield iter(came.get, None)
    finally:
        over.set()
