"""The cloud's view of its devices: who is asked what, who counts, who goes where."""

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Literal

import pytest
import torch
from torch import Tensor

from elsa.core.assign import Rules
from elsa.core.fingerprint import fingerprint, packed
from elsa.core.moves import packed_move
from elsa.core.trust import TrustRules, packed_answers, packed_step
from elsa.errors import ProtocolError
from elsa.roles.overseer import Overseer, Policy, Regrouping, Strategy
from elsa.wire.watching import Behaviours, DeviceBehaviour

PROBES, AXES, SIZE = 20, 4, 30_000  # as many numbers as a real step has, for a sketch of 4,096
DEVICES = tuple(f"d{number}" for number in range(8))
EDGES = ("e0", "e1")
FLAT = torch.full((8, 2), 0.01, dtype=torch.float64)


def overseer(
    strategy: Strategy,
    *,
    trust: bool = False,
    every: int = 2,
    latency: Tensor = FLAT,
    room: Sequence[int] = (4, 4),
    limit: float = math.inf,
    kind: Literal["move", "gaussian"] = "move",
) -> Overseer:
    rules = Rules(room, limit, 0.2, 0.05)
    judging = TrustRules(0.5, 0.5) if trust else None
    policy = Policy(strategy, 2, every, rules, PROBES, AXES, judging, seed=3, fingerprint=kind)
    return Overseer(policy, DEVICES, EDGES, latency)


def row(name: str, *, far: bool = False, sign: float = 1.0, whole: bool = True) -> DeviceBehaviour:
    """A device of one of two groups, that goes the common way, or with sign -1 back."""
    number = int(name[1:])
    own, common = torch.Generator().manual_seed(number), torch.Generator().manual_seed(77)
    centre = torch.tensor([1.0, 0.0, 0.0, 0.0] if far else [0.0, 1.0, 0.0, 0.0])
    went = torch.nn.functional.normalize(centre + 0.1 * torch.randn(AXES, generator=own), dim=0)
    step = torch.randn(SIZE, generator=common) + torch.randn(SIZE, generator=own)
    told = torch.randn(PROBES, 3, generator=common) + 0.5 * torch.randn(PROBES, 3, generator=own)
    return DeviceBehaviour(
        name,
        "",
        packed_move(went) if whole else b"",
        packed_step({"b": torch.zeros(SIZE)}, {"b": sign * step}),
        packed_answers(sign * told),
    )


def report(cloud: Overseer, round_: int = 0, bad: Sequence[str] = ()) -> dict[str, Behaviours]:
    """Odd devices are of the far group; all send fingerprints."""
    return {
        edge: Behaviours(
            round_,
            0,
            tuple(
                row(it, far=int(it[1:]) % 2 == 1, sign=-1.0 if it in bad else 1.0) for it in devices
            ),
        )
        for edge, devices in cloud.assignment().items()
    }


def test_none_deals_in_turn_and_random_by_the_seed() -> None:
    assert overseer("none").assignment() == {"e0": DEVICES[::2], "e1": DEVICES[1::2]}
    dealt = overseer("random").assignment()
    assert dealt == overseer("random").assignment() != overseer("none").assignment()
    assert sorted(map(len, dealt.values())) == [4, 4]


@pytest.mark.parametrize("strategy", ["latency", "behaviour", "mixed"])
def test_the_others_begin_with_the_nearest_edge_that_has_room(strategy: Strategy) -> None:
    latency = FLAT.clone()
    latency[:5, 1] = 0.005
    latency[0, 1] = 0.001
    placed = overseer(strategy, latency=latency).placed
    assert placed["d0"] == "e1"
    assert sum(edge == "e1" for edge in placed.values()) == 4
    (place,) = (it for it in overseer(strategy, latency=latency).first.places if it.device == "d0")
    assert "1 ms away" in place.why


def test_who_is_beyond_the_limit_is_left_out_with_the_reason() -> None:
    latency = FLAT.clone()
    latency[3] = 0.5
    cloud = overseer("latency", latency=latency, limit=0.1)
    (place,) = (it for it in cloud.first.places if not it.edge)
    assert place.device == "d3"
    assert place.why.startswith("no edge within the latency limit of 100 ms")
    assert "d3" not in {name for names in cloud.assignment().values() for name in names}


def test_only_what_is_needed_is_asked() -> None:
    assert overseer("none").asks(0, 3) == (0, False)
    assert overseer("latency").asks(0, 3) == (0, False)
    plain = overseer("behaviour")
    assert [plain.asks(round_, 3) for round_ in range(3)] == [(1, True), (0, False), (1, True)]
    judging = overseer("none", trust=True)
    assert [judging.asks(round_, 3) for round_ in range(2)] == [(3, True), (3, False)]
    once = overseer("mixed", every=0)
    assert [once.asks(round_, 3) for round_ in range(2)] == [(1, True), (0, False)]


def test_similar_devices_come_together_and_mixed_ones_apart() -> None:
    wanted: dict[Strategy, set[int]] = {"behaviour": {0, 4}, "mixed": {2}}
    for strategy, shares in wanted.items():
        cloud = overseer(strategy)
        cloud.judge(report(cloud))
        made = cloud.regroup(0)
        assert made is not None
        assert len(set(made.labels)) == 2
        far = [sum(int(it[1:]) % 2 for it in names) for names in cloud.assignment().values()]
        assert set(far) == shares
        assert made.apart.shape == (8, 8)
        assert {it.device: it.edge for it in made.places} == cloud.placed
        assert all("cluster" in it.why for it in made.places)


def test_fingerprints_as_the_paper_has_them_tell_groups_apart_too() -> None:
    cloud = overseer("behaviour", kind="gaussian")
    lying = {
        name: fingerprint(
            torch.randn(PROBES, AXES, generator=torch.Generator().manual_seed(number))
            + 5.0 * (number % 2)
        )
        for number, name in enumerate(DEVICES)
    }
    told = {
        edge: replace(
            each,
            behaviours=tuple(
                replace(it, fingerprint=packed(lying[it.device])) for it in each.behaviours
            ),
        )
        for edge, each in report(cloud).items()
    }
    cloud.judge(told)
    made = cloud.regroup(0)
    assert made is not None
    groups = {label: {int(it[1:]) % 2 for it in names} for label, names in _members(made).items()}
    assert sorted(groups.values()) == [{0}, {1}]


def _members(made: Regrouping) -> dict[int, list[str]]:
    found: dict[int, list[str]] = {}
    for name, label in zip(made.devices, made.labels, strict=True):
        found.setdefault(label, []).append(name)
    return found


def test_nothing_moves_back_and_forth() -> None:
    cloud = overseer("behaviour")
    cloud.judge(report(cloud))
    cloud.regroup(0)
    before = dict(cloud.placed)
    cloud.judge(report(cloud, 2))
    again = cloud.regroup(2)
    assert again is not None
    assert cloud.placed == before
    assert all("stays" in it.why for it in again.places)
    assert cloud.regroup(3) is None  # without new fingerprints


def test_who_was_not_seen_stays_and_keeps_its_room() -> None:
    cloud = overseer("behaviour")
    told = {
        edge: Behaviours(0, 0, tuple(it for it in each.behaviours if it.device not in ("d0", "d1")))
        for edge, each in report(cloud).items()
    }
    before = dict(cloud.placed)
    cloud.judge(told)
    made = cloud.regroup(0)
    assert made is not None
    assert "d0" not in made.devices
    assert (cloud.placed["d0"], cloud.placed["d1"]) == (before["d0"], before["d1"])
    assert sorted(map(len, cloud.assignment().values())) == [4, 4]


def test_who_goes_back_counts_for_nothing_and_is_in_no_cluster() -> None:
    cloud = overseer("behaviour", trust=True)
    verdicts, standings = cloud.judge(report(cloud, bad=("d1", "d4")))
    weights = {it.device: it.trust for each in verdicts.values() for it in each.verdicts}
    assert {name for name, it in weights.items() if it == 0} == {"d1", "d4"}
    assert min(it for name, it in weights.items() if name not in ("d1", "d4")) > 0.5
    assert {it.device for it in standings if it.reason} >= {"d1", "d4"}
    cloud.judge(report(cloud, bad=("d1", "d4")))
    made = cloud.regroup(0)
    assert made is not None
    assert not {"d1", "d4"} & set(made.devices)
    assert all(cloud.placed.values())


def test_without_trust_everybody_counts() -> None:
    cloud = overseer("behaviour")
    verdicts, standings = cloud.judge(report(cloud, bad=("d1",)))
    assert {it.trust for each in verdicts.values() for it in each.verdicts} == {1.0}
    assert standings == ()


def test_edges_that_are_not_together_or_claim_one_device_are_refused() -> None:
    cloud = overseer("behaviour")
    told = report(cloud)
    with pytest.raises(ProtocolError, match="different edge rounds"):
        cloud.judge(told | {"e1": Behaviours(0, 1, ())})
    with pytest.raises(ProtocolError, match="one device"):
        cloud.judge(told | {"e1": told["e0"]})


def test_state_is_all_there_is_to_know() -> None:
    cloud, other = overseer("behaviour", trust=True), overseer("behaviour", trust=True)
    cloud.judge(report(cloud, bad=("d2",)))
    cloud.regroup(0)
    other.restore(cloud.state())
    assert other.state() == cloud.state()
    assert other.assignment() == cloud.assignment()
    one, two = cloud.judge(report(cloud, 2)), other.judge(report(other, 2))
    assert one == two
