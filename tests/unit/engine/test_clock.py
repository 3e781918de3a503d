"""Simulated time: schedules worked out by hand, and bounds that hold for all."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from elsa.config.schema import Link, Network
from elsa.core.codec import Packet
from elsa.core.cost import ModelShape
from elsa.core.split import Split
from elsa.engine.clock import (
    FREE,
    Speed,
    Trace,
    Turns,
    cloud_seconds,
    device_speeds,
    drifted,
    turns_of,
)
from elsa.engine.schedule import Leg, Schedule, finish_times
from elsa.wire.messages import (
    Activations,
    Gradients,
    LabelledActivations,
    Message,
    Ready,
    Update,
)

PACKET = Packet("identity", "float32", (2, 1), b"")
# One text of two tokens: forward 2 * 5 * 2 + 4 * 1 * 4 = 36 operations a block, backward
# 20 + 32 = 52, head 2 * 3 = 6.
SHAPE = ModelShape(blocks=4, hidden=1, block_weights=5, head_weights=3, head_per_token=False)
SPEED = Speed(flops=10.0, up=100.0, down=200.0, latency=0.5)
NAMES = [f"device-{number}" for number in range(2000)]


def trace(speed: Speed = SPEED, *, turns: Turns = FREE) -> Trace:
    return Trace(SHAPE, Split(1, 2, 1), speed, edge_flops=20.0, turns=turns)


def requests(steps: int) -> list[Message]:
    middle = [
        message
        for step in range(steps)
        for message in (Activations(step, True, (2,), PACKET), Gradients(step, PACKET))
    ]
    return [Ready(0, 0, 1, 1), *middle, Update(0, 0, {}, 1, 1, 0.0)]


def exchanged(it: Trace, request: Message, up: int = 300, down: int = 100) -> None:
    it.asked(request, up)
    it.answered(request, down)


def run(it: Trace, steps: int, up: int = 300, down: int = 100) -> Trace:
    for request in requests(steps):
        exchanged(it, request, up, down)
    return it


def free(seconds: float) -> Leg:
    return Leg("free", seconds)


def edge(seconds: float, after: int = 0, passes: int = 0) -> Leg:
    return Leg("edge", seconds, after, passes)


def test_one_step_by_hand() -> None:
    sent, received = 0.5 + 3.0, 0.5 + 0.5
    expected = [
        (sent, 0.0, received),  # Ready
        (36 / 10 + sent, 2 * 36 / 20, received),  # bottom forward; trunk forward
        ((36 + 52 + 2 * 6) / 10 + sent, 2 * 52 / 20, received),  # top both ways; trunk backward
        (52 / 10 + sent, 0.0, received),  # bottom backward, then Update
    ]
    legs = run(trace(), 1).legs
    assert [leg.place for leg in legs] == ["free", "edge", "free"] * 4
    assert [leg.seconds for leg in legs] == pytest.approx([it for row in expected for it in row])
    assert finish_times([legs]) == pytest.approx([sum(it for row in expected for it in row)])
    assert all((leg.after, leg.passes) == (0, 0) for leg in legs)


def test_bottom_backward_overlaps_nothing_and_is_paid_once() -> None:
    one, two = (sum(leg.seconds for leg in run(trace(), steps).legs) for steps in (1, 2))
    step = (36 + 36 + 52 + 52 + 12) / 10 + 2 * (36 + 52) / 20 + 2 * (3.5 + 1.0)
    assert two - one == pytest.approx(step)


def test_one_step_of_two_parts_by_hand() -> None:
    """One exchange: the edge does three blocks both ways, and the head."""
    it = Trace(SHAPE, Split.of(4, 1, 0, "two-part"), SPEED, edge_flops=20.0)
    for request in (LabelledActivations(0, True, (2,), (1,), PACKET), requests(0)[-1]):
        exchanged(it, request)
    lane = (3 * (36 + 52) + 2 * 6) / 20
    expected = [36 / 10 + 3.5, lane, 1.0, 52 / 10 + 3.5, 0.0, 1.0]
    assert [leg.seconds for leg in it.legs] == pytest.approx(expected)


def test_a_device_with_the_whole_model_does_all_of_a_step() -> None:
    it = Trace(SHAPE, Split.of(4, 1, 0, "whole"), SPEED, edge_flops=20.0)
    for request in requests(0):
        exchanged(it, request)
    it.worked([(2,), (2,)])
    step = (4 * (36 + 52) + 2 * 6) / 10
    assert [leg.seconds for leg in it.legs][-1] == pytest.approx(2 * step)


def test_in_turn_a_device_waits_for_the_one_before_it_and_for_nobody_else() -> None:
    turns = turns_of("sequential", ["a", "b"])
    marks = [[(it.after(step), it.passes(step)) for step in (0, 1)] for it in turns.values()]
    assert marks == [[(0, 1), (2, 3)], [(1, 2), (3, 4)]]
    first, second = (
        [
            leg
            for step in (0, 1)
            for leg in (
                free(1),
                edge(1, after=it.after(step)),
                free(1),
                edge(1, 0, it.passes(step)),
            )
        ]
        for it in turns.values()
    )
    # 1 2 3 4, then the other's edge passes from 4 to 7, the first again from 7, and so on.
    assert finish_times([first, second]) == [10.0, 13.0]
    assert set(turns_of("per-device", ["a", "b"]).values()) == {FREE}


def test_two_devices_share_the_lane_first_come_first_served() -> None:
    slow = [free(2), edge(3), free(1)]
    quick = [free(1), edge(4), free(1)]
    assert finish_times([slow, quick]) == [9.0, 6.0]
    assert finish_times([quick, slow]) == [6.0, 9.0]
    # Who comes later, and shortly, waits all the same.
    assert finish_times([[free(1), edge(4)], [free(1.5), edge(0.5)]]) == [5.0, 5.5]
    # The lane is idle until somebody comes, and devices compute at once.
    assert finish_times([[free(5), edge(1)], [free(5), edge(1)]]) == [6.0, 7.0]


def test_no_devices_and_no_legs_take_no_time() -> None:
    assert finish_times([]) == []
    assert finish_times([[], [edge(1)]]) == [0.0, 1.0]


def step_of(step: int, before: float, seconds: float) -> list[Leg]:
    return [free(before), edge(seconds, after=step, passes=step + 1)]


def test_lockstep_waits_for_the_last_of_a_step() -> None:
    quick = [*step_of(0, 1, 1), *step_of(1, 1, 1)]
    slow = [*step_of(0, 5, 2), *step_of(1, 10, 1)]
    # The quick one is there again at 3, waits until 7, and is done at 8.
    assert finish_times([quick, slow]) == [8.0, 18.0]
    assert finish_times([[free(1), edge(1), free(1), edge(1)], slow]) == [4.0, 18.0]


def test_lockstep_serves_those_who_waited_in_the_order_they_came() -> None:
    last, first, second = (
        [*step_of(0, before, 0), *step_of(1, again, 2)]
        for before, again in ((9, 0), (1, 1), (1, 3))
    )
    assert finish_times([second, first, last])[:2] == [13.0, 11.0]
    # The second comes while the last is at the edge; the first waits since 3 and still precedes it.
    traces = [[*step_of(0, before, 1), *step_of(1, 1, 1)] for before in (1, 2, 4)]
    assert finish_times(traces) == [6.0, 7.0, 8.0]


@pytest.mark.parametrize("kept", range(7), ids=lambda kept: f"{kept} legs")
def test_device_lost_at_any_point_blocks_nobody(kept: int) -> None:
    lost = run(trace(turns=Turns(1)), 2).legs[: 3 * kept]
    other = run(trace(Speed(5.0, 100.0, 200.0, 0.5), turns=Turns(1)), 2).legs
    ends = finish_times([lost, other])
    assert ends[0] <= ends[1]
    assert ends[1] >= sum(leg.seconds for leg in other)


def test_trace_bars_the_next_step_only_in_lockstep() -> None:
    marks = [(leg.after, leg.passes) for leg in run(trace(turns=Turns(1)), 2).legs]
    marks = [mark for mark in marks if mark != (0, 0)]
    assert marks == [(0, 1), (1, 0), (0, 2)]
    assert {(leg.after, leg.passes) for leg in run(trace(), 2).legs} == {(0, 0)}


def micro_batched(it: Trace, parts: int, steps: int = 1, up: int = 300, down: int = 100) -> Trace:
    """Edge rounds of steps whose micro-batches are all asked ahead."""
    exchanged(it, Ready(0, 0, 1, 1), up, down)
    for step in range(steps):
        last = parts - 1
        h1 = [
            Activations(step, True, (2,), PACKET, micro_batch=number, more=number < last)
            for number in range(parts)
        ]
        g2 = [Gradients(step, PACKET, micro_batch=number) for number in range(parts)]
        for request in h1:
            it.asked(request, up)
        for hidden, gradient in zip(h1, g2, strict=True):
            it.answered(hidden, down)
            it.asked(gradient, up)
        for gradient in g2:
            it.answered(gradient, down)
    exchanged(it, Update(0, 0, {}, 1, 1, 0.0), up, down)
    return it


def test_two_micro_batches_by_hand() -> None:
    """Bottom 3.6 and 5.2 s, top 10, trunk 3.6 and 5.2; frames 3 s up, 0.5 down, 0.5 under way."""
    it = micro_batched(trace(), 2)
    spans: dict[str, list[tuple[str, float, float]]] = {}
    schedule = Schedule(
        lambda _, leg, start, end: spans.setdefault(leg.parts[-1].by, []).append(
            (leg.parts[-1].what, round(start, 9), round(end, 9))
        )
    )
    schedule.begin("d", it.legs)
    done = schedule.done()
    # Ready takes 3.5 s there and 1 s back.
    assert spans["device"] == [
        ("bottom forward", 4.5, 8.1),
        ("bottom forward", 8.1, 11.7),
        ("top", 16.2, 26.2),  # h1 sent by 11.1, there at 11.6, at the edge until 15.2, 1 s back
        ("top", 26.2, 36.2),  # h2 has been there since 19.8
        ("bottom backward", 36.2, 41.4),  # g1 since 35.9
        ("bottom backward", 45.9, 51.1),
    ]
    # g2 is sent from 36.2 on, there at 39.7, at the edge until 44.9, and back at 45.9.
    assert [it for it in spans["edge"] if it[0].startswith("trunk")] == [
        ("trunk forward", 11.6, 15.2),
        ("trunk forward", 15.2, 18.8),
        ("trunk backward", 29.7, 34.9),
        ("trunk backward", 39.7, 44.9),
    ]
    assert done is not None
    assert done.end == pytest.approx(51.1 + 3.5 + 1.0)
    assert it.pace == pytest.approx(1.0)


@given(st.integers(1, 5), st.integers(1, 3), st.integers(0, 4000), st.integers(0, 4000))
def test_what_is_in_flight_takes_no_longer_than_in_turn_and_no_less_than_the_busiest(
    parts: int, steps: int, up: int, down: int
) -> None:
    it = micro_batched(trace(), parts, steps, up, down)
    (end,) = finish_times([it.legs])
    in_turn = sum(leg.seconds for leg in it.legs)
    parts_of = [part for leg in it.legs for part in leg.parts]
    busy = [sum(it.seconds for it in parts_of if it.by == by) for by in ("device", "edge")]
    frames = 2 + 2 * parts * steps
    assert max(*busy, frames * up / 100, frames * down / 200) - 1e-9 <= end <= in_turn + 1e-9
    if parts > 1:
        assert end < in_turn
    assert it.pace == pytest.approx(1.0)


SECONDS = st.integers(0, 20).map(float)
LEGS = st.lists(st.builds(Leg, st.sampled_from(["free", "edge"]), SECONDS), max_size=8)


@given(st.lists(LEGS, min_size=1, max_size=5))
def test_lane_never_runs_two_at_once_and_never_idles_in_vain(traces: list[list[Leg]]) -> None:
    lane = [sum(leg.seconds for leg in legs if leg.place == "edge") for legs in traces]
    ends = finish_times(traces)
    assert max(ends) >= sum(lane)
    for device, (legs, end) in enumerate(zip(traces, ends, strict=True)):
        own = sum(leg.seconds for leg in legs)
        others = sum(seconds for number, seconds in enumerate(lane) if number != device)
        assert own <= end <= own + others


@given(st.lists(st.lists(SECONDS.map(edge), max_size=6), min_size=1, max_size=4))
def test_lane_alone_takes_the_sum_of_its_legs(traces: list[list[Leg]]) -> None:
    assert max(finish_times(traces)) == sum(leg.seconds for legs in traces for leg in legs)


@st.composite
def locksteps(draw: st.DrawFn) -> list[list[tuple[float, float]]]:
    """Of each device, for each step: seconds before it asks the edge, and at the edge."""
    steps = draw(st.integers(1, 4))
    seconds = st.integers(1, 1000).map(float)
    step = st.lists(st.tuples(seconds, seconds), min_size=steps, max_size=steps)
    return draw(st.lists(step, min_size=1, max_size=4))


@given(locksteps())
def test_lockstep_is_a_barrier_a_step(devices: list[list[tuple[float, float]]]) -> None:
    traces = [
        [leg for step, its in enumerate(steps) for leg in step_of(step, *its)] for steps in devices
    ]
    last, done, ties = 0.0, [0.0] * len(devices), False
    for step in range(len(devices[0])):
        came = [done[number] + steps[step][0] for number, steps in enumerate(devices)]
        ties = ties or len({last, *came}) <= len(came)
        lane = last
        for number in sorted(range(len(devices)), key=came.__getitem__):
            lane = max(lane, came[number]) + devices[number][step][1]
            done[number] = lane
        last = lane
    assert ties or finish_times(traces) == done  # of two that come at once, either may go first


WIDTH = st.floats(1.0, 1e6)


@given(st.integers(0, 3), WIDTH, WIDTH, st.floats(1.0, 100.0), st.sampled_from(["up", "down"]))
def test_more_bandwidth_never_makes_a_device_slower(
    steps: int, up: float, down: float, factor: float, which: str
) -> None:
    # Of a single device: with several, one that comes earlier may take the lane from another.
    narrow = {"up": up, "down": down}
    wide = narrow | {which: narrow[which] * factor}
    seconds = [
        finish_times([run(trace(Speed(10.0, **it, latency=0.1)), steps).legs])[0]
        for it in (narrow, wide)
    ]
    assert seconds[1] <= seconds[0]


def test_speeds_depend_on_the_seed_alone() -> None:
    network = Network()
    assert device_speeds(network, NAMES[:10], 1) == device_speeds(network, NAMES[:10], 1)
    assert device_speeds(network, NAMES[:10], 1) != device_speeds(network, NAMES[:10], 2)


def test_speeds_spread_around_the_declared_ones() -> None:
    network = Network(device_gflops=20.0, spread=0.3)
    speeds = list(device_speeds(network, NAMES, 0).values())
    flops = sorted(it.flops / 20e9 for it in speeds)
    widths = sorted(it.up / 2.5e6 for it in speeds)
    for factors in (flops, widths):
        assert factors[1000] == pytest.approx(1.0, abs=0.03)
        # Log-normal: 84 % lie below exp(sigma).
        assert factors[1683] == pytest.approx(2.718281828**0.3, rel=0.05)
    # A device has one factor for both directions of its link, and another for computing.
    assert all(it.down / it.up == pytest.approx(2.5) for it in speeds)
    assert all(it.latency == 0.01 for it in speeds)
    assert [it.flops / 20e9 for it in speeds] != pytest.approx([it.up / 2.5e6 for it in speeds])


def test_without_spread_speeds_are_the_declared_ones() -> None:
    network = Network(
        device_edge=Link(latency_ms=20.0, up_mbps=8.0, down_mbps=16.0),
        device_gflops=2.0,
        spread=0.0,
    )
    expected = Speed(flops=2e9, up=1e6, down=2e6, latency=0.02)
    assert device_speeds(network, ["a", "b"], 3) == {"a": expected, "b": expected}


def test_slow_devices_are_that_part_and_that_much_slower_and_the_others_as_before() -> None:
    plain, slow = (
        device_speeds(Network(spread=0.3, slow=part, slow_factor=4.0), NAMES[:10], 2)
        for part in (0.0, 0.2)
    )
    factors = [(slow[it].flops / plain[it].flops, slow[it].up / plain[it].up) for it in NAMES[:10]]
    assert sorted(factors) == [(0.25, 0.25)] * 2 + [(1.0, 1.0)] * 8
    assert all(slow[it].down / slow[it].up == pytest.approx(2.5) for it in NAMES[:10])
    other = device_speeds(Network(spread=0.3, slow=0.2, slow_factor=4.0), NAMES[:10], 3)
    other_plain = device_speeds(Network(spread=0.3), NAMES[:10], 3)
    who, others = (
        {it for it in NAMES[:10] if a[it].flops < 0.5 * b[it].flops}
        for a, b in ((slow, plain), (other, other_plain))
    )
    assert who != others


def test_pace_is_the_time_taken_to_the_time_declared() -> None:
    assert run(trace(), 2).pace == pytest.approx(1.0)
    slow = Speed(flops=5.0, up=50.0, down=100.0, latency=1.0)
    it = Trace(SHAPE, Split(1, 2, 1), slow, edge_flops=20.0, declared=SPEED)
    assert run(it, 2).pace == pytest.approx(2.0)
    assert trace().pace == 1.0


def test_nothing_below_the_first_adapters_has_a_backward_pass() -> None:
    frozen = Trace(replace(SHAPE, first=2), Split(1, 2, 1), SPEED, edge_flops=20.0)
    legs, learning = (run(it, 1).legs for it in (frozen, trace()))
    assert legs[7].seconds == learning[7].seconds / 2  # one of the trunk's two blocks
    assert legs[9].seconds == pytest.approx(3.5)  # only the update is sent; learning pays 52 / 10


def test_drift_is_a_walk_by_the_seed_that_starts_at_the_declared_speed() -> None:
    network = Network(drift=0.2)
    speeds = device_speeds(network, NAMES, 0)
    assert drifted(speeds, network, 1, 0) == speeds
    assert drifted(speeds, Network(), 1, 5) == speeds
    one, again, other = (drifted(speeds, network, seed, 4) for seed in (1, 1, 2))
    assert one == again != other
    # Each round's steps are part of the next one's: four of sigma 0.2 are one of sigma 0.4.
    logs = np.array([np.log(one[name].flops / speeds[name].flops) for name in NAMES])
    assert logs.std() == pytest.approx(0.4, rel=0.05)
    five = drifted(speeds, network, 1, 5)
    step = np.array([np.log(five[name].flops / one[name].flops) for name in NAMES])
    assert step.std() == pytest.approx(0.2, rel=0.05)
    assert all(five[name].down / five[name].up == pytest.approx(2.5) for name in NAMES)


def test_cloud_seconds_by_hand() -> None:
    network = Network(edge_cloud=Link(latency_ms=50.0, up_mbps=8.0, down_mbps=80.0))
    assert cloud_seconds(network, up=3_000_000, down=5_000_000) == pytest.approx(0.1 + 3.0 + 0.5)
