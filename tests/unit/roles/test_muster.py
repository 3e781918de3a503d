"""Real machines come and go: who is there has a place, and nobody moves for nothing."""

import math
from collections.abc import Mapping

import torch
from hypothesis import given
from hypothesis import strategies as st

from elsa.core.assign import Rules
from elsa.roles.muster import Found, Musterer
from elsa.roles.overseer import Place, Policy, Strategy

DEVICES = tuple(f"d{number}" for number in range(5))
EDGES = ("e0", "e1", "e2")


def musterer(strategy: Strategy = "none", *, every: int = 2, limit: float = math.inf) -> Musterer:
    rules = Rules((2, 2, 2), limit, 0.2, 0.05)
    policy = Policy(strategy, 0, every, rules, 128, 32, None, 3)
    return Musterer(policy, DEVICES, EDGES, torch.zeros(5, 3, dtype=torch.float64))


def at(edge: str, **seconds: float) -> Found:
    return Found(edge, seconds)


ALL = {name: at(EDGES[n % 3], e0=0.1, e1=0.1, e2=0.1) for n, name in enumerate(DEVICES)}
"""Everybody where it was dealt to, and all edges within reach."""


def moved(places: tuple[Place, ...]) -> dict[str, tuple[str, str]]:
    return {it.device: (it.before, it.edge) for it in places}


seconds = st.dictionaries(st.sampled_from(EDGES), st.floats(0.001, 1.0), min_size=1)


@st.composite
def worlds(draw: st.DrawFn) -> tuple[dict[str, Found], list[str]]:
    """Devices that are at edges they reach, and the edges that answered: those among them."""
    found = {}
    for name in draw(st.lists(st.sampled_from(DEVICES), unique=True)):
        reach = draw(seconds)
        found[name] = Found(draw(st.sampled_from(sorted(reach))), reach)
    more = draw(st.lists(st.sampled_from(EDGES), unique=True))
    return found, sorted({*more, *(it.edge for it in found.values())})


@given(
    st.sampled_from(["none", "random", "latency", "behaviour", "mixed"]),
    st.lists(worlds(), min_size=1, max_size=4),
    st.integers(0, 5),
)
def test_whoever_is_there_has_a_place_within_reach(
    strategy: Strategy, worlds: list[tuple[dict[str, Found], list[str]]], capacity: int
) -> None:
    cloud = musterer(strategy)
    for round_, (found, alive) in enumerate(worlds):
        before = dict(cloud.placed)
        places = cloud.muster(round_, found, alive, capacity)
        assert moved(places) == {
            it: (before[it], cloud.placed[it]) for it in DEVICES if before[it] != cloud.placed[it]
        }
        assert all(it.why for it in places)
        for name, edge in cloud.placed.items():
            if name not in found:
                assert edge == ""
            elif edge:
                assert edge in alive
                assert edge in found[name].seconds
            else:
                assert 0 < capacity < len(found)
        again = cloud.muster(2 * round_ + 1, found, alive, capacity)
        # Once more, and no clustering due: only who found no room may find some.
        assert all(not before for before, _ in moved(again).values())


def test_dealt_devices_that_are_all_there_stay_where_they_were_dealt() -> None:
    cloud = musterer()
    assert cloud.muster(0, ALL, EDGES) == ()
    assert cloud.assignment() == {"e0": ("d0", "d3"), "e1": ("d1", "d4"), "e2": ("d2",)}


def test_devices_of_an_edge_that_died_go_to_the_nearest_with_room_and_stay_there() -> None:
    cloud = musterer()
    cloud.muster(0, ALL, EDGES)
    found = ALL | {"d0": at("e1", e1=0.2, e2=0.1), "d3": at("e2", e1=0.3, e2=0.1)}
    places = cloud.muster(1, found, ("e1", "e2"), 3)
    assert moved(places) == {"d0": ("e0", "e2"), "d3": ("e0", "e2")}
    assert "e0 is out of its reach" in places[0].why
    assert cloud.muster(2, found, EDGES, 3) == ()  # it is back, and nobody runs to and fro


def test_full_edges_leave_a_device_out_and_say_so() -> None:
    cloud = musterer()
    cloud.muster(0, ALL, EDGES)
    found = ALL | {name: at("e1", e1=0.1, e2=0.1) for name in ("d0", "d3")}
    (one, other) = cloud.muster(1, found, ("e1", "e2"), 2)
    assert {one.edge, other.edge} == {"e2", ""}
    assert "are taken" in (one if not one.edge else other).why or "are full" in other.why


def test_who_is_gone_has_no_place_and_returns_to_where_it_was_dealt() -> None:
    cloud = musterer()
    there = {name: it for name, it in ALL.items() if name != "d1"}
    assert moved(cloud.muster(0, there, EDGES)) == {"d1": ("e1", "")}
    assert cloud.muster(1, there, EDGES) == ()
    back: Mapping[str, Found] = ALL | {"d1": at("e0", e0=0.1, e1=0.9)}
    assert moved(cloud.muster(2, back, EDGES)) == {"d1": ("", "e1")}


def test_latency_places_anew_when_that_is_due_if_it_gains_more_than_the_margin() -> None:
    cloud = musterer("latency", every=2)
    near = {it: at("e0", e0=0.5, e1=0.1 if it == "d0" else 0.5, e2=1.0) for it in DEVICES}
    cloud.muster(0, near, EDGES)
    assert cloud.placed["d0"] == "e1"
    for moved_to, gain in (("e1", 0.01), ("e0", 0.4)):
        closer = near | {"d0": at("e1", e0=0.5 - gain, e1=0.5, e2=1.0)}
        cloud.muster(3, closer, EDGES)
        assert cloud.placed["d0"] == "e1"  # not due
        cloud.muster(4, closer, EDGES, 5)
        assert cloud.placed["d0"] == moved_to


def test_no_place_beyond_the_latency_limit() -> None:
    cloud = musterer("latency", limit=0.2)
    far = {"d0": at("e0", e0=0.3, e1=0.25)}
    cloud.muster(0, far, EDGES)
    assert cloud.placed["d0"] == ""


def test_restored_view_goes_on_where_it_was() -> None:
    cloud, other = musterer("latency"), musterer("latency")
    cloud.muster(0, ALL, EDGES)
    other.restore(cloud.state())
    assert other.muster(2, ALL, EDGES) == ()
