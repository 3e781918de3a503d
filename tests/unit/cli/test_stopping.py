"""A first interrupt asks to stop, a second does not ask."""

import signal

import pytest

from elsa.cli.stopping import stoppable


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_first_signal_asks_to_stop(number: int, capsys: pytest.CaptureFixture[str]) -> None:
    before = signal.getsignal(number)
    with stoppable() as stopped:
        assert not stopped
        signal.raise_signal(number)
        assert stopped == [number]
    assert signal.getsignal(number) is before
    assert "checkpoint is kept" in capsys.readouterr().err


def test_second_interrupt_stops_at_once() -> None:
    with stoppable():
        signal.raise_signal(signal.SIGINT)
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
