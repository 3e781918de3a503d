"""What only the in-process transport can promise."""

import pytest

from elsa.errors import Interrupted
from elsa.wire.inprocess import InProcess
from elsa.wire.messages import Accepted, Message
from elsa.wire.transport import Link


@pytest.mark.parametrize("stop", [Interrupted, KeyboardInterrupt])
def test_stop_in_the_handler_stops_the_caller(stop: type[BaseException]) -> None:
    # In one process both sides are the same person's; a refusal would leave out a device instead.
    told: list[str] = []

    def handler(peer: str, request: Message) -> Message:
        raise stop

    link = Link("device_edge", "device-0", "edge-0")
    with pytest.raises(stop):
        InProcess(handler, link, (), lambda peer, reason: told.append(peer)).call(Accepted())
    assert told == []
