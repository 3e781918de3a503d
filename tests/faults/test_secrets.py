"""Nothing that passes over a link holds text, token ids or labels.

Every frame of a round and an evaluation is captured on every link and searched for what each
device holds, in all the ways that numbers are usually put into bytes.
"""

import csv
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest
import torch
from torch import Tensor

from elsa.core.codec import Frame, Identity, Packet
from elsa.data.batches import BatchStream, Examples, eval_batches
from elsa.engine.build import Sources, build_federation, open_sources
from elsa.engine.federation import Federation
from elsa.engine.simulate import Simulation
from elsa.roles.device import Device
from elsa.wire import messages
from elsa.wire.layers import Tap
from elsa.wire.messages import Activations, Gradients, Message, Refusal, Update
from elsa.wire.serde import encode

Make = Callable[..., Any]
TOKENS, LABELS = 5, 6
"""How many in a row are searched for; few enough to find parts of texts and of batches."""


def varint(number: int) -> bytes:
    """As protobuf writes a whole number."""
    out = b""
    while number > 127:
        out, number = out + bytes([number % 128 + 128]), number // 128
    return out + bytes([number])


def spellings(numbers: Sequence[int]) -> Iterator[bytes]:
    """These numbers as bytes, in every way that a careless sender might choose."""
    values = np.asarray(numbers)
    for kind in ("<i8", "<i4", "<i2", ">i8", ">i4", ">i2", "<f8", "<f4"):
        yield values.astype(kind).tobytes()
    yield torch.tensor(numbers).bfloat16().view(torch.int16).numpy().tobytes()
    yield b"".join(varint(number) for number in numbers)
    yield ", ".join(map(str, numbers)).encode()


def windows(numbers: Sequence[int], size: int) -> list[tuple[int, ...]]:
    return [tuple(numbers[at : at + size]) for at in range(len(numbers) - size + 1)]


@dataclass
class Secrets:
    """What a federation must keep to its devices.

    Attributes:
        tokens: runs of token ids.
        labels: runs of labels, as they stand in the rows and in the batches.
        phrases: three words of a text in a row.
    """

    tokens: set[tuple[int, ...]]
    labels: set[tuple[int, ...]]
    phrases: set[str]

    def found(self, data: bytes) -> list[str]:
        """Those that `data` holds, and in which spelling."""
        numbers = [
            f"{kind} {run} as spelling {number}"
            for kind, runs in (("tokens", self.tokens), ("labels", self.labels))
            for run in sorted(runs)
            for number, spelling in enumerate(spellings(run))
            if spelling in data
        ]
        return numbers + [phrase for phrase in sorted(self.phrases) if phrase.encode() in data]


def parties(federation: Federation) -> list[Device]:
    return [*federation.devices.values(), *federation.testers["edge-0"]]


def batches(device: Device) -> Iterator[Any]:
    """The batches that it trained and evaluated on."""
    settings = device._settings
    if device.position:
        stream = BatchStream(
            device._training, settings.batch_size, settings.seed, settings.bucketing, 0
        )
        for _ in range(device.position):
            yield next(stream)
    yield from eval_batches(device._held_out, settings.eval_batch_size, 0)


def secrets_of(federation: Federation, texts: Sequence[str]) -> Secrets:
    held = Secrets(set(), set(), set())
    for device in parties(federation):
        for examples in (device._training, device._held_out):
            for ids in examples.input_ids:
                held.tokens.update(windows(ids.tolist(), TOKENS)[1:3])
            if examples.labels is not None:
                held.labels.update(windows(examples.labels.tolist(), LABELS))
        for batch in batches(device):
            if batch.labels.dim() == 1:
                held.labels.update(windows(batch.labels.tolist(), LABELS))
    for text in texts:
        held.phrases.update(" ".join(words) for words in windows(text.split(), 3))
    return held


@pytest.fixture(scope="module")
def labelled(rows: list[tuple[str, str]], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The questions with 60 labels, so that six in a row are found nowhere by chance."""
    path = tmp_path_factory.mktemp("secrets") / "questions.csv"
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["question", "kind"])
        writer.writerows(
            (text, f"class-{number % 60:02d}") for number, (text, _) in enumerate(rows)
        )
    return path


@dataclass(frozen=True)
class Played:
    """A round and an evaluation, captured."""

    federation: Federation
    tap: Tap
    secrets: Secrets


@pytest.fixture(scope="module", params=["classification", "causal-lm"])
def played(request: pytest.FixtureRequest, make: Make, labelled: Path, llama: Path) -> Played:
    changes = [
        "partition.kind=iid",
        "wire.preset=exact",
        f"data.path={labelled}",
        "data.limit=0",
        "train.batch_size=8",
    ]
    if request.param == "causal-lm":
        changes += ["model.task=causal-lm", "data.label=", f"model.path={llama}"]
    config = make(*changes)
    sources = open_sources(config)
    return play(config, sources)


def play(config: Any, sources: Sources) -> Played:
    tap = Tap()
    federation = build_federation(config, sources, [tap])
    simulation = Simulation(federation)
    reports = simulation.train_round()
    assert not any(report.lost for report in reports)
    assert all(score.items for score in simulation.evaluate().values())
    texts = [*sources.text.train.text, *sources.text.test.text]
    return Played(federation, tap, secrets_of(federation, texts))


def test_no_frame_holds_what_a_device_must_keep(played: Played) -> None:
    kinds = {type(passage.message).__name__ for passage in played.tap.frames}
    assert kinds >= {"Activations", "Gradients", "Update", "RoundOrder", "EdgeUpdate", "Score"}
    assert len(played.secrets.tokens) > 300
    assert len(played.secrets.phrases) > 1000
    everything = b"\n".join(passage.data for passage in played.tap.frames)
    assert played.secrets.found(everything) == []


def test_the_search_would_find_them(played: Played) -> None:
    """Each secret, planted in a real message, is found; so a search in vain says something."""
    device = next(iter(played.federation.devices.values()))
    batch = next(batches(device))
    lengths = [1] * batch.input_ids.numel()
    flat = batch.input_ids.reshape(-1, 1)
    for dtype in (torch.int64, torch.int32, torch.float32):
        packet = Identity().encode(flat.to(dtype), Frame(lengths))
        assert played.secrets.found(encode(Activations(0, True, lengths, packet)))
    ids = device._training.input_ids[0].tolist()
    states = Identity().encode(torch.zeros(sum(ids), 1), Frame(ids))
    assert played.secrets.found(encode(Activations(0, True, ids, states)))
    phrase = sorted(played.secrets.phrases)[7]
    assert played.secrets.found(encode(Refusal("DataError", f"bad row: '{phrase}'"))) == [phrase]
    labels = device._training.labels
    if labels is not None:
        for values in (torch.from_numpy(labels), batch.labels.float(), batch.labels.int()):
            update = Update(0, 0, {"head": values}, 1, 1, 0.0)
            assert played.secrets.found(encode(update))


def test_secrets_are_found_in_every_spelling() -> None:
    secrets = Secrets({(5, 300, 17)}, {(200, 3)}, {"who was the"})
    for run in (*secrets.tokens, *secrets.labels):
        for spelling in spellings(run):
            assert secrets.found(b"\x00\x07" + spelling + b"\x00")
    assert secrets.found(b"\x0awho was the\x00") == ["who was the"]
    assert secrets.found(b"who was\x00the" + bytes(99)) == []


def test_tensors_on_the_wire_are_hidden_states_gradients_and_adapters(played: Played) -> None:
    names = set(played.federation.cloud.adapters)
    hidden = played.federation.shape.hidden
    for passage in played.tap.frames:
        message = passage.message
        if isinstance(message, Activations | Gradients):
            assert message.packet.dtype == "float32"
            assert message.packet.shape[1] == hidden
            values = Identity().decode(message.packet, Frame((message.packet.shape[0],)))
            assert not numbers(values).any()
        for name, value in getattr(message, "adapters", {}).items():
            assert name in names
            assert value.is_floating_point()


def numbers(values: Tensor) -> Tensor:
    """Which columns of [T, D] hold whole numbers, not all 0: a channel for ids or labels."""
    return (values == values.round()).all(0) & values.any(0)


def test_a_channel_of_token_ids_would_be_noticed() -> None:
    values = torch.randn(9, 4, generator=torch.Generator().manual_seed(0))
    assert not numbers(values).any()
    values[:, 2] = torch.arange(9)
    assert numbers(values).tolist() == [False, False, True, False]


def test_until_the_first_gradient_nothing_depends_on_the_labels(make: Make, labelled: Path) -> None:
    config = make("partition.kind=iid", f"data.path={labelled}", "data.limit=0")
    sources = open_sources(config)
    frames = []
    for turned in (False, True):
        tap = Tap()
        federation = build_federation(config, sources, [tap])
        if turned:
            for device in federation.devices.values():
                turn(device._training)
        Simulation(federation).train_round()
        frames.append(
            [(type(it.message), it.data) for it in tap.frames if it.link.below == "device-0"]
        )
    one, other = frames
    first = [kind for kind, _ in one].index(Gradients)
    assert first == 4  # Ready, LocalPlan, and hidden states both ways
    assert one[:first] == other[:first]
    assert one[first] != other[first]


def turn(examples: Examples) -> None:
    assert examples.labels is not None
    examples.labels[:] = np.roll(examples.labels, 1)


FIELDS: dict[str, set[str]] = {
    "Ready": {
        *("round", "edge_round", "bottom", "top", "frozen", "reach", "rank", "head"),
        "labelled",
    },
    "LocalPlan": {"round", "edge_round", "local_steps", "seed", "adapters", "token"},
    "Activations": {
        *("step", "training", "lengths", "packet", "numbers", "token", "marks"),
        *("micro_batch", "more"),
    },
    # The two-part splits that elsa is compared with disclose labels; no other edge takes these.
    "LabelledActivations": {"step", "training", "lengths", "labels", "packet", "token"},
    "Resend": {"step", "token", "micro_batch"},
    "Gradients": {"step", "packet", "loss", "token", "micro_batch"},
    "Update": {"round", "edge_round", "adapters", "rows", "samples", "loss", "token"},
    "Score": {"round", "items", "correct", "loss", "texts", "whole", "token"},
    "Accepted": set(),
    "Refusal": {"error", "reason"},
    "RoundOrder": {
        *("round", "edge_rounds", "local_steps", "devices", "adapters"),
        *("watched", "fingerprints"),
    },
    "DeviceBehaviour": {"device", "head", "fingerprint", "step", "answers"},
    "Behaviours": {"round", "edge_round", "behaviours"},
    "DeviceVerdict": {"device", "trust"},
    "Verdicts": {"round", "edge_round", "verdicts"},
    "EdgeUpdate": {"round", "adapters", "weight", "reports", "heads"},
    "EvaluationOrder": {"round", "devices", "adapters"},
    "EdgeScores": {"round", "scores"},
    "DeviceReport": {"device", "rows", "samples", "loss", "lost"},
    "HeadWeight": {"head", "weight"},
    "DeviceScore": {"device", "items", "correct", "loss", "texts", "whole"},
    "Register": {"terms", "routes"},
    "Route": {"edge", "seconds", "ahead"},
    "Ping": set(),
    "Clock": {"microseconds"},
    "RollCall": {"moves"},
    "Move": {"device", "edge"},
    "Presence": {"present"},
    "Present": {"device", "silent", "routes"},
    "Welcome": {"axes"},
    "Next": set(),
    "Task": {"what", "round", "edge_round", "edge"},
    "Packet": {"codec", "dtype", "shape", "payload"},
}


def test_no_message_has_a_field_for_them() -> None:
    """A new field is looked at by a person, who then adds it here."""
    kinds = [*get_args(Message), *get_args(messages.Row), Packet]
    got = {kind.__name__: {field.name for field in fields(kind)} for kind in kinds}
    assert got == FIELDS
