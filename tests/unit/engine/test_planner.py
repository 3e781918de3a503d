"""Plans against what a run then counts, refusals, and when plans change."""

import json
import math
import re
import shutil
from collections.abc import Callable
from typing import Any

import pytest

from elsa.core.split import Split
from elsa.engine.build import build_federation, open_sources
from elsa.engine.parts import load_model
from elsa.engine.plan import make_plan, plan_of
from elsa.engine.planner import Planner, planner_of
from elsa.engine.prices import Prices, device_memories
from elsa.engine.run import run
from elsa.engine.schedule import finish_times
from elsa.engine.simulate import Simulation
from elsa.errors import SplitError

Plan = Callable[..., Planner]
QUANTIZED = tuple(f"wire.{hop}=rotate+quantize:4" for hop in ("h1", "h2", "g2", "g1"))
SLOW = ("network.edge_gflops=0.005", "network.device_gflops=0.01", "split.mode=fitted")

EMPTY = (
    "cluster.strategy=latency",
    "cluster.capacity=3",
    "network.latency_spread=2.0",
    "federation.edges=3",
)
"""Of three edges one at least is nearest to none of three devices."""


@pytest.fixture
def planner(make: Any, sources: Any) -> Plan:
    """Overrides -> the planner of the tiny config with them."""

    def build(*overrides: str) -> Planner:
        config = make(*overrides)
        return Planner(build_federation(config, sources), sources, config)

    return build


@pytest.mark.parametrize(
    "overrides",
    [
        (),
        ("split.top=0",),
        ("split.bottom=2", "federation.trunk=shared"),
        QUANTIZED,
        (*QUANTIZED, "split.top=0", "wire.adapters=bfloat16"),
        SLOW,
        ("train.in_flight=2",),
        (*SLOW[:2], "train.in_flight=4", "split.freeze=bottom"),
        ("split.freeze=bottom",),
        ("split.freeze=trunk",),
        ("split.freeze=trunk", *QUANTIZED),
        ("split.layout=whole", "network.device_gflops=0.01"),
        ("split.layout=two-part", "federation.trunk=shared", "network.edge_gflops=0.005"),
        ("federation.trunk=sequential", "network.device_gflops=0.01"),
        ("split.layout=whole", "federation.pooled=true", "federation.edges=1"),
        EMPTY,
        (*EMPTY, *SLOW),
    ],
    ids=str,
)
def test_a_round_takes_the_bytes_and_seconds_of_its_plan(
    make: Any, sources: Any, overrides: tuple[str, ...]
) -> None:
    config = make(*overrides, "federation.edge_rounds=2", "federation.local_steps=3")
    if config.split.freeze != "none":
        sources = open_sources(config)  # which blocks have adapters is the model's own matter
    federation = build_federation(config, sources)
    planner = Planner(federation, sources, config)
    plan = plan_of(federation, planner)
    assert any(not it.devices for it in plan.edges) == (EMPTY[0] in overrides)
    planner.replan(0)
    simulation = Simulation(federation)
    simulation.train_round()
    counted = federation.meter.by_hop(phase="train")
    devices, edges = plan.totals()["devices"], plan.totals()["edges"]
    # A frame says its step and its round in a byte or two.
    assert devices["up"] == pytest.approx(counted["device_to_edge"], rel=5e-3)
    assert devices["down"] == pytest.approx(counted["edge_to_device"], rel=5e-3)
    assert edges["up"] == pytest.approx(counted["edge_to_cloud"], rel=2e-2)
    assert edges["down"] == pytest.approx(counted["cloud_to_edge"], rel=2e-2)
    assert plan.seconds == pytest.approx(simulation.seconds, rel=2e-3)


def test_a_codec_of_no_fixed_size_is_planned_as_for_noise(make: Any, sources: Any) -> None:
    config = make("wire.preset=balanced", "federation.local_steps=3")
    plan, exact = (make_plan(it) for it in (config, make("federation.local_steps=3")))
    assert 0.05 < plan.devices[0].up / exact.devices[0].up < 0.5


def test_memory_sizes_are_shared_out_equally_and_by_the_seed(make: Any) -> None:
    names = [f"d{number}" for number in range(9)]
    network = make("network.device_memory_mb=[1, 2, 3]").network
    one, again, other = (device_memories(network, names, seed) for seed in (0, 0, 1))
    assert one == again != other
    assert sorted(one.values()) == [1e6] * 3 + [2e6] * 3 + [3e6] * 3
    assert set(device_memories(make().network, names, 0).values()) == {math.inf}


def test_memory_limits_the_splits(planner: Plan) -> None:
    unlimited = planner(*SLOW)
    needs = sorted(it.memory.total for it in unlimited.price_list("device-0"))
    limit = (needs[2] + 1) / 1e6
    limited = planner(*SLOW, f"network.device_memory_mb=[{limit}]")
    names = list(limited.memories)
    assert all(it.memory.total <= limit * 1e6 for it in limited.choose(names).values())
    assert any(it.memory.total > limit * 1e6 for it in unlimited.choose(names).values())


@pytest.mark.parametrize("pace", [1.0, 3.0])
def test_the_price_of_a_step_is_what_one_more_takes_by_the_clock(
    planner: Plan, pace: float
) -> None:
    it = planner("network.device_edge.latency_ms=50")
    prices, speed = it.prices["device-0"], it._federation.speed_of("device-0")
    demand = prices.demand([(9, 4, 4)])
    (price,) = prices.prices(demand, speed, pace)
    two, three = (
        finish_times([prices.legs(demand, speed, price.split, pace, range(count))])[0]
        for count in (2, 3)
    )
    assert price.seconds == pytest.approx(three - two, rel=1e-9)
    assert price.seconds > 4 * pace * speed.latency > 0.1


def test_who_takes_part_seldom_asks_little_of_the_lane(planner: Plan) -> None:
    always, half = planner(), planner("federation.participation=0.5")
    loads = [
        it.prices["device-0"].option(it.price_list("device-0")[0]).load for it in (always, half)
    ]
    assert loads[1] == pytest.approx(loads[0] / 2)
    assert loads[0] > 0


def test_what_need_not_be_kept_needs_no_memory(make: Any, llama: Any) -> None:
    causal = (f"model.path={llama}", "model.task=causal-lm", "partition.kind=iid")

    def needed(*overrides: str, predicted: Any = ()) -> float:
        config = make(*causal, *overrides)
        prices = Prices(config, load_model(config, 0, llama))
        split = Split.of(prices.shape.blocks, 1, 1)
        return prices.memory(prices.demand([(12, 9), (3, 2)], predicted), split).step

    words = load_model(make(*causal), 0, llama).checkpoint.vocabulary
    saved = needed() - needed(predicted=[(3, 2), (2, 2)])  # of 21 tokens and 5
    assert 16 * 8 * words <= saved < 16 * (12 * words + 1000)
    assert needed("train.recompute=true") < needed()
    assert needed("train.micro_batch=1") < needed()


def test_a_device_is_planned_with_the_answers_that_it_learns(
    make: Any, llama: Any, tmp_path: Any
) -> None:
    chatty = shutil.copytree(llama, tmp_path / "llama")
    template = "{% for turn in messages %}{{ turn['content'] }} [END] {% endfor %}"
    (chatty / "chat_template.jinja").write_text(template)
    causal = (f"model.path={chatty}", "model.task=causal-lm", "partition.kind=iid")
    config = make(*causal, "data.answer=kind")
    sources = open_sources(config)
    federation = build_federation(config, sources)
    it = Planner(federation, sources, config)
    for name, device in federation.devices.items():
        counted = max(map(sum, device.epoch_predicted()))
        assert it.demands[name].predicted == counted < max(map(sum, device.epoch_lengths()))


def test_privacy_floor_holds(planner: Plan) -> None:
    it = planner("split.mode=fitted", "split.bottom_min=2")
    assert {split.bottom for split in it.prices["device-0"].splits()} == {2, 3}
    assert all(price.split.bottom >= 2 for price in it.choose(list(it.memories)).values())


@pytest.mark.parametrize("mode", ["fixed", "fitted"])
def test_a_device_too_small_is_named_with_what_it_lacks(
    make: Any, sources: Any, mode: str, tmp_path: Any
) -> None:
    config = make(f"split.mode={mode}", "network.device_memory_mb=[0.001, 500, 500]")
    with pytest.raises(SplitError) as caught:
        run(config, out=tmp_path / "run")
    assert not (tmp_path / "run").exists()
    said = str(caught.value)
    assert said.startswith("1 of 3 devices cannot take part")
    (name,) = [it.device for it in make_plan(config).devices if not it.fits]
    assert f"{name}: holds 0.0 MB and needs" in said
    assert re.search(r"0\.\d MB are lacking", said)
    assert "train.batch_size" in said


def test_without_limits_a_fixed_split_needs_no_planner(make: Any, sources: Any) -> None:
    federation = build_federation(make(), sources)
    assert planner_of(federation, sources) is None


def test_plans_come_when_due_and_change_for_measurements_above_the_margin(planner: Plan) -> None:
    it = planner(*SLOW, "split.every=2", "split.margin=0.05")
    assert it.replan(0).keys() == it.memories.keys()
    assert it.replan(1) == it.replan(2) == {}
    for name in it.memories:
        for _ in range(8):
            it.observe(name, 40.0)  # they have become so slow that they relieve nobody
    assert it.replan(3) == {}
    changed = it.replan(4)
    assert changed
    assert all(split.bottom == 1 for split in changed.values())
    assert it.replan(6) == {}


def test_state_restores_splits_and_paces(planner: Plan) -> None:
    one, two = planner(*SLOW), planner(*SLOW)
    one.replan(0)
    one.observe("device-1", 3.0)
    two.restore(one.state())
    assert two.state() == one.state()
    for name in one.memories:
        split = two._federation.devices[name].segments.split
        assert split == one._federation.devices[name].segments.split != Split(1, 2, 1)


def test_planning_reads_no_weights_of_the_middle_and_changes_nothing(
    make: Any, tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened: list[Any] = []

    def remember(config: Any, say: Any = print) -> Any:
        opened.append(open_sources(config))
        return opened[-1]

    monkeypatch.setattr("elsa.engine.plan.open_sources", remember)
    monkeypatch.chdir(tmp_path)
    plan = make_plan(make("split.mode=fitted", "wire.preset=balanced"))
    assert len(plan.devices) == 3
    names = opened[0].model.checkpoint.weights.names_read
    assert names
    assert not [name for name in names if ".layer.1." in name or ".layer.2." in name]
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "overrides",
    [
        (),
        ("split.top=0", "split.freeze=bottom", "wire.preset=tiny"),
        ("attack.kind=sign-flip", "attack.devices=[1]", "train.micro_batch=1"),
        ("adapter.ranks=[2, 1]", "wire.preset=paper", "ssop.rank=4", "noise.ratio=0.1"),
        ("split.freeze=trunk",),
        ("cluster.strategy=latency", "cluster.capacity=3", "federation.trunk=shared"),
    ],
    ids=str,
)
def test_what_devices_hold_is_reckoned_whatever_the_config(
    planner: Plan, overrides: tuple[str, ...]
) -> None:
    made = planner(*overrides)
    rows = json.loads(json.dumps(made.reckoned()))["devices"]
    assert [row["device"] for row in rows] == ["device-0", "device-1", "device-2"]
    for row in rows:
        name = row["device"]
        (price,) = made.price_list(name)
        assert row["split"] == [price.split.bottom, price.split.trunk, price.split.top]
        assert sum(row["memory"].values()) == pytest.approx(price.memory.total)
        assert row["flops"] == price.work.device
        # All that a device leaves to its edge it would hold and do itself.
        whole, edge = row["whole_memory"], made.prices[name].shape
        assert row["whole_flops"] == pytest.approx(price.work.device + price.work.edge, rel=1e-6)
        assert whole["weights"] > row["memory"]["weights"]
        assert whole["adapters"] >= row["memory"]["adapters"]
        assert edge.blocks == sum(row["split"])


def test_what_devices_hold_follows_their_splits(planner: Plan) -> None:
    made = planner(*SLOW)
    before = made.reckoned()["devices"]
    splits = made.replan(0)
    after = made.reckoned()["devices"]
    for row in after:
        split = splits[row["device"]]
        assert row["split"] == [split.bottom, split.trunk, split.top]
    assert before != after
