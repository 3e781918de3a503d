"""Robust averages: by hand, the laws they keep, and what a few bad updates cannot do to them."""

import math
from collections.abc import Callable, Mapping, Sequence
from functools import partial

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from elsa.core.robust import (
    Gathered,
    coordinate_median,
    enough,
    krum,
    krum_scores,
    multi_krum,
    trimmed,
    trimmed_mean,
)
from elsa.errors import AdapterError

Update = Mapping[str, Tensor]
Rule = Callable[[Sequence[Update]], Mapping[str, Tensor]]

RULES: dict[str, Rule] = {
    "median": coordinate_median,
    "trimmed-mean": partial(trimmed_mean, trim=0.25),
    "krum": partial(krum, byzantine=2),
    "multi-krum": partial(multi_krum, byzantine=2),
}
BAD = 2
"""Bad updates that each of the rules withstands among the eight of `honest`."""
every_rule = pytest.mark.parametrize("rule", RULES.values(), ids=RULES)

NUMBERS = st.integers(-1000, 1000)
ROWS = st.lists(st.lists(NUMBERS, min_size=3, max_size=3), min_size=1, max_size=9)


def updates(rows: Sequence[Sequence[float]]) -> list[dict[str, Tensor]]:
    """Each row as an update: two numbers of a body, and one of a head."""
    return [
        {"body": torch.tensor([row[:2]]).float(), "head": torch.tensor(row[2:]).float()}
        for row in rows
    ]


def column(values: Sequence[float]) -> list[dict[str, Tensor]]:
    return [{"a": torch.tensor([value])} for value in values]


def honest(count: int = 8) -> list[dict[str, Tensor]]:
    generator = torch.Generator().manual_seed(3)
    draw = partial(torch.randn, generator=generator)
    return [{"body": 5 + draw(4, 3), "head": -3 + draw(2)} for _ in range(count)]


def test_median_by_hand() -> None:
    assert coordinate_median(column([7, 1, 3]))["a"].tolist() == [3]
    assert coordinate_median(column([7, 1, 3, 100]))["a"].tolist() == [5]
    assert coordinate_median(column([7, 1]))["a"].tolist() == [4]


def test_trimmed_mean_by_hand() -> None:
    assert trimmed_mean(column([9, -50, 1, 2, 1000]), 0.2)["a"].tolist() == [4]
    assert trimmed_mean(column([9, -50, 1, 2]), 0.2)["a"].tolist() == [-9.5]
    assert trimmed_mean(column([9, -50, 1, 2, 1000]), 0.4)["a"].tolist() == [2]


@given(st.integers(1, 1000), st.integers(1, 49))
def test_share_that_is_trimmed_is_counted_in_whole_updates(count: int, percent: int) -> None:
    assert trimmed(count, percent / 100) == percent * count // 100


def test_krum_by_hand() -> None:
    """f = 1, n = 5: each one's two nearest count. 0: 1 + 9, 1: 1 + 4, 3: 4 + 1, 4: 1 + 9."""
    values = column([0, 1, 3, 4, 100])
    assert krum_scores(values, 1).tolist() == [10, 5, 5, 10, 96**2 + 97**2]
    assert krum(values, 1)["a"].tolist() == [1]  # the first of the two best
    assert multi_krum(values, 1)["a"].tolist() == [2]  # the mean of 1 and 3


def test_krum_measures_whole_updates() -> None:
    """Body and head together: the first has the most usual body and is last all the same."""
    rows = [[0, 0, 9], [1, 0, 0], [0, 1, 0], [0, 0, 1], [1, 1, 0]]
    assert krum_scores(updates(rows), 1).tolist() == [64 + 82, 1 + 2, 1 + 2, 2 + 2, 1 + 1]


@every_rule
def test_of_equal_updates_every_rule_gives_them(rule: Rule) -> None:
    (one,) = updates([[0.1, -7, 1e-3]])
    made = rule([one] * 8)
    assert all(torch.equal(made[name].float(), value) for name, value in one.items())


@every_rule
@settings(deadline=None)
@given(rows=ROWS, order=st.randoms(use_true_random=False))
def test_order_of_arrival_does_not_matter_to_the_bit(rule: Rule, rows: list, order: object) -> None:
    sent = list(zip([f"device-{n}" for n in range(len(rows))], updates(rows), strict=True))
    shuffled = list(sent)
    order.shuffle(shuffled)
    made = []
    for arrival in (sent, shuffled):
        mean = Gathered(rule)
        for sender, update in arrival:
            mean.add(update, 1.0, sender)
        made.append(mean.result(sent[0][1]))
    assert all(torch.equal(made[0][name], made[1][name]) for name in made[0])


@every_rule
@settings(deadline=None)
@given(rows=ROWS, shift=st.lists(NUMBERS, min_size=3, max_size=3), scale=st.sampled_from([-4, 2]))
def test_shifted_and_scaled_updates_give_the_shifted_and_scaled_result(
    rule: Rule, rows: list, shift: list, scale: int
) -> None:
    moved = [[scale * x + y for x, y in zip(row, shift, strict=True)] for row in rows]
    (by,) = updates([shift])
    plain, made = rule(updates(rows)), rule(updates(moved))
    for name, value in made.items():
        torch.testing.assert_close(value, scale * plain[name] + by[name].double())


@every_rule
@pytest.mark.parametrize("size", [1e3, 1e30, -1e30])
def test_bad_updates_within_f_move_the_result_no_further_than_the_good_ones_lie(
    rule: Rule, size: float
) -> None:
    good = honest()
    bad = {name: torch.full_like(value, size) for name, value in good[0].items()}
    made = rule([bad, *good[BAD:], bad])
    for name, value in made.items():
        held = torch.stack([update[name] for update in good[BAD:]])
        assert (value >= held.min(0).values).all()
        assert (value <= held.max(0).values).all()


@every_rule
def test_a_head_that_only_the_bad_ones_spoil_is_saved_too(rule: Rule) -> None:
    good = honest()
    bad = [{**update, "head": torch.full_like(update["head"], 1e6)} for update in good[:BAD]]
    assert rule([*bad, *good[BAD:]])["head"].abs().max() < 10


def test_each_rule_breaks_where_it_is_said_to() -> None:
    """One bad update more than a rule is made for: the limit is the limit."""
    good, huge = [0.0, 0.1, 0.2, 0.3, 0.4], 1e6
    assert float(trimmed_mean(column([*good, huge, huge]), 0.2)["a"]) > 1
    assert float(coordinate_median(column([*good[:2], huge, huge, huge]))["a"]) == huge
    assert float(krum(column([*good[:2], huge, huge, huge]), 1)["a"]) == huge


@pytest.mark.parametrize("rule", [krum, multi_krum])
@pytest.mark.parametrize("byzantine", [0, 1, 2])
def test_with_fewer_than_krum_needs_the_median_is_taken(rule: Rule, byzantine: int) -> None:
    few = honest(enough(byzantine) - 1)
    made, expected = rule(few, byzantine), coordinate_median(few)
    assert all(torch.equal(made[name], expected[name]) for name in expected)
    assert not torch.equal(rule(honest(enough(byzantine)), byzantine)["body"], expected["body"])


def test_krum_takes_one_update_whole_and_multi_krum_averages_the_best() -> None:
    sent = honest()
    chosen = krum(sent, 2)
    assert any(all(torch.equal(u[k].double(), v) for k, v in chosen.items()) for u in sent)
    best = krum_scores(sent, 2).argsort()[:4].tolist()
    expected = torch.stack([sent[number]["body"].double() for number in best]).mean(0)
    torch.testing.assert_close(multi_krum(sent, 2)["body"], expected)


def test_keys_that_some_lack_count_for_those_who_hold_them() -> None:
    """Devices of two tasks: one body, a head each."""
    rows = [[0, 0, 1], [1, 1, 3], [2, 2, 8], [3, 3, 20], [1, 2, 40]]
    sent = updates(rows)
    for update in sent[3:]:
        update["other"] = update.pop("head")
    made = coordinate_median(sent)
    assert (made["head"].tolist(), made["other"].tolist()) == ([3], [30])
    bodies = [{"body": update["body"]} for update in sent]
    assert torch.equal(krum_scores(sent, 1), krum_scores(bodies, 1))
    mean = Gathered(partial(krum, byzantine=1))
    for number, update in enumerate(sent):
        mean.add(update, 1.0, str(number))
    start = {"body": torch.zeros(1, 2), "head": torch.tensor([7.0]), "other": torch.tensor([9.0])}
    got = mean.result(start)
    assert got["body"].tolist() == [[1, 2]]  # the last one's, who has no "head"
    assert (got["head"].tolist(), got["other"].tolist()) == ([7], [40])


def test_parts_of_an_update_are_one_update_and_weights_do_not_matter() -> None:
    whole, parts = (Gathered(RULES["krum"]) for _ in range(2))
    sent = honest()
    for number, update in enumerate(sent):
        whole.add(update, 1.0, str(number))
        for name, value in update.items():
            parts.add({name: value}, 10.0**number, str(number))
    first, second = whole.result(sent[0]), parts.result(sent[0])
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_result_has_the_keys_and_dtypes_asked_for_and_without_updates_is_what_was() -> None:
    start = {"body": torch.ones(4, 3).bfloat16(), "nobody": torch.ones(1)}
    mean = Gathered(coordinate_median)
    assert mean.result(start) == start
    for number, update in enumerate(honest()):
        mean.add(update, 1.0, str(number))
    got = mean.result(start)
    assert [(name, value.dtype) for name, value in got.items()] == [
        ("body", torch.bfloat16),
        ("nobody", torch.float32),
    ]
    assert torch.equal(got["nobody"], start["nobody"])


@pytest.mark.parametrize(
    ("value", "weight"),
    [(math.nan, 1.0), (math.inf, 1.0), (1.0, 0.0), (1.0, math.nan)],
)
def test_what_is_refused_is_not_held(value: float, weight: float) -> None:
    mean = Gathered(coordinate_median)
    mean.add({"a": torch.ones(2)}, 1.0, "one")
    with pytest.raises(AdapterError):
        mean.add({"a": torch.full((2,), value)}, weight, "two")
    with pytest.raises(AdapterError, match="shape"):
        mean.add({"a": torch.ones(3)}, 1.0, "three")
    assert mean.result({"a": torch.zeros(2)})["a"].tolist() == [1, 1]
