"""A relay between both ends of a link, that a test can break."""

import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress

import pytest


class Relay:
    """Passes bytes between callers and a server, until told otherwise.

    Attributes:
        address: HOST:PORT to call.
        connections: made so far.
    """

    def __init__(self, target: str) -> None:
        host, _, port = target.rpartition(":")
        self._target = (host, int(port))
        self._listening = socket.create_server(("127.0.0.1", 0))
        self.address = f"127.0.0.1:{self._listening.getsockname()[1]}"
        self.connections = 0
        self._open: list[socket.socket] = []
        self._flowing = threading.Event()
        self._flowing.set()
        threading.Thread(target=self._accept, daemon=True).start()

    def cut(self) -> None:
        """Break every connection there is, as if the network had; new ones are let through."""
        for each in self._open:
            with suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
        self._open.clear()

    def stall(self) -> None:
        """Let nothing pass, and tell nobody, until `flow`."""
        self._flowing.clear()

    def flow(self) -> None:
        self._flowing.set()

    def close(self) -> None:
        self._listening.close()
        self.flow()
        self.cut()

    def _accept(self) -> None:
        while True:
            try:
                caller, _ = self._listening.accept()
                server = socket.create_connection(self._target)
            except OSError:
                return
            self.connections += 1
            self._open += [caller, server]
            for ends in ((caller, server), (server, caller)):
                threading.Thread(target=self._pass, args=ends, daemon=True).start()

    def _pass(self, source: socket.socket, sink: socket.socket) -> None:
        with suppress(OSError):
            while data := source.recv(65536):
                self._flowing.wait()
                sink.sendall(data)
        for end in (source, sink):
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
            end.close()


@pytest.fixture
def relay() -> Iterator[Callable[[str], Relay]]:
    """Makes relays to an address; closed after the test."""
    made: list[Relay] = []

    def make(target: str) -> Relay:
        made.append(Relay(target))
        return made[-1]

    yield make
    for each in made:
        each.close()
