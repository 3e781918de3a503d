"""Trunk adapters of an edge: copies that know nothing of each other, or one that knows all."""

from collections.abc import Mapping
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from elsa.core.aggregate import WeightedMean
from elsa.errors import ProtocolError
from elsa.roles.learner import Learner, OptimizerSettings
from elsa.roles.trunk import PerDeviceTrunk, SequentialTrunk, SharedTrunk, TrunkAdapters

SETTINGS = OptimizerSettings(learning_rate=0.1, weight_decay=0.05, keep_moments=True)
RESET = replace(SETTINGS, keep_moments=False)
NAMES = ("a", "b")
ROWS = {"one": 4, "two": 2, "three": 1}


def tensors(seed: int, names: tuple[str, ...] = NAMES) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    drawn = {name: torch.randn(3, 2, generator=generator) for name in NAMES}
    return {name: drawn[name] for name in names}


START = tensors(0)


def gradient_of(peer: str, step: int) -> dict[str, Tensor]:
    return tensors(10 * step + ROWS[peer] + 100)


def equal(one: Mapping[str, Tensor], other: Mapping[str, Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[k], v) for k, v in other.items())


def opened(trunk: TrunkAdapters, *peers: str) -> dict[str, Learner]:
    trunk.open(START, peers)
    return {peer: trunk.join(peer, NAMES) for peer in peers}


def averaged(trunk: TrunkAdapters, *peers: str) -> dict[str, Tensor]:
    """End the edge round: what `peers` and the close enter into the mean."""
    mean = WeightedMean()
    for peer in peers:
        trunk.contribute(peer, ROWS[peer], mean)
    trunk.close(mean)
    return mean.result(START)


def alone(peer: str, steps: range, settings: OptimizerSettings = SETTINGS) -> Learner:
    learner = Learner(START, settings)
    for step in steps:
        learner.gather(gradient_of(peer, step))
        learner.step()
    return learner


def concatenated(steps: range, *peers: str) -> Learner:
    """A learner of the batches of all peers in one."""
    learner = Learner(START, SETTINGS)
    for step in steps:
        learner.gather(
            {
                name: sum(gradient_of(peer, step)[name] * ROWS[peer] for peer in peers)
                / sum(ROWS[peer] for peer in peers)
                for name in NAMES
            }
        )
        learner.step()
    return learner


def take(trunk: TrunkAdapters, step: int, *peers: str) -> None:
    for peer in peers:
        trunk.gather(peer, step, gradient_of(peer, step), ROWS[peer])


def test_per_device_copies_train_as_if_alone() -> None:
    trunk = PerDeviceTrunk(SETTINGS)
    learners = opened(trunk, "one", "two")
    for step in range(3):
        take(trunk, step, *(("one", "two") if step % 2 else ("two", "one")))
    for peer, learner in learners.items():
        assert equal(learner.tensors(), alone(peer, range(3)).tensors())
    assert equal(START, tensors(0))


def test_per_device_copies_are_averaged_by_weight() -> None:
    trunk = PerDeviceTrunk(SETTINGS)
    opened(trunk, "one", "two")
    take(trunk, 0, "one", "two")
    expected = WeightedMean()
    for peer in ("one", "two"):
        expected.add(alone(peer, range(1)).tensors(), ROWS[peer])
    assert equal(averaged(trunk, "one", "two"), expected.result(START))


def test_per_device_copy_of_a_lost_device_is_not_averaged() -> None:
    trunk = PerDeviceTrunk(SETTINGS)
    opened(trunk, "one", "two")
    take(trunk, 0, "one", "two")
    trunk.lose("one")
    assert equal(averaged(trunk, "two"), alone("two", range(1)).tensors())


@pytest.mark.parametrize("settings", [SETTINGS, RESET], ids=["keep", "reset"])
def test_per_device_moments_are_kept_only_if_asked_for(settings: OptimizerSettings) -> None:
    trunk = PerDeviceTrunk(settings)
    opened(trunk, "one", "two")
    take(trunk, 0, "one", "two")
    averaged(trunk, "one", "two")
    second = opened(trunk, "two", "one")
    take(trunk, 1, "two", "one")
    for peer, learner in second.items():
        moments = alone(peer, range(1)).moments() if settings.keep_moments else None
        expected = Learner(START, settings, moments)
        expected.gather(gradient_of(peer, 1))
        expected.step()
        assert equal(learner.tensors(), expected.tensors())


@pytest.mark.parametrize("settings", [SETTINGS, RESET], ids=["keep", "reset"])
def test_shared_moments_are_kept_only_if_asked_for(settings: OptimizerSettings) -> None:
    trunk = SharedTrunk(settings)
    opened(trunk, "one", "two")
    take(trunk, 0, "one", "two")
    averaged(trunk, "one", "two")
    learner = opened(trunk, "two", "one")["one"]
    for peer in ("one", "two"):
        trunk.gather(peer, 0, gradient_of(peer, 1), ROWS[peer])
    moments = concatenated(range(1), "one", "two").moments() if settings.keep_moments else None
    expected = Learner(START, settings, moments)
    one, two = gradient_of("one", 1), gradient_of("two", 1)
    expected.gather({name: (4 * one[name] + 2 * two[name]) / 6 for name in NAMES})
    expected.step()
    torch.testing.assert_close(learner.tensors(), expected.tensors())


@pytest.mark.parametrize("kind", [PerDeviceTrunk, SharedTrunk])
def test_every_edge_round_starts_from_the_adapters_it_is_given(kind: type) -> None:
    trunk = kind(SETTINGS)
    opened(trunk, "one")
    take(trunk, 0, "one")
    averaged(trunk, "one")
    trunk.open(tensors(9), ("one",))
    assert equal(trunk.join("one", NAMES).tensors(), tensors(9))


@pytest.mark.parametrize("kind", [PerDeviceTrunk, SharedTrunk])
def test_restored_trunk_goes_on_as_the_first_would(kind: type) -> None:
    first, second = kind(SETTINGS), kind(SETTINGS)
    opened(first, "one", "two")
    take(first, 0, "one", "two")
    averaged(first, "one", "two")
    second.restore({name: value.clone() for name, value in first.moments().items()})
    for trunk in (first, second):
        opened(trunk, "one", "two")
        take(trunk, 0, "one", "two")
    assert equal(averaged(second, "one", "two"), averaged(first, "one", "two"))
    assert equal(second.moments(), first.moments())
    assert first.moments()


@pytest.mark.parametrize("order", [("one", "two", "three"), ("three", "one", "two")])
def test_shared_steps_are_those_of_the_concatenated_batch(order: tuple[str, ...]) -> None:
    trunk = SharedTrunk(SETTINGS)
    learner = opened(trunk, *order)["one"]
    for step in range(3):
        take(trunk, step, *order)
    expected = concatenated(range(3), "one", "two", "three")
    torch.testing.assert_close(learner.tensors(), expected.tensors())
    # After a step, AdamW's first moments are the gradients but for rounding: not just their signs.
    got = averaged(trunk, *order)
    torch.testing.assert_close(got, expected.tensors())
    moments = {key.removeprefix("shared/"): value for key, value in trunk.moments().items()}
    torch.testing.assert_close(moments, expected.moments())


def test_shared_adapters_stay_until_the_last_device_has_sent_its_gradients() -> None:
    trunk = SharedTrunk(SETTINGS)
    learners = opened(trunk, "one", "two")
    assert learners["one"] is learners["two"]
    take(trunk, 0, "one")
    assert equal(learners["one"].tensors(), START)
    take(trunk, 0, "two")
    assert not equal(learners["one"].tensors(), START)


def test_shared_block_counts_only_those_whose_trunk_holds_it() -> None:
    trunk = SharedTrunk(SETTINGS)
    trunk.open(START, ("one", "two"))
    learner = trunk.join("one", NAMES)
    trunk.join("two", ("b",))
    trunk.gather("one", 0, gradient_of("one", 0), ROWS["one"])
    trunk.gather("two", 0, tensors(7, ("b",)), ROWS["two"])
    expected = Learner(START, SETTINGS)
    one, two = gradient_of("one", 0), tensors(7)
    expected.gather({"a": one["a"], "b": (4 * one["b"] + 2 * two["b"]) / 6})
    expected.step()
    torch.testing.assert_close(learner.moments(), expected.moments())
    # Device two has its own copy of "a", entered with the rest of its update.
    mean = WeightedMean()
    mean.add({"a": START["a"]}, ROWS["two"])
    for peer in ("one", "two"):
        trunk.contribute(peer, ROWS[peer], mean)
    trunk.close(mean)
    got = mean.result(START)
    torch.testing.assert_close(got["a"], (4 * learner.tensors()["a"] + 2 * START["a"]) / 6)
    torch.testing.assert_close(got["b"], learner.tensors()["b"])


def test_shared_block_that_no_trunk_holds_is_not_touched() -> None:
    trunk = SharedTrunk(SETTINGS)
    trunk.open(START, ("one",))
    learner = trunk.join("one", ("b",))
    trunk.gather("one", 0, tensors(7, ("b",)), 4)
    assert torch.equal(learner.tensors()["a"], START["a"])
    mean = WeightedMean()
    trunk.contribute("one", 4, mean)
    trunk.close(mean)
    nobodys = {"a": torch.zeros(3, 2), "b": torch.zeros(3, 2)}
    assert torch.equal(mean.result(nobodys)["a"], nobodys["a"])


def test_shared_absent_gradient_counts_as_zero() -> None:
    trunk = SharedTrunk(SETTINGS)
    learner = opened(trunk, "one", "two")["one"]
    trunk.gather("one", 0, gradient_of("one", 0), 4)
    trunk.gather("two", 0, {"a": None, "b": None}, 2)
    expected = Learner(START, SETTINGS)
    expected.gather({name: value * 4 / 6 for name, value in gradient_of("one", 0).items()})
    expected.step()
    torch.testing.assert_close(learner.moments(), expected.moments())


def test_shared_refuses_a_device_that_runs_ahead_or_behind() -> None:
    trunk = SharedTrunk(SETTINGS)
    learner = opened(trunk, "one", "two")["one"]
    take(trunk, 0, "one")
    for step in (0, 1):
        with pytest.raises(ProtocolError):
            trunk.check_turn("one", step)
        with pytest.raises(ProtocolError):
            take(trunk, step, "one")
    trunk.check_turn("two", 0)
    with pytest.raises(ProtocolError):
        take(trunk, 1, "two")
    take(trunk, 0, "two")
    expected = concatenated(range(1), "one", "two")
    torch.testing.assert_close(learner.tensors(), expected.tensors())
    with pytest.raises(ProtocolError):
        trunk.check_turn("two", 0)
    trunk.check_turn("two", 1)


def test_shared_goes_on_without_a_device_lost_before_its_gradients() -> None:
    trunk = SharedTrunk(SETTINGS)
    learner = opened(trunk, "one", "two", "three")["one"]
    take(trunk, 0, "one", "two", "three")
    take(trunk, 1, "one", "three")
    trunk.lose("two")  # the one that all waited for
    take(trunk, 2, "one", "three")
    expected = concatenated(range(1), "one", "two", "three")
    for step in (1, 2):
        expected.gather(
            {
                name: (4 * gradient_of("one", step)[name] + gradient_of("three", step)[name]) / 5
                for name in NAMES
            }
        )
        expected.step()
    torch.testing.assert_close(learner.tensors(), expected.tensors())
    torch.testing.assert_close(averaged(trunk, "one", "three"), expected.tensors())


def test_shared_counts_gradients_sent_before_the_device_was_lost() -> None:
    trunk = SharedTrunk(SETTINGS)
    learner = opened(trunk, "one", "two")["one"]
    take(trunk, 0, "two")
    trunk.lose("two")
    assert equal(learner.tensors(), START)
    take(trunk, 0, "one")
    expected = concatenated(range(1), "one", "two")
    torch.testing.assert_close(learner.tensors(), expected.tensors())


def test_shared_survives_a_device_lost_after_its_update() -> None:
    trunk = SharedTrunk(SETTINGS)
    learner = opened(trunk, "one", "two")["one"]
    take(trunk, 0, "one", "two")
    mean = WeightedMean()
    trunk.contribute("one", 4, mean)
    trunk.lose("one")
    trunk.contribute("two", 2, mean)
    trunk.close(mean)
    torch.testing.assert_close(mean.result(START), learner.tensors())


@pytest.mark.parametrize("kind", [PerDeviceTrunk, SharedTrunk])
def test_all_lost_leaves_nothing_to_average(kind: type) -> None:
    trunk = kind(SETTINGS)
    opened(trunk, "one", "two")
    take(trunk, 0, "one")
    trunk.lose("two")
    trunk.lose("one")
    assert equal(averaged(trunk), START)
    opened(trunk, "one")
    take(trunk, 0, "one")
    assert not equal(averaged(trunk, "one"), START)


@pytest.mark.parametrize("kind", [PerDeviceTrunk, SharedTrunk])
def test_reset_keeps_no_moments(kind: type) -> None:
    trunk = kind(RESET)
    opened(trunk, "one")
    take(trunk, 0, "one")
    averaged(trunk, "one")
    assert trunk.moments() == {}


def in_sequence(*turns: tuple[str, int]) -> Learner:
    """A learner that takes the batch of each peer's step in turn."""
    learner = Learner(START, SETTINGS)
    for peer, step in turns:
        learner.gather(gradient_of(peer, step))
        learner.step()
    return learner


def test_in_sequence_each_device_goes_on_from_what_the_one_before_it_left() -> None:
    trunk = SequentialTrunk(SETTINGS)
    learners = opened(trunk, "one", "two")
    assert learners["one"] is learners["two"]
    for step in (0, 1):
        take(trunk, step, "one", "two")
    expected = in_sequence(("one", 0), ("two", 0), ("one", 1), ("two", 1))
    assert equal(averaged(trunk, "one", "two"), expected.tensors())
    other = in_sequence(("two", 0), ("one", 0), ("two", 1), ("one", 1))
    assert not equal(expected.tensors(), other.tensors())


@pytest.mark.parametrize(("peer", "step"), [("two", 0), ("one", 1)])
def test_in_sequence_nobody_comes_before_its_turn(peer: str, step: int) -> None:
    trunk = SequentialTrunk(SETTINGS)
    opened(trunk, "one", "two")
    with pytest.raises(ProtocolError, match="device one is due with 0"):
        trunk.check_turn(peer, step)
    with pytest.raises(ProtocolError):
        take(trunk, step, peer)
    take(trunk, 0, "one")
    trunk.check_turn("two", 0)


@pytest.mark.parametrize("lost", ["one", "two", "three"])
@pytest.mark.parametrize("when", range(4))
def test_in_sequence_a_lost_device_holds_up_nobody(lost: str, when: int) -> None:
    """Whenever it is lost, the others' turns come in their order, each once a step."""
    trunk, peers = SequentialTrunk(SETTINGS), ["one", "two", "three"]
    opened(trunk, *peers)
    turns = [(peer, step) for step in (0, 1) for peer in peers]
    taken = turns[:when]
    for peer, step in taken:
        take(trunk, step, peer)
    trunk.lose(lost)
    trunk.lose(lost)
    left = [(peer, step) for peer, step in turns[when:] if peer != lost]
    for peer, step in left:
        trunk.check_turn(peer, step)
        take(trunk, step, peer)
    assert equal(
        averaged(trunk, *(it for it in peers if it != lost)), in_sequence(*taken, *left).tensors()
    )
