"""Every method that ELSA is compared with is what its name says, on a tiny model and real text."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from elsa.config.load import load_config
from elsa.config.methods import METHODS
from elsa.config.printing import dump_toml
from elsa.data.batches import BatchStream
from elsa.engine.build import POOL, build_federation, open_sources
from elsa.engine.run import resume, run
from elsa.engine.simulate import Simulation
from elsa.errors import ConfigError, Interrupted
from elsa.model.segments import build_whole, initial_adapters
from elsa.record.events import Event
from elsa.roles.learner import Learner, OptimizerSettings
from elsa.wire.messages import Activations, LabelledActivations, LocalPlan, Message, Ready, Update
from elsa.wire.transport import Passage

Drive = Callable[..., tuple[Any, Path]]
Build = Callable[..., Any]
SETTINGS = OptimizerSettings(1e-2, 0.0, keep_moments=True)


class Tap:
    """A layer that keeps every message, with its direction."""

    def __init__(self) -> None:
        self.seen: list[tuple[str, str, Message]] = []

    def __call__(self, passage: Passage) -> bytes:
        self.seen.append((passage.link.below, passage.direction, passage.message))
        return passage.data

    def of(self, *kinds: type[Message]) -> list[tuple[str, Message]]:
        return [(below, it) for below, _, it in self.seen if isinstance(it, kinds)]


@pytest.fixture
def of_method(make: Any, tmp_path: Path) -> Callable[..., Any]:
    """The tiny config with these overrides, made one of a method."""

    def go(method: str, *overrides: str) -> Any:
        path = tmp_path / "base.toml"
        path.write_text(dump_toml(make(*overrides)), encoding="utf-8")
        return load_config(path, [f"run.method={method}"])

    return go


@pytest.fixture
def trained(of_method: Callable[..., Any], sources: Any) -> Build:
    """Trains global rounds of a method; gives the federation and what passed its links."""

    def go(method: str, *overrides: str, rounds: int = 2) -> Any:
        tap = Tap()
        config = of_method(method, f"federation.rounds={rounds}", *overrides)
        federation = build_federation(config, sources, [tap])
        simulation = Simulation(federation)
        while federation.cloud.round < config.federation.rounds:
            assert not any(report.lost for report in simulation.train_round())
        return federation, simulation, tap

    return go


def equal(left: dict[str, Tensor], right: dict[str, Tensor]) -> bool:
    assert list(left) == list(right)
    return all(torch.equal(left[name], right[name]) for name in left)


def bytes_by_hop(federation: Any) -> dict[str, int]:
    hops: dict[str, int] = federation.meter.by_hop(phase="train")
    return hops


@pytest.mark.parametrize("method", ["fedavg", "centralised"])
def test_one_device_is_plain_training(trained: Build, make: Any, sources: Any, method: str) -> None:
    """Whole model, AdamW, batches in order: bit for bit, as anybody would write the loop."""
    federation, _, tap = trained(method, "federation.devices=1", "federation.edges=1")
    config, model = make("federation.devices=1", "federation.edges=1"), sources.model
    (device,) = federation.devices.values()
    whole = build_whole(model.checkpoint, model.task, model.lora)
    learner = Learner(
        initial_adapters(model.checkpoint, model.task, model.lora, config.run.seed), SETTINGS
    )
    settings = device._settings
    stream = BatchStream(device.training, 4, settings.seed, settings.bucketing, settings.pad_id)
    for _ in range(2 * 2 * 2):
        batch = next(stream)
        whole.bind(learner.parameters)
        whole.learn(batch.input_ids, batch.mask, batch.labels, batch.token_types).backward()
        learner.step()
    assert equal(federation.cloud.adapters, learner.tensors())
    assert not tap.of(Activations, LabelledActivations)


def test_the_centre_trains_on_the_rows_of_all_and_every_device_evaluates(
    trained: Build, make: Any, sources: Any
) -> None:
    federation, simulation, _ = trained("centralised", rounds=1)
    apart = build_federation(make(), sources)
    together = [ids.tolist() for it in apart.devices.values() for ids in it.training.input_ids]
    pool = federation.devices[POOL]
    assert list(federation.devices) == [POOL]
    assert [ids.tolist() for ids in pool.training.input_ids] == together
    assert pool.position == 2 * 2 * 3  # as many steps as all devices take together
    tallies = simulation.evaluate()
    assert tallies.keys() >= set(apart.devices)
    assert [tallies[name].items for name in apart.devices] == [
        len(device._held_out) for device in apart.devices.values()
    ]
    assert tallies[POOL].items == 0


def test_centralised_training_stopped_and_resumed_is_uninterrupted(
    of_method: Callable[..., Any], traces: Callable[[Path], Any], tmp_path: Path
) -> None:
    config, rounds = of_method("centralised"), list[Event]()
    run(config, out=tmp_path / "whole")

    def listen(event: Event) -> None:
        if event.kind == "round_finished":
            rounds.append(event)

    with pytest.raises(Interrupted):
        run(config, out=tmp_path / "stopped", listen=listen, stop=lambda: len(rounds) > 1)
    resume(tmp_path / "stopped")
    assert traces(tmp_path / "stopped") == traces(tmp_path / "whole")


def test_fedavg_is_the_hierarchy_without_a_tier(trained: Build) -> None:
    """One edge that averages E times is E rounds of a flat server; only links and counts differ."""
    flat, _, tap = trained("fedavg", "federation.edges=1")
    tiers, _, _ = trained("hierarchical-fedavg", "federation.edges=1")
    assert list(flat.edges) == ["edge-0"]
    assert equal(flat.cloud.adapters, tiers.cloud.adapters)
    assert {it.edge_round for _, it in tap.of(Update)} == {0}
    assert len({it.round for _, it in tap.of(Update)}) == 4


def test_whole_models_send_adapters_and_nothing_else(trained: Build) -> None:
    federation, _, tap = trained("hierarchical-fedavg")
    split, _, _ = trained("hierarchical-split")
    kinds = {type(it).__name__ for _, it in tap.of(*{type(it) for *_, it in tap.seen})}
    assert kinds == {"RoundOrder", "EdgeUpdate", "Ready", "LocalPlan", "Update", "Accepted"}
    everything = set(federation.cloud.adapters)
    assert all(set(it.adapters) == everything for _, it in tap.of(LocalPlan, Update))
    assert bytes_by_hop(federation)["edge_to_cloud"] == bytes_by_hop(split)["edge_to_cloud"]
    assert bytes_by_hop(federation)["device_to_edge"] < bytes_by_hop(split)["device_to_edge"]


def test_the_exact_split_learns_what_whole_models_learn(trained: Build) -> None:
    whole, _, _ = trained("hierarchical-fedavg")
    split, _, _ = trained("hierarchical-split")
    assert equal(whole.cloud.adapters, split.cloud.adapters)


def test_fedprox_stays_nearer_to_where_a_round_began(trained: Build) -> None:
    one = ("federation.local_steps=4",)
    free, _, _ = trained("fedavg", *one, rounds=1)
    prox, _, _ = trained("fedprox", *one, rounds=1)
    assert not equal(free.cloud.adapters, prox.cloud.adapters)
    assert METHODS["fedprox"].all_settings["aggregate.mu"] == 0.01
    assert all(it._settings.optimizer.proximal == 0.01 for it in prox.devices.values())


def test_two_parts_disclose_labels_and_keep_the_head_at_the_server(trained: Build) -> None:
    federation, simulation, tap = trained("splitlora", rounds=1)
    told = tap.of(LabelledActivations)
    assert len(told) == 3 * 2 * 2
    for name, device in federation.devices.items():
        labels = device.training.labels
        stream = BatchStream(device.training, 4, device._settings.seed, True, 0)
        sent = [it.labels for below, it in told if below == name]
        assert sent == [tuple(labels[list(next(stream).rows)].tolist()) for _ in sent]
        assert device.segments.top is None
    assert not tap.of(Activations)
    held = {name for _, it in tap.of(Update) for name in it.adapters}
    assert held == {name for name in federation.cloud.adapters if ".layer.0." in name}
    losses = {it.loss for below, it in tap.of(Update)}
    assert all(loss > 0 for loss in losses)
    tallies = simulation.evaluate()
    assert tallies["test"].items == len(federation.testers["edge-0"][0]._held_out)


def test_two_parts_of_one_device_learn_as_the_unsplit_model(trained: Build) -> None:
    one = ("federation.devices=1", "federation.edges=1")
    two, simulation, _ = trained("splitlora", *one)
    whole, other, _ = trained("fedavg", *one)
    assert equal(two.cloud.adapters, whole.cloud.adapters)
    assert simulation.evaluate() == other.evaluate()


def test_two_parts_of_a_language_model_disclose_its_tokens_and_learn_alike(
    of_method: Callable[..., Any], llama: Path
) -> None:
    causal = (f"model.path={llama}", "model.task=causal-lm", "partition.kind=iid")
    ends, tap = [], Tap()
    for method in ("splitlora", "fedavg"):
        config = of_method(method, *causal, "federation.devices=1", "federation.edges=1")
        simulation = Simulation(build_federation(config, open_sources(config), [tap]))
        assert not any(report.lost for report in simulation.train_round())
        ends.append((simulation.federation.cloud.adapters, simulation.evaluate()))
    (two, scores), (whole, expected) = ends
    assert equal(two, whole)
    assert scores == expected
    assert all(len(it.labels) == sum(it.lengths) for _, it in tap.of(LabelledActivations))


def test_splitlora_steps_its_server_on_all_devices_at_once(trained: Build) -> None:
    """One set of adapters there: as many steps of it as local steps, not as devices."""
    federation, _, _ = trained("splitlora", rounds=1)
    moments = federation.edges["edge-0"].moments()
    steps = {float(value) for name, value in moments.items() if "/step/" in name}
    assert steps == {4.0}


def test_splitfed_v1_averages_a_trunk_of_each_device(trained: Build) -> None:
    federation, _, tap = trained("splitfed-v1", rounds=1)
    assert list(federation.edges) == ["edge-0"]
    owners = {name.partition("/")[0] for name in federation.edges["edge-0"].moments()}
    assert owners == set(federation.devices)
    assert {it.edge_round for _, it in tap.of(Ready)} == {0}


def test_splitfed_v2_lets_devices_change_one_trunk_in_turn(trained: Build) -> None:
    federation, _, tap = trained("splitfed-v2", rounds=1)
    names = list(federation.devices)
    up = [below for below, way, it in tap.seen if isinstance(it, Activations) and way == "up"]
    assert up == names * 2 * 2
    moments = federation.edges["edge-0"].moments()
    steps = {float(value) for name, value in moments.items() if "/step/" in name}
    assert steps == {3.0 * 2 * 2}  # every device's every local step
    apart, _, _ = trained("splitfed-v1", rounds=1)
    assert not equal(federation.cloud.adapters, apart.cloud.adapters)


def test_frozen_bottom_trains_nothing_there(of_method: Callable[..., Any]) -> None:
    config = of_method("frozen-bottom")
    assert (config.split.freeze, config.split.layout) == ("bottom", "three-part")


@pytest.mark.parametrize("name", METHODS)
def test_every_method_is_a_config_of_the_same_budget(
    of_method: Callable[..., Any], make: Any, name: str
) -> None:
    config, plain = of_method(name), make()
    federation = config.federation
    steps = federation.rounds * federation.edge_rounds * federation.local_steps
    before = plain.federation
    assert steps == before.rounds * before.edge_rounds * before.local_steps
    assert federation.devices == before.devices
    assert (config.data, config.partition, config.model) == (
        plain.data,
        plain.partition,
        plain.model,
    )
    if METHODS[name].flat:
        assert (federation.edges, federation.edge_rounds) == (1, 1)
        assert federation.rounds / config.evaluate.every == before.rounds / plain.evaluate.every


@pytest.mark.parametrize(
    ("overrides", "says"),
    [
        (["run.method=fedvg"], r"no such method \(did you mean fedavg\?\)"),
        (["run.method=fedavg", "federation.edges=3"], r"federation\.edges = 1, and it is set to 3"),
        (["split.layout=whole", "cluster.trust=true"], r"cluster\.trust = True cannot go with it"),
        (["split.layout=two-part", "ssop.rank=4"], r"ssop\.rank = 4 cannot go with it; allowed: 0"),
        (["federation.pooled=true"], r"split\.layout = 'three-part' .* allowed: 'whole'"),
    ],
)
def test_what_is_no_such_method_is_refused(make: Any, overrides: list[str], says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        make(*overrides)
