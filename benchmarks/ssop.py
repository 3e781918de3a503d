"""What does SS-OP cost in accuracy, and what does it keep from an attacker?

One model in one place, trained through both cuts with the perturbation on (MiniLM, TREC-6,
1,500 samples), and three attacks on the hidden states that the edge sees at the first
cut, before training, when the public bottom segment is the device's own. Each attack names tokens
by their nearest neighbour, cosine about the public mean, among the states of public questions
(NQ-open) run through that segment; scored on tokens that occur there, without [CLS] and [SEP].

    nearest   compares the states as they are
    outside   compares only what lies outside the public text's top directions; knows that SS-OP
              is in use and the rank (best of three numbers of directions)
    known     holds 16 of the device's texts and the states sent for them, fits the rotation
              (orthogonal Procrustes) and undoes it on later states

Prints a table, writes JSON.

    python benchmarks/ssop.py --out docs/results/ssop.json
"""

import argparse
import itertools
import statistics
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from measured import machine, print_table, write_json
from torch import Tensor
from torch.nn import functional

from elsa.config.load import load_config
from elsa.core.ragged import flat_index, pack, unpack
from elsa.core.score import Tally, tally
from elsa.core.secret import SecretSeed
from elsa.core.split import Split
from elsa.core.ssop import Fresh, Rotation, Rotations, Subspace
from elsa.data.batches import Batch, BatchStream, Examples, eval_batches
from elsa.data.sources import load_table
from elsa.data.table import Columns
from elsa.engine.build import open_sources
from elsa.engine.machine import prepare
from elsa.engine.parts import encode
from elsa.model.segments import initial_adapters
from elsa.roles.learner import Learner, OptimizerSettings

SAMPLES = 1500
BATCH = 16
DEVICE_ROWS = 430
KNOWN, VICTIMS = 200, 1400
DICTIONARY = 20_000
Draw = Callable[[int], Rotation | None]
"""The rotation of a batch, by its number."""


@dataclass(frozen=True)
class Setting:
    """A perturbation: in which directions, how far, how long, for how many devices in turn."""

    directions: str
    rank: int = 0
    angle: float = 0.0
    fresh: Fresh = "fixed"
    devices: int = 1
    bottom: int = 1
    restore: str = "same mean"


TOP = "top about mean"


def settings() -> list[Setting]:
    """All that is compared; TOP is what `Subspace.fit` does when left alone."""
    return [
        Setting("none"),
        Setting("no edge"),
        *(Setting(TOP, rank, angle) for rank in (8, 16, 64) for angle in (0.1, 0.3, 1.0)),
        *(Setting("top about zero", rank, 1.0) for rank in (16, 64)),
        *(Setting("top, keeps 1 and mean", rank, 1.0) for rank in (16, 64)),
        Setting(TOP, 128, 1.0),
        *(Setting(TOP, 384, angle) for angle in (0.3, 0.6, 0.8, 1.0)),
        *(Setting(TOP, rank, 1.0, "batch") for rank in (16, 64)),
        Setting(TOP, 384, 0.5, "batch"),
        *(Setting(TOP, rank, 1.0, devices=10) for rank in (16, 64)),
        *(Setting(TOP, 16, 1.0, restore=how) for how in ("own mean", "nothing")),
        Setting("top, quarter turns", 64, 0.5),
        Setting("unread by trunk", 64, 1.0),
        *(Setting(kind, 256, 1.0) for kind in ("random", "bottom")),
        Setting("none", bottom=3),
        *(Setting(TOP, rank, 1.0, bottom=3) for rank in (16, 64)),
    ]


class World:
    """Model, text and states, opened once."""

    def __init__(self) -> None:
        config = load_config(None)
        sources = open_sources(config)
        self.model, self.pad = sources.model, sources.tokenizer.pad_id
        self.train = encode(sources.text.train, sources.tokenizer, config)
        self.test = encode(sources.text.test, sources.tokenizer, config)
        table = load_table("nq-open", Columns(label=""))
        encoded = sources.tokenizer.encode(table.text, max_tokens=config.model.max_tokens)
        self.public = Examples([it.input_ids for it in encoded])
        self.special = torch.tensor(self.train.input_ids[0][[0, -1]]).long()
        self.order = np.random.default_rng(0).permutation(len(self.train))
        self.states = cache(self._states)

    def device_rows(self, device: int) -> Examples:
        """The rows that one of ten devices fits its subspace on."""
        start = device * DEVICE_ROWS
        return self.train.take(self.order[start : start + DEVICE_ROWS])

    def split(self, bottom: int) -> Split:
        """Cut below block `bottom`, and above the last but one."""
        return Split.of(self.model.checkpoint.blocks, bottom, 1)

    def _states(self, what: str, bottom: int, number: int = 0) -> tuple[Tensor, Tensor]:
        """States [T, D] in float32 of the untrained bottom, and token ids [T].

        `what` is "public", or "device" with its number.
        """
        rows = self.public if what == "public" else self.device_rows(number)
        segment = self.model.segments(self.split(bottom)).bottom
        segment.bind(self.untrained())
        states, tokens = [], []
        for batch in eval_batches(rows, 64, self.pad):
            index = flat_index(batch.lengths, batch.input_ids.shape[1])
            with torch.no_grad():
                hidden = segment(batch.input_ids, batch.mask, batch.token_types)
            states.append(pack(hidden, index).float())
            tokens.append(batch.input_ids.flatten()[index])
        return torch.cat(states), torch.cat(tokens)

    def untrained(self) -> dict[str, Tensor]:
        """Adapters that change nothing yet."""
        return initial_adapters(self.model.checkpoint, self.model.task, self.model.lora, 0)

    def read_by_trunk(self, bottom: int) -> Tensor:
        """Second moment [D, D] of the gradient of what the trunk adds to its input."""
        trunk = self.model.trunk(self.split(bottom))
        trunk.bind(self.untrained())
        held = self.model.segments(self.split(bottom)).bottom
        held.bind(self.untrained())
        generator = torch.Generator().manual_seed(0)
        total = torch.zeros(())
        for batch in itertools.islice(eval_batches(self.public, 64, self.pad), 20, 30):
            index = flat_index(batch.lengths, batch.input_ids.shape[1])
            with torch.no_grad():
                h1 = held(batch.input_ids, batch.mask, batch.token_types)
            h1 = h1.requires_grad_()
            added = pack(trunk(h1, batch.mask) - h1, index)
            probe = torch.randn(added.shape, generator=generator)
            (gradient,) = torch.autograd.grad((added.float() * probe).sum(), h1)
            rows = pack(gradient, index).double()
            total = total + rows.T @ rows
        return total


def subspace(world: World, setting: Setting, device: int, seed: SecretSeed) -> Subspace:
    """The subspace of a device; every kind but the first two is built here, for comparison."""
    states, _ = world.states("device", setting.bottom, device)
    kind, rank, mean, hidden = setting.directions, setting.rank, states.mean(0), states.shape[1]
    if kind in (TOP, "top, quarter turns"):
        return Subspace.fit(states, rank, seed)
    if kind == "top about zero":
        return Subspace.fit(states, rank, seed, about="origin")
    if kind == "random":
        return Subspace(torch.linalg.qr(seed.normal((hidden, rank))).Q, mean)
    spread = (states - mean).T.double() @ (states - mean).double()
    if kind == "bottom":
        return Subspace(torch.linalg.eigh(spread).eigenvectors[:, :rank], mean)
    if kind == "unread by trunk":
        # Most variance for least reading: generalised eigenvectors of the two moments.
        read = world.read_by_trunk(setting.bottom)
        read = read + read.trace() / hidden * 0.1 * torch.eye(hidden)
        values, axes = torch.linalg.eigh(read)
        white = axes / values.sqrt()
        best = torch.linalg.eigh(white.T @ spread @ white).eigenvectors[:, -rank:]
        return Subspace(torch.linalg.qr(white @ best).Q, mean)
    # Without the all-ones vector and the mean in it, LayerNorm's statistics and the norm stay.
    kept = torch.linalg.qr(torch.stack([torch.ones(hidden), mean], 1)).Q
    return Subspace.fit(states - (states @ kept) @ kept.T, rank, seed)


def quarter_turns(fitted: Subspace, rank: int, seed: SecretSeed) -> Rotation:
    """Every plane turned by the same right angle."""
    one, other = torch.linalg.qr(seed.normal((rank, rank))).Q.chunk(2, dim=1)
    return Rotation(fitted, one @ other.T - other @ one.T - torch.eye(rank))


def rotations(world: World, setting: Setting) -> Draw:
    """The rotation of each batch; devices take turns."""
    if setting.directions in ("none", "no edge"):
        return lambda _: None
    drawn = []
    for device in range(setting.devices):
        seed = SecretSeed(b"a benchmark's secret").derive("device", device)
        fitted = subspace(world, setting, device, seed.derive("subspace"))
        if setting.directions == "top, quarter turns":
            rotation = quarter_turns(fitted, setting.rank, seed)
            return lambda _: rotation
        drawn.append(Rotations(fitted, setting.angle, setting.fresh, seed))

    def draw(number: int) -> Rotation:
        return drawn[number % len(drawn)].at(0, number)

    return draw


def accuracy(world: World, setting: Setting, seed: int) -> tuple[float, float]:
    """Test accuracy after training with the rotation on: with it on, and without it."""
    draw, model = rotations(world, setting), world.model
    mean = world.states("device", setting.bottom, 0)[0].mean(0)
    held = model.segments(world.split(setting.bottom))
    trunk, top = model.trunk(world.split(setting.bottom)), held.top
    assert top is not None
    adapters = initial_adapters(model.checkpoint, model.task, model.lora, seed)
    learner = Learner(adapters, OptimizerSettings(1e-3, 0.0, keep_moments=True))

    def logits(batch: Batch, rotation: Rotation | None) -> Tensor:
        for part in (held.bottom, trunk, top):
            part.bind(learner.parameters)
        shape = batch.input_ids.shape
        index = flat_index(batch.lengths, shape[1])
        hidden = pack(held.bottom(batch.input_ids, batch.mask, batch.token_types), index)
        hidden = rotation.forward(hidden) if rotation else hidden
        if setting.directions != "no edge":
            hidden = pack(trunk(unpack(hidden, index, *shape), batch.mask), index)
        if rotation and setting.restore == "same mean":
            hidden = rotation.inverse(hidden)
        elif rotation and setting.restore == "own mean":
            shift = (hidden.detach().float().mean(0) - mean).to(hidden.dtype)
            hidden = rotation.inverse(hidden - shift) + shift
        scores: Tensor = top(unpack(hidden, index, *shape), batch.mask)
        return scores

    stream, done, number = BatchStream(world.train, BATCH, seed, True, world.pad), 0, 0
    while done < SAMPLES:
        batch = next(stream)
        torch.autograd.backward(top.loss(logits(batch, draw(number)), batch.labels))
        learner.step()
        done, number = done + len(batch.lengths), number + 1
    on, off = Tally(), Tally()
    with torch.no_grad():
        for after, batch in enumerate(eval_batches(world.test, 64, world.pad)):
            on += tally(logits(batch, draw(number + after)), batch.labels)
            off += tally(logits(batch, None), batch.labels)
    return on.accuracy, off.accuracy


def attacks(world: World, setting: Setting) -> dict[str, float]:
    """Relative movement of the states, and the share of tokens that each attack names."""
    if setting.directions == "no edge":
        return dict.fromkeys(("moved", "nearest", "outside", "known"), 0.0)
    public, names = world.states("public", setting.bottom)
    chosen = torch.from_numpy(np.random.default_rng(0).permutation(len(public))[:DICTIONARY])
    public, names = public[chosen], names[chosen]
    mean = public.mean(0)
    axes = torch.linalg.eigh((public - mean).T @ (public - mean)).eigenvectors.flip(1)
    states, tokens = world.states("device", setting.bottom, 0)
    picked = torch.randperm(len(states), generator=torch.Generator().manual_seed(0))[:VICTIMS]
    states, tokens = states[picked], tokens[picked]
    draw = rotations(world, setting)
    first, later = draw(0), draw(setting.devices)
    known, secret, truth = states[:KNOWN], states[KNOWN:], tokens[KNOWN:]
    seen_known = first.forward(known) if first else known
    seen = later.forward(secret) if later else secret
    there = torch.isin(truth, names) & ~torch.isin(truth, world.special)

    def named(guess: Tensor, directions: int = 0) -> float:
        away = axes[:, :directions]

        def frame(values: Tensor) -> Tensor:
            centred = values - mean
            return functional.normalize(centred - (centred @ away) @ away.T)

        hit = (frame(guess[there]) @ frame(public).T).argmax(1)
        return (names[hit] == truth[there]).double().mean().item()

    left, _, right = torch.linalg.svd((known - mean).T @ (seen_known - mean))
    tries = (min(setting.rank + 16, 320), min(2 * setting.rank, 320), 256)
    return {
        "moved": ((seen - secret).norm(dim=1) / secret.norm(dim=1)).mean().item(),
        "nearest": named(seen),
        "outside": max(named(seen, directions) for directions in tries),
        "known": named((seen - mean) @ (left @ right).T + mean),
    }


def study(world: World, setting: Setting, seed: int) -> dict[str, Any]:
    """A row of the table, of one seed."""
    on, off = accuracy(world, setting, seed)
    return {**asdict(setting), "accuracy": on, "unrotated": off, **attacks(world, setting)}


def mean_of(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """The row of a setting: accuracies are means over the seeds, of which it has so many."""
    return {
        **rows[0],
        **{key: statistics.mean(row[key] for row in rows) for key in ("accuracy", "unrotated")},
        "seeds": len(rows),
    }


def main() -> None:
    """Measure, print and write after each setting."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    prepare(options.threads)
    world, rows = World(), []
    for setting in settings():
        rows.append(mean_of([study(world, setting, seed) for seed in options.seeds]))
        print_table(rows[-1:])
        if options.out:
            write_json(options.out, {"machine": machine(), "seeds": options.seeds, "rows": rows})
    print_table(rows)


if __name__ == "__main__":
    main()
