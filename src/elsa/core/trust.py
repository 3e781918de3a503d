"""Trust: does a device's update agree with those of others at its task?

All devices of an edge round start from the same adapters, so what differs is each device's own
doing. Two things are compared, both made of what a device submitted, neither by the device itself:

- *its step*: the change of LoRA's B, as a sign sketch (Charikar et al. 2002, doi
  10.1007/3-540-45465-9_59, one bit a bucket) and its norm. It shows a sign flip, noise, a free
  rider, a scaled update. (A starts at numbers that all share, and so does noise in place of it.)
- *its predictions*: what its head makes of the public probes that the old head did not, on the
  states that all started from, without the mean over probes, which is the device's share of labels.
  It shows permuted labels, which move scores the wrong way, already while the head is fresh: then
  the states still move by the head's random numbers, and say nothing.

With u a device's directions and c the coordinate-wise median of those of the others, its agreement
is a = sum_j <u_j, c_j> / sum_j |c_j|, so a probe counts by how sure the consensus is (ELSA, arXiv
2601.13824, takes prediction consistency with a consensus). With s and p a device's agreements of
steps and predictions, each over its median among those that have a say (ones where that is at most
`LEAST`: where nobody agrees with anybody, nobody is told apart),

    score = 1 - says max(0, 1 - 2 p) - max(0, 1 - 2 s - 2 says max(0, p) - narrow)

so predictions that go against the usual convict whatever the step. Predictions that agree excuse a
step that agrees with nobody, as honest ones do while a head is fresh, but not one that goes back.
A device of one class moves its head along one direction, so what it says of the differences
between probes is no ground for distrust, and its step agrees with nobody: says is a ramp,
`BREADTH`, of the second singular value of these differences over the first, and narrow is
1 - says. Of two classes there is one direction for everybody: says is 1 and narrow 0. Without
classes both are 0. The consensus is taken `PASSES` times in all, at first over all devices, then
over those whose score was at least `SAY`.

An edge round is evidence as far as steps agree at all, a ramp, `EVIDENCE`, of the usual agreement:
once a task is learned, steps are noise, honest devices with unlike data disagree, and attackers
look like them. Trust is the mean of what edge rounds said, each weighted by its evidence; one that
is none neither wears trust down nor brings it back.

Shapes: N devices, Q probes, C classes, Z buckets of a sketch.
"""

import hashlib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from elsa.errors import BehaviourError

BUCKETS = 4096
"""Z: what noise agrees with anything by is about 1 / sqrt(Z)."""
LEAST = 0.1
"""Usual agreement up to which nobody is judged by it; 6 / sqrt(Z), so hardly by chance."""
SCORE = (0.0, 0.4)
"""Score at which trust begins, and from which it is whole; honest devices have about 1."""
SAY = 0.9
"""Score from which a device has a say in the consensus."""
BREADTH = (0.15, 0.3)
"""Breadth at which predictions begin to count, and from which they count in full."""
PASSES = 4
"""Times that the consensus is taken."""
EVIDENCE = (0.1, 0.2)
"""Usual agreement of steps at which an edge round begins to be evidence, and is all of it."""
BENEFIT = 0.1
"""Evidence, in edge rounds, for a device that was never judged."""
SIZE = (3.0, 6.0)
"""Norm of a step over the median up to which trust is whole, and at which it ends."""
_LEVELS = 127
_TINY = 1e-30


@dataclass(frozen=True)
class TrustRules:
    """How trust is kept over edge rounds.

    Attributes:
        memory: part of the evidence so far that an edge round of full evidence keeps, 0 to below 1.
        least: trust below which a device does not count.
    """

    memory: float
    least: float


class Trust(NamedTuple):
    """What is thought of a device.

    Attributes:
        value: 0 to 1.
        evidence: how much it rests on, in edge rounds.
    """

    value: float = 1.0
    evidence: float = BENEFIT


@dataclass(frozen=True, eq=False)
class Judged:
    """What an edge round says of each device.

    Attributes:
        step, prediction: agreements [N], -1 to 1 or so.
        trust: [N], 0 to 1, of this edge round alone.
        evidence: [N], 0 to 1, how much it says.
        reasons: why trust is below 1, by the device's number.
    """

    step: Tensor
    prediction: Tensor
    trust: Tensor
    evidence: Tensor
    reasons: dict[int, str]


def packed_step(before: Mapping[str, Tensor], after: Mapping[str, Tensor]) -> bytes:
    """The change of the adapters in `after`: its norm, float32, and Z signs of its sketch.

    Raises:
        BehaviourError: a value is not finite.
    """
    sketch, squared = torch.zeros(BUCKETS), 0.0
    for name in sorted(after):
        change = (after[name].float() - before[name].float()).flatten()
        buckets, signs = _hashes(name, len(change))
        sketch.index_add_(0, buckets, change * signs)
        squared += float(change.double().square().sum())
    if not math.isfinite(squared):
        raise BehaviourError("its adapters changed by NaN or infinity; its training diverged")
    norm: bytes = np.float32(min(math.sqrt(squared), 1e30)).astype("<f4").tobytes()
    # An empty bucket says nothing; the same sign of it from all devices would look like agreement.
    empty = sketch == 0
    digest = hashlib.blake2b(sketch.numpy().tobytes(), digest_size=8).digest()
    draw = torch.Generator().manual_seed(int.from_bytes(digest, "little") >> 1)
    sketch[empty] = torch.randn(BUCKETS, generator=draw)[empty]
    return norm + np.packbits(sketch.numpy() > 0).tobytes()


def unpacked_step(data: bytes) -> tuple[float, Tensor]:
    """The norm, and the directions [Z] of length 1, zero where nothing changed.

    Raises:
        BehaviourError: it is of another length, or the norm is not finite.
    """
    if len(data) != 4 + BUCKETS // 8:
        raise BehaviourError(f"step of {len(data)} bytes; {4 + BUCKETS // 8} are due")
    norm = float(np.frombuffer(data[:4], "<f4")[0])
    if not 0 <= norm < math.inf:
        raise BehaviourError(f"step of norm {norm}")
    bits = torch.from_numpy(np.unpackbits(np.frombuffer(data[4:], np.uint8)).astype(np.float32))
    return norm, (2 * bits - 1) / math.sqrt(BUCKETS) * (norm > 0)


def packed_answers(moved: Tensor) -> bytes:
    """How far each probe's scores moved [Q, C]: a unit, float32, and numbers of 8 bits.

    Raises:
        BehaviourError: a value is not finite.
    """
    if not bool(torch.isfinite(moved).all()):
        raise BehaviourError("its answers to the probes hold NaN or infinity; its model diverged")
    unit = min(max(float(moved.abs().max()) / _LEVELS, _TINY), 1e30) if moved.numel() else _TINY
    numbers = (moved.double() / unit).round().clamp(-_LEVELS, _LEVELS)
    head: bytes = np.float32(unit).astype("<f4").tobytes()
    return head + numbers.to(torch.int8).numpy().tobytes()


def unpacked_answers(data: bytes, probes: int) -> Tensor:
    """The moves [Q, C] that `packed_answers` wrote; C follows from the length, and may be 0.

    Raises:
        BehaviourError: it is of a length that no C has, or its unit is not above 0 and finite.
    """
    if len(data) < 4 or (len(data) - 4) % probes:
        raise BehaviourError(f"answers of {len(data)} bytes, which fit no {probes} probes")
    unit = float(np.frombuffer(data[:4], "<f4")[0])
    if not 0 < unit < math.inf:
        raise BehaviourError(f"answers in units of {unit}")
    numbers = np.frombuffer(data[4:], np.int8).reshape(probes, -1)
    return torch.from_numpy(numbers.astype(np.float32)) * unit


def agreements(directions: Tensor, kept: Tensor) -> Tensor:
    """a [N] of directions [N, J, m], each against the median of the others that are kept.

    `kept` [N] is true for those that have a say; 0 where nobody else has, and of nothing to say.
    """
    found = torch.zeros(len(directions))
    for number in range(len(directions)):
        others = kept.clone()
        others[number] = False
        if directions.numel() and bool(others.any()):
            consensus = directions[others].quantile(0.5, dim=0)
            sure = torch.linalg.vector_norm(consensus, dim=-1).sum()
            if float(sure) > 0:
                found[number] = (directions[number] * consensus).sum() / sure
    return found


def differences(moved: Tensor) -> Tensor:
    """What moves [N, Q, C] of scores say of the differences between probes.

    Returns:
        Directions [N, Q, C] of length 1, without what all classes or all probes share.
    """
    apart = _apart(moved)
    lengths: Tensor = torch.linalg.vector_norm(apart, dim=2, keepdim=True)
    return apart / lengths.clamp(min=_TINY)


def breadth(moved: Tensor) -> Tensor:
    """Second singular value over the first of what moves [N, Q, C] say of differences, [N].

    0 of a head that moved along one direction, 1 where nothing moved.
    """
    sizes = torch.linalg.svdvals(_apart(moved))[:, :2]
    first = sizes[:, 0].clamp(min=_TINY)
    return torch.where(sizes[:, 0] > _TINY, sizes[:, -1] / first, torch.ones_like(first))


def judge(
    steps: Sequence[tuple[float, Tensor]], answers: Sequence[Tensor], tasks: Sequence[str]
) -> Judged:
    """Judge the devices of an edge round; fewer than three of a task cannot be judged.

    Args:
        steps: of each device, as `unpacked_step` gives it.
        answers: moves [Q, C] of each device, C that of its task.
        tasks: of each device; devices are compared with those of the same task and C.
    """
    count = len(steps)
    step, prediction = torch.zeros(count), torch.zeros(count)
    trust, evidence, reasons = torch.ones(count), torch.zeros(count), dict[int, str]()
    kinds = [(task, it.shape[1]) for task, it in zip(tasks, answers, strict=True)]
    for task, width in sorted(set(kinds)):
        members = [device for device, kind in enumerate(kinds) if kind == (task, width)]
        if len(members) < 3:
            continue
        directions = torch.stack([steps[device][1] for device in members])[:, None]
        told = torch.stack([answers[device] for device in members])
        says = torch.full((len(members),), float(width == 2))
        if width > 2:
            says = _ramp(breadth(told), *BREADTH)
        narrow = (1 - says) * (width > 2)
        agreed, moved, shares, kept = _scored(directions, differences(told), says, narrow)
        sure = _ramp(agreed[kept].quantile(0.5), *EVIDENCE)
        times = _over(torch.tensor([steps[device][0] for device in members]), kept, 0.0)
        now = torch.minimum(_ramp(shares[2], *SCORE), 1 - _ramp(times, *SIZE))
        for place, device in enumerate(members):
            step[device], prediction[device] = agreed[place], moved[place]
            trust[device], evidence[device] = now[place], sure
            if float(now[place]) < 1:
                reasons[device] = (
                    f"its step agrees {float(shares[0][place]):.2f} and its predictions "
                    f"{float(shares[1][place]):.2f} of what is usual, and its step is "
                    f"{float(times[place]):.2f} times as long"
                )
    return Judged(step, prediction, trust, evidence, reasons)


def _scored(
    directions: Tensor, told: Tensor, says: Tensor, narrow: Tensor
) -> tuple[Tensor, Tensor, tuple[Tensor, Tensor, Tensor], Tensor]:
    """Agreements of steps and predictions; both over what is usual, and the score; who has a say.

    `says` [N] is how much predictions count, `narrow` [N] how much nothing is made of a step.
    """
    kept = torch.ones(len(directions), dtype=torch.bool)
    for _ in range(PASSES):
        agreed, moved = agreements(directions, kept), agreements(told, kept)
        step, prediction = _over(agreed, kept, LEAST), _over(moved, kept, LEAST)
        # Predictions that nobody is judged by excuse nobody either.
        counts = says * (moved[kept].quantile(0.5) > LEAST)
        score = scores(step, prediction, counts, narrow)
        able = score >= SAY
        if int(able.sum()) < 3:
            break
        kept = able
    return agreed, moved, (step, prediction, score), kept


def scores(step: Tensor, prediction: Tensor, says: Tensor, narrow: Tensor) -> Tensor:
    """The score [N] of agreements over what is usual [N], as the module has it."""
    for_step = 2 * says * prediction.clamp(min=0) + narrow
    against = says * (1 - 2 * prediction).clamp(min=0)
    return 1 - against - (1 - 2 * step - for_step).clamp(min=0)


def remembered(before: Trust, now: float, evidence: float, rules: TrustRules) -> Trust:
    """Trust after an edge round that said `now` with so much evidence."""
    kept = before.evidence * rules.memory**evidence
    known = kept + evidence
    if known == 0:
        return before
    return Trust(before.value + evidence / known * (now - before.value), known)


def weight(trust: float, now: float, evidence: float, rules: TrustRules) -> float:
    """What a device's rows count: its trust, or nothing where that or this edge round is too low.

    Half of `least` in one edge round of full evidence is so low that nobody waits for the memory to
    fade.
    """
    bad = 1 - evidence * (1 - now) < rules.least / 2
    return trust if trust >= rules.least and not bad else 0.0


def _apart(moved: Tensor) -> Tensor:
    told = moved - moved.mean(2, keepdim=True)
    return told - told.mean(1, keepdim=True)


def _over(values: Tensor, kept: Tensor, least: float) -> Tensor:
    """In units of the median of those kept; ones where that is at most `least`: none is judged."""
    usual = values[kept].quantile(0.5)
    return values / usual if float(usual) > least else torch.ones_like(values)


def _ramp(values: Tensor, low: float, high: float) -> Tensor:
    return ((values - low) / (high - low)).clamp(0, 1)


@lru_cache(maxsize=1024)
def _hashes(name: str, count: int) -> tuple[Tensor, Tensor]:
    """Bucket and sign of each number of a tensor, alike everywhere."""
    seed = int.from_bytes(hashlib.blake2b(name.encode(), digest_size=8).digest(), "little") >> 1
    draw = torch.Generator().manual_seed(seed)
    buckets = torch.randint(BUCKETS, (count,), generator=draw)
    signs = torch.randint(2, (count,), generator=draw).float() * 2 - 1
    return buckets, signs
