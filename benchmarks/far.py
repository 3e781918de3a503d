"""A link that is slow: what passes it comes after its latency, at its bandwidth."""

import queue
import socket
import threading
from contextlib import suppress
from time import perf_counter, sleep

_PIECE = 2**14
"""Bytes passed on at a time."""


class FarAway:
    """Makes a server of this machine seem far away.

    Attributes:
        address: HOST:PORT to call instead.
    """

    def __init__(self, target: str, delay: float, up: float, down: float) -> None:
        """Listen; `delay` in seconds one way, `up` and `down` in bytes a second."""
        host, _, port = target.rpartition(":")
        self._target, self._delay, self._rates = (host, int(port)), delay, (up, down)
        self._listening = socket.create_server(("127.0.0.1", 0))
        self.address = f"127.0.0.1:{self._listening.getsockname()[1]}"
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        """Take no more calls."""
        self._listening.close()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                caller, _ = self._listening.accept()
                server = socket.create_connection(self._target)
                ways = ((caller, server), (server, caller))
                for ends, rate in zip(ways, self._rates, strict=True):
                    threading.Thread(target=self._pass, args=(*ends, rate), daemon=True).start()

    def _pass(self, source: socket.socket, sink: socket.socket, rate: float) -> None:
        """One way of a connection: what comes in is let out when it would be there."""
        sink.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        under_way: queue.SimpleQueue[tuple[float, bytes]] = queue.SimpleQueue()
        threading.Thread(target=_let_out, args=(under_way, sink), daemon=True).start()
        sent = 0.0  # when the last byte so far has left
        while True:
            try:
                data = source.recv(_PIECE)
            except OSError:
                data = b""
            sent = max(sent, perf_counter()) + len(data) / rate
            under_way.put((sent + self._delay, data))
            if not data:
                return


def _let_out(under_way: "queue.SimpleQueue[tuple[float, bytes]]", sink: socket.socket) -> None:
    with suppress(OSError):
        while True:
            due, data = under_way.get()
            sleep(max(due - perf_counter(), 0.0))
            if not data:
                sink.shutdown(socket.SHUT_WR)
                return
            sink.sendall(data)
