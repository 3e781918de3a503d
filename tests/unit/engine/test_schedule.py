"""Work on a lane: what one edge round after another does to what is still under way.

What a schedule of one edge round does is in `test_clock.py`.
"""

import itertools
import json

from hypothesis import given
from hypothesis import strategies as st

from elsa.engine.schedule import Leg, Part, Schedule

SECONDS = st.integers(0, 20).map(float)
LEGS = st.lists(st.builds(Leg, st.sampled_from(["free", "edge"]), SECONDS), max_size=6)
ROUNDS = st.lists(st.dictionaries(st.sampled_from("abcd"), LEGS), min_size=1, max_size=5)
Spans = list[tuple[str, Leg, float, float]]


class Played:
    """Edge rounds, each over as soon as so many devices are done; zero is where each begins.

    Attributes:
        ends: each end of work, in seconds since the first edge round began.
        spans: likewise each leg.
    """

    def __init__(self, enough: int, *, again: bool = False) -> None:
        self.ends: list[tuple[str, float, float]] = []
        self.spans: Spans = []
        self._enough, self._again = enough, again
        self._zero = 0.0
        self._schedule = Schedule(self._see)

    def play(self, work: dict[str, list[Leg]]) -> None:
        if self._again:  # as after a checkpoint
            state = json.loads(json.dumps(self._schedule.state()))
            self._schedule = Schedule(self._see)
            self._schedule.restore(state)
        for device, legs in work.items():
            if device not in self._schedule.at_work:
                self._schedule.begin(device, legs)
        last = 0.0
        for _ in range(self._enough):
            if done := self._schedule.done():
                last = max(last, done.end)
                self.ends.append((done.device, self._zero + done.began, self._zero + done.end))
        self._schedule.shift(last)
        self._zero += last

    def _see(self, device: str, leg: Leg, start: float, end: float) -> None:
        self.spans.append((device, leg, self._zero + start, self._zero + end))


@given(ROUNDS, st.integers(1, 4))
def test_the_lane_serves_one_at_a_time_and_work_goes_on_over_edge_rounds(
    rounds: list[dict[str, list[Leg]]], enough: int
) -> None:
    played = Played(enough)
    for work in rounds:
        played.play(work)
    lane = sorted((start, end) for _, leg, start, end in played.spans if leg.place == "edge")
    assert all(end <= start for (_, end), (start, _) in itertools.pairwise(lane))
    for device in "abcd":
        own = [(start, end) for it, _, start, end in played.spans if it == device]
        assert all(end <= start for (_, end), (start, _) in itertools.pairwise(own))
    for _, leg, start, end in played.spans:
        assert end - start == leg.seconds
    assert [end for *_, end in played.ends] == sorted(end for *_, end in played.ends)
    for device, began, end in played.ends:
        lasted = [it for it in played.spans if it[0] == device and began <= it[2] and it[3] <= end]
        assert not lasted or (lasted[0][2] >= began and lasted[-1][3] == end)


@given(ROUNDS, st.integers(1, 4))
def test_a_schedule_restored_goes_on_as_it_would_have(
    rounds: list[dict[str, list[Leg]]], enough: int
) -> None:
    whole, again = Played(enough), Played(enough, again=True)
    for work in rounds:
        whole.play(work)
        again.play(work)
    assert (again.ends, again.spans) == (whole.ends, whole.spans)


def test_by_hand_one_that_is_late_takes_the_lane_in_the_next_edge_round() -> None:
    slow = [Leg("free", 5.0), Leg("edge", 4.0), Leg("free", 1.0)]
    quick = [Leg("free", 1.0), Leg("edge", 1.0)]
    schedule = Schedule()
    schedule.begin("slow", slow)
    schedule.begin("quick", quick)
    first = schedule.done()
    assert first is not None
    assert (first.device, first.end) == ("quick", 2.0)
    schedule.shift(2.0)
    schedule.begin("quick", [Leg("free", 4.0), Leg("edge", 1.0)])
    # The slow one has the lane from 3 to 7; the quick one asks at 4.
    ends = [schedule.done(), schedule.done()]
    assert [(it.device, it.began, it.end) for it in ends if it] == [
        ("quick", 0.0, 8.0),
        ("slow", -2.0, 8.0),
    ]
    assert schedule.at_work == ()


def test_nothing_ends_after_the_moment_that_was_asked_for_and_cleared_work_never() -> None:
    schedule = Schedule()
    schedule.begin("a", [Leg("free", 5.0)])
    assert schedule.done(until=4.9) is None
    assert schedule.at_work == ("a",)
    schedule.clear()
    assert schedule.done() is None
    schedule.begin("a", [Leg("edge", 1.0)])
    again = schedule.done(until=1.0)
    assert again is not None
    assert (again.began, again.end) == (0.0, 1.0)


def test_what_legs_go_to_is_restored_too() -> None:
    parts = (Part("device", "top", 1.0), Part("up", "g2", 2.0))
    seen: list[Leg] = []
    schedule = Schedule(lambda _, leg, *__: seen.append(leg))
    schedule.begin("a", [Leg("free", 0.0), Leg("free", 3.0, parts=parts)])
    other = Schedule(schedule.see)
    other.restore(json.loads(json.dumps(schedule.state())))
    assert other.done() is not None
    assert seen[-1].parts == parts
