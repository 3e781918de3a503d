"""Who goes the way of the others is trusted; who goes back, nowhere or anywhere is not."""

from collections.abc import Callable

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from elsa.core.trust import (
    BREADTH,
    BUCKETS,
    Judged,
    Trust,
    TrustRules,
    agreements,
    breadth,
    differences,
    judge,
    packed_answers,
    packed_step,
    remembered,
    scores,
    unpacked_answers,
    unpacked_step,
    weight,
)
from elsa.errors import BehaviourError

PROBES, CLASSES, SIZE = 24, 4, 30_000


def draw(seed: int, *shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def honest(count: int, seed: int) -> tuple[list[Tensor], list[Tensor]]:
    """Updates and moves of scores that share a part; the rest is each device's own."""
    way, scores = draw(seed, SIZE), draw(seed + 1, PROBES, CLASSES)
    steps = [way + 1.5 * draw(seed + 10 + n, SIZE) for n in range(count)]
    return steps, [scores + draw(seed + 500 + n, PROBES, CLASSES) for n in range(count)]


def judged(steps: list[Tensor], answers: list[Tensor]) -> Judged:
    zero = {"b": torch.zeros(SIZE)}
    sent = [unpacked_step(packed_step(zero, {"b": step})) for step in steps]
    told = [unpacked_answers(packed_answers(it), len(it)) for it in answers]
    return judge(sent, told, [""] * len(steps))


def own(step: Tensor) -> int:
    """A seed that differs from device to device."""
    return int(step.abs()[0] * 1e5)


Attack = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]
ATTACKS: dict[str, Attack] = {
    "sign flip": lambda step, told: (-step, -told),
    "noise": lambda step, told: (draw(own(step), SIZE), draw(own(step) + 1, PROBES, CLASSES)),
    "free rider": lambda step, told: (torch.zeros(SIZE), torch.zeros(PROBES, CLASSES)),
    "scaled": lambda step, told: (10 * step, 10 * told),
    "labels permuted": lambda step, told: (step, told.roll(1, 1)),
}


@pytest.mark.parametrize("attack", ATTACKS)
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_three_of_ten_that_attack_are_cut_and_nobody_else(attack: str, seed: int) -> None:
    steps, answers = honest(10, seed)
    for bad in (1, 4, 7):
        steps[bad], answers[bad] = ATTACKS[attack](steps[bad], answers[bad])
    found = judged(steps, answers)
    assert {n for n in range(10) if float(found.trust[n]) < 0.5} == {1, 4, 7}
    assert {1, 4, 7} <= set(found.reasons)


def test_all_honest_are_trusted_and_the_order_does_not_matter() -> None:
    steps, answers = honest(9, 3)
    found = judged(steps, answers)
    assert torch.equal(found.trust, torch.ones(9))
    assert not found.reasons
    turned = judged(steps[::-1], answers[::-1])
    torch.testing.assert_close(turned.step, found.step.flip(0))


@pytest.mark.parametrize("against", [0.0, 1.0])
def test_a_device_of_one_class_may_go_its_own_way_but_not_back(against: float) -> None:
    steps, answers = honest(8, 5)
    steps[2] = draw(99, SIZE) - against * sum(steps[3:], torch.zeros(SIZE))
    way = torch.tensor([0.8, -0.4, -0.2, -0.2])
    answers[2] = -answers[0][:, :1] * way + 2 * way  # one direction, and against the others
    found = judged(steps, answers)
    assert float(found.prediction[2]) < 0
    assert float(found.trust[2]) == (0.0 if against else 1.0)


def test_who_does_nothing_is_of_no_class() -> None:
    steps, answers = honest(8, 6)
    steps[2], answers[2] = draw(98, SIZE), torch.zeros(PROBES, CLASSES)
    assert float(judged(steps, answers).trust[2]) == 0.0


@given(seed=st.integers(0, 1000))
@settings(max_examples=20, deadline=None)
def test_who_answers_at_random_is_of_no_class(seed: int) -> None:
    assert float(breadth(draw(seed, 1, PROBES, CLASSES))) > BREADTH[1]


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_of_two_classes_predictions_count_for_everybody(seed: int) -> None:
    steps, _ = honest(10, seed)
    common = draw(seed, PROBES, 2)
    answers = [common + 0.5 * draw(20 + n, PROBES, 2) for n in range(10)]
    assert torch.equal(judged(steps, answers).trust, torch.ones(10))
    answers[3] = -answers[3]
    found = judged(steps, answers).trust
    assert [n for n in range(10) if float(found[n]) < 0.5] == [3]


@pytest.mark.parametrize("seed", [0, 1, 2, 3])
def test_while_steps_agree_with_nobody_predictions_alone_convict(seed: int) -> None:
    _, answers = honest(10, seed)
    steps = [draw(1000 * seed + n, SIZE) for n in range(10)]
    assert torch.equal(judged(steps, answers).trust, torch.ones(10))
    for bad in (0, 5, 9):
        answers[bad] = answers[bad].roll(1, 1)
    found = judged(steps, answers).trust
    assert {n for n in range(10) if float(found[n]) < 0.5} == {0, 5, 9}


def test_whose_steps_go_back_is_cut_although_its_predictions_agree() -> None:
    steps, answers = honest(10, 7)
    steps[4] = -steps[4]
    found = judged(steps, answers).trust
    assert [n for n in range(10) if float(found[n]) < 0.5] == [4]


def test_predictions_that_agree_with_nobody_excuse_nobody() -> None:
    steps, _ = honest(10, 8)
    steps[2] = draw(99, SIZE)
    answers = [draw(200 + n, PROBES, CLASSES) for n in range(10)]
    found = judged(steps, answers).trust
    assert [n for n in range(10) if float(found[n]) < 0.5] == [2]


SHARE = st.floats(-3, 3)


@given(step=SHARE, prediction=SHARE, says=st.floats(0, 1), more=st.floats(0, 3))
@settings(deadline=None)
def test_more_agreement_is_never_held_against_anybody(
    step: float, prediction: float, says: float, more: float
) -> None:
    def score(
        step: float, prediction: float, says: float = says, narrow: float | None = None
    ) -> float:
        values = (step, prediction, says, 1 - says if narrow is None else narrow)
        return float(scores(*(torch.tensor([it], dtype=torch.float64) for it in values)))

    here = score(step, prediction)
    assert here <= score(step + more, prediction) + 1e-9
    assert here <= score(step, prediction + more) + 1e-9
    assert here <= 1
    assert here == 1 or min(step, prediction) < 0.5
    assert score(step, prediction, 0.0, 0.0) == pytest.approx(1 - max(0.0, 1 - 2 * step))
    assert score(step, prediction, 0.0, 1.0) == pytest.approx(1 - max(0.0, -2 * step))
    if prediction <= 0:
        assert score(step, prediction, 1.0) <= 1e-9
    if step <= -0.5:
        assert score(step, min(prediction, 1.0), 1.0) <= 1 - 2 * -step + 1 + 1e-9


def test_tasks_are_judged_apart() -> None:
    steps, answers = honest(4, 0)
    others, told = honest(4, 50)
    both = judged([*steps, *(-it for it in others)], [*answers, *(it[:, :3] for it in told)])
    assert torch.equal(both.step[:4], judged(steps, answers).step)
    assert float(both.step[4:].min()) > 0


def test_a_language_model_has_no_predictions_to_compare() -> None:
    steps, _ = honest(6, 0)
    steps[3] = -steps[3]
    found = judged(steps, [torch.zeros(PROBES, 0)] * 6)
    assert [n for n in range(6) if float(found.trust[n]) < 0.5] == [3]


@pytest.mark.parametrize("count", [1, 2])
def test_too_few_to_judge_are_trusted(count: int) -> None:
    steps, answers = honest(count, 0)
    found = judged([-1 * it for it in steps], answers)
    assert torch.equal(found.trust, torch.ones(count))


def test_agreement_by_hand() -> None:
    directions = torch.tensor([[[1.0, 0.0]], [[1.0, 0.0]], [[0.0, 1.0]]])
    everybody = torch.ones(3, dtype=torch.bool)
    # The median of the other two, (1, 0) and (0, 1), lies between them; of two alike, on them.
    torch.testing.assert_close(
        agreements(directions, everybody), torch.tensor([0.5, 0.5, 0.0]) * 2**0.5
    )
    assert agreements(directions, torch.tensor([True, True, False])).tolist() == [1.0, 1.0, 0.0]
    assert agreements(directions[:1], everybody[:1]).tolist() == [0.0]


def test_what_all_probes_or_classes_share_is_no_difference() -> None:
    moved = draw(0, 3, PROBES, CLASSES)
    directions = differences(moved)
    shifted = moved + draw(1, 3, 1, CLASSES) + draw(2, 3, PROBES, 1)
    torch.testing.assert_close(differences(shifted), directions, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(breadth(shifted), breadth(moved), atol=1e-4, rtol=1e-4)


def test_breadth_is_none_of_one_direction_and_all_of_none_or_two_alike() -> None:
    probes, way = draw(0, PROBES), torch.tensor([1.0, -1.0, 0.0, 0.0])
    other = torch.tensor([0.0, 0.0, 1.0, -1.0])
    centred = probes - probes.mean()
    square = draw(1, PROBES) - draw(1, PROBES).mean()
    square -= centred * (square @ centred) / (centred @ centred)
    square *= centred.norm() / square.norm()
    moved = torch.stack(
        [
            torch.outer(probes, way) + 3.0,
            torch.outer(centred, way) + torch.outer(square, other),
            torch.outer(centred, way) + 0.25 * torch.outer(square, other),
            torch.zeros(PROBES, CLASSES),
        ]
    )
    expected = torch.tensor([0.0, 1.0, 0.25, 1.0])
    torch.testing.assert_close(breadth(moved), expected, atol=1e-5, rtol=1e-5)
    sent = torch.stack([unpacked_answers(packed_answers(it), PROBES) for it in moved])
    torch.testing.assert_close(breadth(sent), expected, atol=0.02, rtol=0)


@given(seed=st.integers(0, 1000), scale=st.sampled_from([1e-3, 1.0, 1e3]))
@settings(max_examples=20, deadline=None)
def test_a_sketch_keeps_norms_and_angles(seed: int, scale: float) -> None:
    one, other = scale * draw(seed, SIZE), scale * draw(seed + 1, SIZE)
    near = one + 0.5 * other
    zero = {"b": torch.zeros(SIZE)}
    (norm, first), (_, second), (_, third) = (
        unpacked_step(packed_step(zero, {"b": it})) for it in (one, near, other)
    )
    assert norm == pytest.approx(float(torch.linalg.vector_norm(one)), rel=1e-4)
    angle = torch.nn.functional.cosine_similarity(one, near, dim=0).arcsin()
    assert float(first @ second) == pytest.approx(2 / torch.pi * float(angle), abs=0.1)
    assert abs(float(first @ third)) < 0.1
    back = unpacked_step(packed_step({"b": one}, zero))[1]
    assert float((back * first).sum()) < -0.9


def test_empty_buckets_are_no_agreement() -> None:
    zero, few = {"b": torch.zeros(200)}, [draw(seed, 200) for seed in range(2)]
    one, other = (unpacked_step(packed_step(zero, {"b": it}))[1] for it in few)
    assert abs(float(one @ other)) < 0.1


def test_a_step_is_what_changed_and_nothing_changed_is_no_direction() -> None:
    start, end = draw(0, SIZE), draw(1, SIZE)
    assert packed_step({"b": start, "head": start}, {"b": end}) == packed_step(
        {"b": torch.zeros(SIZE)}, {"b": end - start}
    )
    norm, directions = unpacked_step(packed_step({"b": start}, {"b": start}))
    assert norm == 0
    assert torch.equal(directions, torch.zeros(BUCKETS))


@given(seed=st.integers(0, 1000), scale=st.sampled_from([1e-9, 1.0, 1e9]))
@settings(max_examples=20, deadline=None)
def test_answers_keep_to_half_a_unit(seed: int, scale: float) -> None:
    moved = scale * draw(seed, PROBES, CLASSES)
    again = unpacked_answers(packed_answers(moved), PROBES)
    assert float((again - moved).abs().max()) <= float(moved.abs().max()) / 127 * 0.51


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_what_is_not_finite_is_told(bad: float) -> None:
    with pytest.raises(BehaviourError, match="NaN"):
        packed_answers(torch.full((PROBES, CLASSES), bad))
    with pytest.raises(BehaviourError, match="NaN"):
        packed_step({"b": torch.zeros(3)}, {"b": torch.full((3,), bad)})


@pytest.mark.parametrize("data", [b"", b"\0" * 5, b"\0" * (4 + PROBES), b"\0\0\x80\x7f"])
def test_bytes_that_are_no_behaviour_are_refused(data: bytes) -> None:
    with pytest.raises(BehaviourError, match="answers"):
        unpacked_answers(data, PROBES)
    with pytest.raises(BehaviourError, match="step"):
        unpacked_step(data)
    with pytest.raises(BehaviourError, match="norm"):
        unpacked_step(b"\0\0\x80\x7f" + b"\0" * (BUCKETS // 8))


def test_trust_fades_and_a_bad_round_counts_at_once() -> None:
    rules = TrustRules(memory=0.5, least=0.5)
    known = Trust(1.0, 2.0)  # where evidence ends up after many edge rounds of full evidence
    assert remembered(known, 0.0, 1.0, rules) == (0.5, 2.0)
    assert remembered(Trust(0.5, 2.0), 1.0, 1.0, rules) == (0.75, 2.0)
    assert weight(0.75, 1.0, 1.0, rules) == 0.75
    assert weight(0.49, 1.0, 1.0, rules) == 0.0
    assert weight(0.9, 0.2, 1.0, rules) == 0.0
    assert weight(0.9, 0.2, 0.5, rules) == 0.9


def test_who_was_never_judged_has_little_to_set_against_a_first_bad_round() -> None:
    rules = TrustRules(memory=0.5, least=0.25)
    assert remembered(Trust(), 0.0, 1.0, rules).value < 0.05
    assert remembered(Trust(), 0.0, 0.4, rules).value < 0.25
    assert remembered(Trust(), 0.0, 0.05, rules).value > 0.5


units = st.floats(0, 1)


@given(units, st.floats(0, 10), units, units, st.floats(0, 0.99))
def test_trust_is_a_mean_weighted_by_evidence(
    value: float, evidence: float, now: float, sure: float, memory: float
) -> None:
    # Rounds that are no evidence must neither wear trust down nor bring an attacker back.
    before, rules = Trust(value, evidence), TrustRules(memory, 0.25)
    assert remembered(before, now, 0.0, rules) == pytest.approx(before, abs=1e-12)
    after = remembered(before, now, sure, rules)
    assert min(value, now) - 1e-9 <= after.value <= max(value, now) + 1e-9
    assert after.evidence <= max(evidence, 1 / (1 - memory)) + 1
    assert 0 <= weight(after.value, now, sure, rules) <= 1


def test_an_edge_round_is_evidence_as_far_as_steps_agree() -> None:
    steps, answers = honest(9, 5)
    assert torch.equal(judged(steps, answers).evidence, torch.ones(9))
    noise = [draw(900 + n, SIZE) for n in range(9)]
    assert torch.equal(judged(noise, answers).evidence, torch.zeros(9))
    weak = [step + 3 * other for step, other in zip(steps, noise, strict=True)]
    assert bool(((judged(weak, answers).evidence > 0) & (judged(weak, answers).evidence < 1)).all())
    assert torch.equal(judged(steps[:2], answers[:2]).evidence, torch.zeros(2))  # too few


def test_attackers_stay_out_and_honest_devices_in_when_steps_become_noise() -> None:
    # A task that is learned: at first all is clear, then steps are noise and answers go anywhere.
    rules, trust = TrustRules(0.5, 0.25), [Trust() for _ in range(9)]
    for round_ in range(12):
        steps, answers = honest(9, 7)
        if round_ >= 3:
            steps = [draw(50 * round_ + n, SIZE) for n in range(9)]
            answers = [draw(50 * round_ + 25 + n, PROBES, CLASSES) for n in range(9)]
        for bad in (0, 4):
            steps[bad], answers[bad] = -steps[bad], -answers[bad]
        found = judged(steps, answers)
        for n in range(9):
            now = float(found.trust[n]), float(found.evidence[n])
            trust[n] = remembered(trust[n], *now, rules)
            assert (weight(trust[n].value, *now, rules) == 0) == (n in (0, 4))
