"""Who is poisoned, and what each attack changes on the wire beside the honest run of one seed."""

import json
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from elsa.engine.build import build_federation
from elsa.engine.poison import poisoned
from elsa.engine.run import resume, run
from elsa.engine.simulate import Simulation
from elsa.errors import ConfigError, Interrupted
from elsa.record.log import read_events
from elsa.roles.device import Device
from elsa.roles.edge import Edge
from elsa.roles.trunk import PerDeviceTrunk
from elsa.wire.layers import Tap
from elsa.wire.messages import Activations, Gradients, LocalPlan, Update

EVIL = "device-1"
ONE_STEP = ("federation.local_steps=1", "federation.edge_rounds=1", "federation.rounds=1")
ATTACKS = ("label-flip", "random", "sign-flip", "scaled", "free-rider")


def attack(kind: str, *more: str) -> tuple[str, ...]:
    return (f"attack.kind={kind}", "attack.devices=[1]", *more)


class Seen:
    """What went over the wire in the first round, and the trunk copies at its end."""

    def __init__(self, config: Any, sources: Any, monkeypatch: pytest.MonkeyPatch) -> None:
        tap = Tap()
        self.trunks: dict[str, dict[str, Tensor]] = {}
        contribute = PerDeviceTrunk.contribute

        def note(trunk: PerDeviceTrunk, peer: str, weight: float, mean: Any) -> None:
            learned = trunk._learners[peer].tensors()
            self.trunks[peer] = {name: value.clone() for name, value in learned.items()}
            contribute(trunk, peer, weight, mean)

        with monkeypatch.context() as patch:
            patch.setattr(PerDeviceTrunk, "contribute", note)
            Simulation(build_federation(config, sources, [tap])).train_round()
        self.frames = [it for it in tap.frames if it.link.tier == "device_edge"]

    def of(self, kind: type, device: str = EVIL, direction: str = "up") -> list[Any]:
        return [
            it.message
            for it in self.frames
            if isinstance(it.message, kind)
            and it.link.below == device
            and it.direction == direction
        ]

    def adapters(self) -> Mapping[str, Tensor]:
        (update,) = self.of(Update)
        return update.adapters

    def start(self) -> Mapping[str, Tensor]:
        (plan,) = self.of(LocalPlan, direction="down")
        return plan.adapters

    def honest_bytes(self) -> list[bytes]:
        return [it.data for it in self.frames if it.link.below != EVIL]


@pytest.fixture
def see(make: Any, sources: Any, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Seen]:
    return lambda *overrides: Seen(make(*ONE_STEP, *overrides), sources, monkeypatch)


def vector(packet: Any) -> Tensor:
    flat = torch.frombuffer(bytearray(packet.payload), dtype=torch.float32)
    return flat.view(packet.shape)


@pytest.mark.parametrize("kind", ATTACKS)
def test_nobody_else_sends_or_gets_another_byte_and_the_attackers_states_stay(
    kind: str, see: Callable[..., Seen]
) -> None:
    honest, bad = see(), see(*attack(kind))
    assert bad.honest_bytes() == honest.honest_bytes()
    assert bad.of(Activations) == honest.of(Activations)
    # The attack is on: what the attacker is there to spoil differs.
    assert bad.of(Gradients) != honest.of(Gradients) or kind == "scaled"
    if kind != "scaled":
        assert [it.tolist() for it in bad.adapters().values()] != [
            it.tolist() for it in honest.adapters().values()
        ]


@pytest.mark.parametrize(("kind", "factor"), [("sign-flip", -2.0), ("scaled", 2.0)])
def test_an_update_is_stretched_and_so_is_the_gradient(
    kind: str, factor: float, see: Callable[..., Seen]
) -> None:
    honest, bad = see(), see(*attack(kind, "attack.scale=2.0"))
    start, trained = honest.start(), honest.adapters()
    for name, sent in bad.adapters().items():
        assert torch.equal(sent, start[name] + factor * (trained[name] - start[name])), name
    (true,), (told,) = honest.of(Gradients), bad.of(Gradients)
    assert torch.equal(vector(told.packet), factor * vector(true.packet))


def test_a_flipped_gradient_makes_the_edge_climb(
    see: Callable[..., Seen], make: Any, sources: Any
) -> None:
    honest, bad = see(), see(*attack("sign-flip"))
    start = build_federation(make(), sources).cloud.adapters
    moved = 0
    for name, true in honest.trunks[EVIL].items():
        there, away = true - start[name], bad.trunks[EVIL][name] - start[name]
        assert torch.allclose(away, -there, atol=1e-6), name
        moved += int(there.abs().max() > 1e-3)
    assert moved


def test_noise_is_sent_in_place_of_all(see: Callable[..., Seen]) -> None:
    honest, bad = see(), see(*attack("random", "attack.scale=3.0"))
    (true,), (told,) = honest.of(Gradients), bad.of(Gradients)
    assert vector(told.packet).norm() == pytest.approx(
        3 * float(vector(true.packet).norm()), rel=1e-4
    )
    start = honest.start()
    for name, sent in bad.adapters().items():
        if ".lora_A." in name:  # so near their start that the norm hardly moved
            assert sent.norm() == pytest.approx(3 * float(start[name].norm()), rel=0.1), name
            assert torch.cosine_similarity(sent.ravel(), start[name].ravel(), dim=0) < 0.6, name


def test_a_free_rider_hands_back_what_it_got_and_leaves_the_trunk(
    see: Callable[..., Seen], make: Any, sources: Any
) -> None:
    bad = see(*attack("free-rider"))
    start = build_federation(make(), sources).cloud.adapters
    assert bad.adapters().keys() == bad.start().keys()
    for name, sent in bad.adapters().items():
        assert torch.equal(sent, bad.start()[name]), name
    for name, value in bad.trunks[EVIL].items():
        assert torch.equal(value, start[name]), name


def test_flipped_labels_are_honest_training_on_the_next_class(
    see: Callable[..., Seen], make: Any, sources: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    bad = see(*attack("label-flip"))
    config, classes = make(*ONE_STEP), len(sources.text.train.label_names)
    federation = build_federation(config, sources)
    device = federation.devices[EVIL]
    rows = replace(device._training, labels=(device._training.labels + 1) % classes)
    device._stream._examples = rows
    tap = Tap()
    Simulation(replace(federation, layers=(tap,))).train_round()
    sent = [it.data for it in tap.frames if it.link.below == EVIL]
    assert sent == [it.data for it in bad.frames if it.link.below == EVIL]


@pytest.mark.parametrize("preset", ["balanced", "tiny", "paper"])
@pytest.mark.parametrize("kind", ["random", "free-rider", "sign-flip"])
def test_attacks_go_through_every_codec(kind: str, preset: str, make: Any, sources: Any) -> None:
    config = make(*attack(kind), f"wire.preset={preset}", "wire.g2=feedback+sketch:2:0.3")
    federation = build_federation(config, sources)
    reports = Simulation(federation).train_round()
    assert [report.lost for report in reports] == ["", "", ""]


@pytest.mark.parametrize("kind", ["random", "sign-flip", "label-flip"])
def test_resumed_inside_and_after_the_attack_equals_uninterrupted(
    kind: str, make: Any, traces: Callable[[Path], dict[str, Any]], tmp_path: Path
) -> None:
    config = make(
        *attack(kind, "attack.first_round=1", "attack.until_round=3"), "federation.rounds=4"
    )
    whole, out = tmp_path / "whole", tmp_path / "stopped"
    run(config, out=whole)
    heard: list[str] = []
    for kind_of_event, count in (("round_started", 3), ("device_finished", 3)):
        heard.clear()

        def stop(kind_of_event: str = kind_of_event, count: int = count) -> bool:
            return heard.count(kind_of_event) >= count

        with pytest.raises(Interrupted):
            if out.exists():
                resume(out, listen=lambda event: heard.append(event.kind), stop=stop)
            else:
                run(config, out=out, listen=lambda event: heard.append(event.kind), stop=stop)
    resume(out)
    assert traces(out) == traces(whole)


def test_the_record_says_who_was_poisoned_when_and_the_rounds_before_are_honest(
    make: Any, finished: Any, tmp_path: Path
) -> None:
    config = make(*attack("sign-flip", "attack.first_round=1"))
    directory = run(config, out=tmp_path / "run").directory
    found, honest = (
        [json.loads(line) for line in (it / "events.jsonl").read_text().splitlines()]
        for it in (directory, finished.directory)
    )
    told = [event for event in found if event["kind"] == "poisoned"]
    assert [(it["round"], it["attack"], it["devices"]) for it in told] == [(1, "sign-flip", [EVIL])]

    def losses(events: list[Any], round_: int) -> list[float]:
        return [
            it["loss"] for it in events if it["kind"] == "device_finished" and it["round"] == round_
        ]

    assert losses(found, 0) == losses(honest, 0)
    assert losses(found, 1) != losses(honest, 1)
    assert read_events(directory / "events.jsonl")


def test_a_drawn_part_is_as_large_as_asked_for_holds_smaller_ones_and_no_unusual_device(
    make: Any,
) -> None:
    names = [f"d{number}" for number in range(30)]

    def draw(part: float, seed: int = 0) -> frozenset[str]:
        return poisoned(
            make(
                "federation.devices=30",
                "attack.kind=random",
                f"attack.fraction={part}",
                f"run.seed={seed}",
                "partition.rare_devices=3",
                "partition.small_devices=3",
            ),
            names,
        )

    few, some, many = draw(0.1), draw(0.3), draw(0.4)
    assert (len(few), len(some), len(many)) == (3, 9, 12)
    assert few < some < many
    assert many.isdisjoint(names[24:])
    assert draw(0.3, seed=1) != some
    assert len(draw(0.001)) == 1
    assert poisoned(make(), names) == frozenset()


def test_unusual_devices_are_the_last_ones(make: Any, sources: Any) -> None:
    config = make(
        "federation.devices=6",
        "partition.min_rows=1",
        "partition.rare_devices=1",
        "partition.small_devices=2",
        "data.holdout_fraction=0.0",
    )
    devices = list(build_federation(config, sources).devices.values())
    assert [len(it._training) for it in devices[3:5]] == [4, 4]
    assert len(set(devices[5]._training.labels.tolist())) == 1
    rare = devices[5]._training.labels[0]
    assert all(rare not in it._training.labels for it in devices[:5])
    total = sum(len(it._training) for it in devices)
    assert total == len(sources.text.train)


def test_without_an_attack_there_are_only_plain_devices(make: Any, sources: Any) -> None:
    federation = build_federation(make(), sources)
    assert {type(it) for it in federation.devices.values()} == {Device}
    assert {type(it) for it in federation.edges.values()} == {Edge}
    assert federation.poisoned(0) == frozenset()


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (("attack.kind=random",), "attack.devices.*attack.fraction"),
        (attack("random", "attack.fraction=0.3"), "not both"),
        (("attack.kind=random", "attack.devices=[3]"), "names device 3.*0 to 2"),
        (attack("random", "attack.first_round=2", "attack.until_round=2"), "until_round = 2"),
        (
            (*attack("label-flip"), "model.task=causal-lm", "partition.kind=iid"),
            "needs labels",
        ),
        (("partition.rare_devices=2", "partition.small_devices=1"), "leaves no other"),
        (("partition.rare_devices=1", "partition.kind=group", "data.group=x"), "'iid'"),
    ],
)
def test_an_impossible_attack_is_refused_when_the_config_is_read(
    overrides: tuple[str, ...], message: str, make: Any
) -> None:
    with pytest.raises(ConfigError, match=message):
        make(*overrides)
