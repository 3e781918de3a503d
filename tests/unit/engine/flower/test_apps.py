"""What runs in Flower's own processes: it carries frames unread and loads no model library."""

import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from flwr.app import Context, Error, Message, Metadata, RecordDict
from flwr.app.message import make_message
from flwr.proto.node_pb2 import NodeInfo
from flwr.supercore.task_identity import TaskIdentity

import elsa.engine.flower as package
from elsa.engine.flower.clientapp import app as client
from elsa.engine.flower.door import Caller, Door, Head
from elsa.engine.flower.parcel import pack, unpack
from elsa.engine.flower.serverapp import carry

FRAME = bytes(range(256)) * 40_000  # more than Flower carries in one piece


class Grid:
    """A SuperLink that brings each message to the ClientApp at once.

    Attributes:
        lifetimes: of the messages, in seconds.
    """

    def __init__(self, door: Path) -> None:
        self.lifetimes: list[float] = []
        self._door = door
        self._replies: dict[str, Message] = {}

    def get_nodes(self) -> list[NodeInfo]:
        return [NodeInfo(node_id=7, name="edge-0")]

    def push_messages(self, messages: list[Message]) -> list[str]:
        (message,) = messages
        assert message.metadata.dst_node_id == 7
        self.lifetimes.append(message.metadata.ttl)
        number = f"message-{len(self.lifetimes)}"
        there = Metadata(1, number, 1, 7, "", "", message.metadata.created_at, 60.0, "train.order")
        message = make_message(there, content=message.content)
        context = Context(1, 7, {"door": str(self._door)}, RecordDict(), {})
        if len(self.lifetimes) == 1:
            self._replies[number] = Message(Error(3, "the node is away"), reply_to=message)
        else:
            self._replies[number] = client(message, context)
        return [number]

    def pull_messages(self, numbers: list[str]) -> list[Message]:
        return [self._replies.pop(number) for number in numbers if number in self._replies]


def test_frames_go_there_and_back_unread_and_failures_are_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(TaskIdentity, "_run_id", 1)
    monkeypatch.setattr(TaskIdentity, "_node_id", 1)
    monkeypatch.setattr(TaskIdentity, "_task_id", 1)
    told: list[tuple[Head, bytes]] = []
    asked = iter(
        [
            {"job": 1, "edge": "edge-0", "seconds": 9.0, "request": "a"},
            {"job": 2, "edge": "edge-0", "seconds": 8.0, "request": "a"},
            {"job": 3, "edge": "edge-9", "seconds": 7.0, "request": "b"},
            {"end": True},
        ]
    )

    def cloud(head: Head, frame: bytes) -> tuple[Head, bytes]:
        if head["say"] == "next":
            return next(asked), FRAME
        told.append((head, frame))
        return {}, b""

    def edge(head: Head, frame: bytes) -> tuple[Head, bytes]:
        assert head == {"request": "a"} and frame == FRAME
        return {}, frame[::-1]

    doors = Door(tmp_path / "cloud", cloud), Door(tmp_path / "edge", edge)
    grid = Grid(tmp_path / "edge")
    with Caller(str(tmp_path / "cloud")) as caller:
        carry(grid, caller)
    for door in doors:
        door.close()
    assert grid.lifetimes == [9.0, 8.0]
    assert [head["say"] for head, _ in told] == ["failed", "answer", "failed"]
    assert [head["job"] for head, _ in told] == [1, 2, 3]
    assert told[0][0]["reason"] == "the node is away"
    assert told[1][1] == FRAME[::-1]
    assert "edge-9" in told[2][0]["reason"]


def test_an_edge_that_is_not_there_is_told_instead_of_an_answer(tmp_path: Path) -> None:
    metadata = Metadata(1, "m", 1, 7, "", "", 0.0, 60.0, "train.order")
    message = make_message(metadata, content=pack({"request": "a"}, FRAME))
    context = Context(1, 7, {"door": str(tmp_path / "none")}, RecordDict(), {})
    head, frame = unpack(client(message, context).content)
    assert "elsa edge did not answer" in head["failed"] and frame == b""


@pytest.mark.parametrize("name", ["clientapp", "serverapp"])
def test_flowers_processes_load_neither_torch_nor_numba(name: str) -> None:
    words = f"import sys, elsa.engine.flower.{name}; print({{'torch', 'numba'}} & {{*sys.modules}})"
    done = subprocess.run([sys.executable, "-c", words], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


def test_no_code_is_sent_to_edges_and_the_version_is_the_one_that_elsa_asks_for() -> None:
    (folder,) = package.__path__
    files = [it for it in (Path(folder) / "app").iterdir() if it.is_file()]
    assert [it.name for it in files] == ["pyproject.toml"]
    sent = tomllib.loads(files[0].read_text(encoding="utf-8"))
    wanted = tomllib.loads((Path(__file__).parents[4] / "pyproject.toml").read_text("utf-8"))
    (flower,) = wanted["project"]["optional-dependencies"]["flower"]
    assert flower == f"flwr=={sent['tool']['flwr']['app']['flwr-version-target']}"
