"""Temporal coding: less is sent, errors stay bounded, and no loss of memory is ever silent."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from elsa.core.codec import Frame, Packet
from elsa.core.temporal import Temporal
from elsa.core.waterfill import WaterFill
from elsa.errors import CacheMiss, CodecError

HIDDEN = 96
COST = 2 * 3 * HIDDEN + 64
"""Bytes that a sample of three tokens takes."""
NOTHING = 4 + 4 + 2 + 1
"""Bytes of a filled change of six tokens, none of them sent: tag, scale, bits."""


def make(error: float = 0.2, capacity: int = 10**6, folder: Path | None = None) -> Temporal:
    return Temporal(WaterFill(error), capacity, folder)


def values(seed: int, samples: int = 2) -> Tensor:
    return torch.randn(3 * samples, HIDDEN, generator=torch.Generator().manual_seed(seed))


def frame(samples: Sequence[int], seed: int = 0) -> Frame:
    return Frame((3,) * len(samples), seed, tuple(samples))


def error(got: Tensor, wanted: Tensor) -> float:
    return float((got - wanted).norm() / wanted.norm())


def builds(packet: Packet) -> int:
    """The samples that build on what is remembered, as bits."""
    return packet.payload[0]


def test_full_then_little_then_nothing() -> None:
    sender, receiver, x = make(), make(), values(0)
    y = x + 0.3 * values(1)
    sizes, errors = [], []
    for step, now in enumerate((x, y, y, y)):
        packet = sender.encode(now, frame((5, 9), step))
        sizes.append(len(packet.payload))
        errors.append(error(receiver.decode(packet, frame((5, 9), step)), now))
    assert sizes[0] > 2 * sizes[1] > 2 * sizes[2]
    assert sizes[2:] == [1 + 8 + NOTHING] * 2
    assert max(errors) < 0.22


def test_each_sample_goes_its_own_way() -> None:
    sender, receiver, x = make(), make(), values(0, 3)
    receiver.decode(sender.encode(x, frame((1, 2, 3))), frame((1, 2, 3)))
    y = x.clone()
    y[3:6] += 0.5 * values(1, 1)  # the second sample changes; a fourth takes the third's place
    packet = sender.encode(y, frame((1, 2, 4)))
    assert builds(packet) == 0b011
    assert error(receiver.decode(packet, frame((1, 2, 4))), y) < 0.22


@settings(deadline=None, max_examples=30)
@given(
    st.floats(0.1, 0.5),
    st.integers(0, 6) | st.none(),
    st.lists(
        st.tuples(
            st.lists(st.integers(0, 5), min_size=1, max_size=4, unique=True),
            st.integers(0, 2**20),
            st.sampled_from(["arrives", "lost", "forgets"]),
        ),
        min_size=1,
        max_size=12,
    ),
)
def test_whatever_happens_the_error_is_bounded_and_ends_agree(
    allowed: float, room: int | None, turns: list[tuple[list[int], int, str]]
) -> None:
    # Packets get lost, the receiver restarts, there is room for few samples: after each exchange
    # what is decoded is right.
    capacity = 10**6 if room is None else room * COST
    sender, receiver = make(allowed, capacity), make(allowed, capacity)
    for samples, seed, event in turns:
        x, at = values(seed % 5, len(samples)), frame(samples, seed)
        packet = sender.encode(x, at)
        if event == "lost":
            continue
        if event == "forgets":
            receiver = make(allowed, capacity)
        try:
            got = receiver.decode(packet, at)
        except CacheMiss:
            got = receiver.decode(sender.encode(x, at, full=True), at)
        assert error(got, x) <= 1.15 * allowed


def test_equal_ends_never_miss_though_room_is_short() -> None:
    sender, receiver = make(capacity=3 * COST), make(capacity=3 * COST)
    draw = torch.Generator().manual_seed(0)
    for step in range(60):
        samples = torch.randperm(5, generator=draw)[:2].tolist()
        at = frame(samples, step)
        receiver.decode(sender.encode(values(step % 3), at), at)


def test_errors_do_not_pile_up() -> None:
    # An open loop of coarse changes would drift like a random walk.
    sender, receiver, x = make(), make(), values(0)
    draw = torch.Generator().manual_seed(1)
    for step in range(100):
        x = x + 0.05 * torch.randn(x.shape, generator=draw)
        got = receiver.decode(sender.encode(x, frame((0, 1), step)), frame((0, 1), step))
    assert error(got, x) < 0.22


@pytest.mark.parametrize("odd", [float("inf"), float("nan")])
def test_known_sample_that_diverges_is_not_passed_over(odd: float) -> None:
    # Compared with infinity any change is small.
    sender, x = make(), values(0)
    sender.encode(x, frame((0, 1)))
    x[4, 2] = odd
    with pytest.raises(CodecError, match="not finite"):
        sender.encode(x, frame((0, 1)))


def test_change_larger_than_the_sample_is_sent_in_full() -> None:
    sender, receiver, at = make(), make(), frame((0, 1))
    receiver.decode(sender.encode(values(0), at), at)
    packet = sender.encode(-values(0), at)
    assert builds(packet) == 0
    receiver.decode(packet, at)
    # The sender must know that what it held before is gone.
    assert error(receiver.decode(sender.encode(-values(0), at), at), -values(0)) < 0.22


def test_sample_that_did_not_change_is_young_again() -> None:
    sender = make(0.5, 2 * COST)
    for sample in (1, 2, 1, 3):
        sender.encode(values(sample, 1), frame((sample,)))
    known = [builds(sender.encode(values(sample, 1), frame((sample,)))) for sample in (1, 2)]
    assert known == [1, 0]


def test_sample_of_another_length_is_sent_in_full() -> None:
    sender, receiver = make(0.5), make(0.5)
    receiver.decode(sender.encode(values(0), frame((0, 1))), frame((0, 1)))
    at = Frame((2, 4), 0, (0, 1))
    packet = sender.encode(values(0), at)
    assert builds(packet) == 0
    assert error(receiver.decode(packet, at), values(0)) < 0.55


def test_frame_without_numbers_is_sent_in_full_and_forgotten() -> None:
    sender, receiver, at = make(), make(), Frame((3, 3), 0)
    for _ in range(2):
        packet = sender.encode(values(0), at)
        assert builds(packet) == 0
        assert error(receiver.decode(packet, at), values(0)) < 0.22
    assert not len(sender.state()["samples"])
    assert not len(receiver.state()["samples"])


@pytest.mark.parametrize("event", ["restart", "lost", "twice", "other order"])
def test_receiver_that_holds_something_else_says_so(event: str) -> None:
    sender, receiver, x = make(), make(), values(0)
    receiver.decode(sender.encode(x, frame((1, 2))), frame((1, 2)))
    second = sender.encode(values(1) * 0.4 + x, frame((1, 2)))
    assert builds(second) == 0b11
    at = frame((1, 2))
    if event == "restart":
        receiver = make()
    elif event == "lost":
        second = sender.encode(x, at)
    elif event == "twice":
        receiver.decode(second, at)
    else:
        at = frame((2, 1))
    with pytest.raises(CacheMiss, match=r"2 samples .* must send them in full"):
        receiver.decode(second, at)
    healed = receiver.decode(sender.encode(x, at, full=True), at)
    assert error(healed, x) < 0.22
    receiver.decode(sender.encode(x, at), at)  # and from here on changes work again


@pytest.mark.parametrize("change", [{"payload": b"\x55"}, {"shape": (6, 8)}, {"payload": b"\xff"}])
def test_refused_packet_changes_nothing(change: dict[str, object]) -> None:
    sender, receiver, x = make(), make(), values(0)
    first = sender.encode(x, frame((1, 2)))
    receiver.decode(first, frame((1, 2)))
    before = receiver.state()
    packet = sender.encode(x + values(1) * 0.4, frame((1, 2)))
    with pytest.raises(CodecError):
        receiver.decode(replace(packet, **change), frame((1, 2)))  # type: ignore[arg-type]
    after = receiver.state()
    assert all(torch.equal(before[key], after[key]) for key in before)
    receiver.decode(packet, frame((1, 2)))


@pytest.mark.parametrize("on_disk", [False, True])
def test_both_ends_survive_a_restart(tmp_path: Path, on_disk: bool) -> None:
    folders = [tmp_path / "sender", tmp_path / "receiver"] if on_disk else [None, None]
    first = [make(folder=folder) for folder in folders]
    first[1].decode(first[0].encode(values(0), frame((1, 2))), frame((1, 2)))
    ends = [make(folder=folder) for folder in folders]
    for end, old in zip(ends, first, strict=True):
        end.restore(old.state())
    x = values(0) + values(1) * 0.4
    packet = ends[0].encode(x, frame((1, 2)))
    assert builds(packet) == 0b11
    assert error(ends[1].decode(packet, frame((1, 2))), x) < 0.22


def test_restart_from_an_older_checkpoint_heals(tmp_path: Path) -> None:
    # Both went on after the checkpoint; the sender's disk is newer than what it goes back to.
    sender, receiver, x = make(folder=tmp_path), make(), values(0)
    receiver.decode(sender.encode(x, frame((1, 2))), frame((1, 2)))
    old = sender.state(), receiver.state()
    receiver.decode(sender.encode(x + 0.5 * values(1), frame((1, 2))), frame((1, 2)))
    sender.restore(old[0])
    receiver.restore(old[1])
    packet = sender.encode(x, frame((1, 2)))
    assert builds(packet) == 0  # it knows that it has lost them
    assert error(receiver.decode(packet, frame((1, 2))), x) < 0.22


def test_settings_are_part_of_the_name() -> None:
    assert len({make().name, make(0.3).name, make(capacity=9).name}) == 3


@pytest.mark.parametrize("samples", [(1,), (1, 1), (-1, 2), (1, 2**63)])
def test_numbers_of_samples_must_fit(samples: tuple[int, ...]) -> None:
    at = Frame((3, 3), 0, samples)
    with pytest.raises(CodecError, match="sample"):
        make().encode(values(0), at)
    with pytest.raises(CodecError, match="sample"):
        make().decode(make().encode(values(0), frame((1, 2))), at)
