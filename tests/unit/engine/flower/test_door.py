"""A door's conversations: bytes pass unread, and a caller that is gone is noticed."""

import threading
from pathlib import Path

import pytest

from elsa.engine.flower.door import Caller, Door, Head


def test_any_bytes_pass_and_callers_are_counted(tmp_path: Path) -> None:
    frame = bytes(range(256)) * 5000
    there, gone = threading.Semaphore(0), threading.Semaphore(0)

    def answer(head: Head, data: bytes) -> tuple[Head, bytes]:
        return {"heard": head}, data[::-1]

    door = Door(tmp_path / "door", answer, there.release, gone.release)
    with Caller(str(door.path)) as one, Caller(str(door.path)) as two:
        assert there.acquire(timeout=10) and there.acquire(timeout=10)
        assert one.ask({"a": 1}, frame) == ({"heard": {"a": 1}}, frame[::-1])
        assert two.ask({}) == ({"heard": {}}, b"")
        assert not gone.acquire(blocking=False)
    assert gone.acquire(timeout=10) and gone.acquire(timeout=10)
    door.close()
    with pytest.raises(OSError):
        Caller(str(door.path))


def test_only_this_user_may_knock(tmp_path: Path) -> None:
    door = Door(tmp_path / "door", lambda head, frame: (head, frame))
    assert door.path.stat().st_mode & 0o077 == 0
    door.close()


def test_a_late_answer_is_a_timeout_and_a_failing_one_hangs_up(tmp_path: Path) -> None:
    late = threading.Event()

    def answer(head: Head, frame: bytes) -> tuple[Head, bytes]:
        if head.get("fail"):
            raise ValueError("not mine")
        late.wait(10)
        return {}, b""

    door = Door(tmp_path / "door", answer)
    with Caller(str(door.path)) as caller, pytest.raises(TimeoutError):
        caller.ask({}, seconds=0.05)
    late.set()
    with Caller(str(door.path)) as caller, pytest.raises(EOFError):
        caller.ask({"fail": True}, seconds=10)
    door.close()
