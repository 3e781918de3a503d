"""What does each codec cost: bits, error and time, on real hidden states?

States at cut p = 1 of real TREC questions, MiniLM and SmolLM2 in float32. Error and bits are of all
of them; time is of one batch of 16 sequences of 12 tokens, on one core, the best of many turns that
all codecs take in order. A memory copy of the same batch is the limit. GB/s count the float32
values, not the bytes sent. Prints a table, writes JSON.

    python benchmarks/codec.py --out docs/results/wire/codec.json
"""

import argparse
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from time import perf_counter
from typing import Any

import torch
from measured import machine, print_table, write_json
from torch import Tensor, nn

from elsa.config.load import load_config
from elsa.core.bands import Bands
from elsa.core.cast import Cast
from elsa.core.chain import Chain
from elsa.core.codec import Codec, Frame, Packet
from elsa.core.feedback import ErrorFeedback
from elsa.core.hadamard import Rotate
from elsa.core.quantize import Quantize
from elsa.core.ragged import flat_index, pack
from elsa.core.sketch import Center, CountSketch
from elsa.core.sparse import TopK
from elsa.core.split import Split
from elsa.core.subspace import SubspaceCoder
from elsa.core.temporal import Temporal
from elsa.core.waterfill import WaterFill
from elsa.data.batches import BatchStream
from elsa.engine.build import open_sources
from elsa.engine.directions import public_directions
from elsa.engine.machine import prepare
from elsa.engine.parts import encode
from elsa.model.segments import initial_adapters

MODELS = ("minilm", "smollm2")
BATCHES = 12
BATCH, LENGTH = 16, 12
RANK = 16
ROOM = 10**9
DRIFT = 2e-2
"""Noise put on the adapters of the bottom, for what a sample is when it comes again."""


@dataclass
class States:
    """Hidden states [T, D] with their sequences, and the same sequences some steps later."""

    values: Tensor
    later: Tensor
    lengths: tuple[int, ...]

    @property
    def frame(self) -> Frame:
        return Frame(self.lengths, 1, range(len(self.lengths)))


@dataclass
class Arm:
    """A codec to measure."""

    codec: Codec
    peer: Codec
    bits: float = 0.0
    error: float = 0.0
    encode: list[float] = field(default_factory=list)
    decode: list[float] = field(default_factory=list)


def hidden_states(name: str) -> tuple[States, Tensor, Tensor]:
    """States at the first cut, directions [D, RANK] from other sequences, public axes [D, D]."""
    config = load_config(None, [f"model.path={name}", "model.precision=float32"])
    sources = open_sources(config, print)
    model = sources.model
    bottom = model.segments(Split.of(model.checkpoint.blocks, 1, 1)).bottom
    examples = encode(sources.text.train, sources.tokenizer, config)
    stream = BatchStream(examples, BATCH, 0, bucketing=True, pad_id=sources.tokenizer.pad_id)
    batches = [next(stream) for _ in range(2 * BATCHES)]

    def run(drift: float) -> list[Tensor]:
        draw = torch.Generator().manual_seed(1)
        adapters = initial_adapters(model.checkpoint, model.task, model.lora, 0)
        moved = {
            key: it + drift * torch.randn(it.shape, generator=draw) for key, it in adapters.items()
        }
        bottom.bind({key: nn.Parameter(value) for key, value in moved.items()})
        with torch.no_grad():
            return [
                pack(
                    bottom(batch.input_ids, batch.mask, batch.token_types),
                    flat_index(batch.lengths, batch.input_ids.shape[1]),
                )
                for batch in batches
            ]

    now, later = run(0), run(DRIFT)
    others = torch.cat(now[BATCHES:])
    directions = torch.linalg.svd(others, full_matrices=False)[2][:RANK].T.contiguous()
    lengths = tuple(length for batch in batches[:BATCHES] for length in batch.lengths)
    states = States(torch.cat(now[:BATCHES]), torch.cat(later[:BATCHES]), lengths)
    public = public_directions(config, model, sources.tokenizer)
    return states, directions, public.first("h1", model.checkpoint.hidden_size)


def codecs(directions: Tensor, axes: Tensor) -> dict[str, Callable[[], Codec]]:
    """What to measure, for the hidden size of these directions and axes."""
    hidden = len(directions)
    bands = Bands(axes[:, : hidden // 6])

    def rotated(bits: int, **others: Any) -> Chain:
        return Chain((Rotate(),), Quantize(bits, **({"levels": "gauss"} | others)))

    def sketch(ratio: int, *before: Center, rows: int = 3, shrink: float = 1.0) -> Chain:
        return Chain(
            (*before, CountSketch(rows, hidden // (ratio * rows), shrink)), Cast("float32")
        )

    def subspace(remainder: Chain) -> SubspaceCoder:
        return SubspaceCoder(directions, Quantize(8), remainder)

    return {
        "float32": lambda: Cast("float32"),
        "bfloat16": lambda: Cast("bfloat16"),
        "8 bits": lambda: Quantize(8),
        "4 bits": lambda: Quantize(4),
        "4 bits, blocks of 64": lambda: Quantize(4, block=64),
        "rotated 8 bits": lambda: rotated(8, levels="uniform"),
        "rotated 4 bits, uniform": lambda: rotated(4, levels="uniform"),
        "rotated 4 bits, stochastic": lambda: rotated(4, levels="uniform", rounding="stochastic"),
        "rotated 4 bits, gauss": lambda: rotated(4),
        "rotated 3 bits, uniform": lambda: rotated(3, levels="uniform"),
        "rotated 3 bits, gauss": lambda: rotated(3),
        "rotated 2 bits, uniform": lambda: rotated(2, levels="uniform"),
        "rotated 2 bits, gauss": lambda: rotated(2),
        "rotated 2 bits, gauss, blocks of 64": lambda: rotated(2, block=64),
        "subspace + rotated 3 bits": lambda: subspace(rotated(3)),
        "subspace + rotated 2 bits": lambda: subspace(rotated(2)),
        "top 1/8": lambda: TopK(hidden // 8),
        "top 1/8, 4 bits": lambda: TopK(hidden // 8, Quantize(4)),
        "sketch, ratio 2": lambda: sketch(2),
        "sketch, ratio 4": lambda: sketch(4),
        "sketch, ratio 8": lambda: sketch(8),
        "sketch, ratio 2, one row": lambda: sketch(2, rows=1),
        "sketch, ratio 2, token mean": lambda: sketch(2, Center("token")),
        "sketch, ratio 2, batch mean": lambda: sketch(2, Center("batch")),
        "sketch, ratio 2, after subspace": lambda: subspace(sketch(2)),
        "sketch, ratio 2, shrunk": lambda: sketch(2, shrink=0.35),
        "sketch, ratio 2, shrunk, feedback": lambda: ErrorFeedback(sketch(2, shrink=0.35), ROOM),
        "filled, error 0.1": lambda: WaterFill(0.1),
        "filled, error 0.2": lambda: WaterFill(0.2),
        "filled, error 0.3": lambda: WaterFill(0.3),
        "filled, error 0.5": lambda: WaterFill(0.5),
        "filled in bands, error 0.15": lambda: WaterFill(0.15, bands),
        "filled in bands, error 0.2": lambda: WaterFill(0.2, bands),
        "temporal, error 0.2, sample again": lambda: Temporal(WaterFill(0.2), ROOM),
        "temporal in bands, error 0.15, sample again": lambda: Temporal(
            WaterFill(0.15, bands), ROOM
        ),
    }


def quality(arm: Arm, states: States) -> None:
    """Bits and error; of a codec that remembers, those of the second visit."""
    values = states.values
    if isinstance(arm.codec, Temporal | ErrorFeedback):
        arm.peer.decode(arm.codec.encode(values, states.frame), states.frame)
        values = states.later
    packet = arm.codec.encode(values, states.frame)
    error = arm.peer.decode(packet, states.frame) - values
    arm.bits = 8 * len(packet.payload) / values.numel()
    arm.error = float(error.norm() / values.norm())


def turn(arm: Arm, batch: Tensor, noise: Tensor, number: int) -> None:
    """Encode and decode one batch, a little changed each time as training would."""
    frame = Frame((LENGTH,) * BATCH, number, range(ROOM, ROOM + BATCH))
    values = batch + noise * (number % 7)
    began = perf_counter()
    packet: Packet = arm.codec.encode(values, frame)
    middle = perf_counter()
    arm.peer.decode(packet, frame)
    arm.decode.append(perf_counter() - middle)
    arm.encode.append(middle - began)


def measure(name: str, turns: int) -> list[dict[str, Any]]:
    """All codecs on one model's states; rows of the table."""
    states, directions, axes = hidden_states(name)
    arms = {label: Arm(make(), make()) for label, make in codecs(directions, axes).items()}
    batch = states.values[: BATCH * LENGTH].contiguous()
    noise = torch.randn(batch.shape, generator=torch.Generator().manual_seed(0))
    noise *= 0.01 * batch.norm() / noise.norm()
    copies = []
    for arm in arms.values():
        quality(arm, states)
    for number in range(turns):
        began = perf_counter()
        batch.clone()
        copies.append(perf_counter() - began)
        for arm in arms.values():
            turn(arm, batch, noise, number)
    gigabytes = batch.nbytes / 1e9
    drift = float((states.later - states.values).norm() / states.values.norm())
    print(
        f"{name}: {len(states.values)} tokens; a sample has changed by {drift:.3f} when it returns"
    )
    copy = min(copies)
    rows = [
        row(name, "memory copy", "", 32.0, 0.0, (gigabytes / copy, gigabytes / copy), 2e6 * copy)
    ]
    for label, arm in arms.items():
        fastest = min(arm.encode), min(arm.decode)
        rates = gigabytes / fastest[0], gigabytes / fastest[1]
        rows.append(
            row(name, label, arm.codec.name, arm.bits, arm.error, rates, 1e6 * sum(fastest))
        )
    return rows


def row(
    model: str,
    label: str,
    name: str,
    bits: float,
    error: float,
    rates: tuple[float, float],
    pair: float,
) -> dict[str, Any]:
    return {
        "model": model,
        "codec": label,
        "name": name,
        "bits_a_value": bits,
        "relative_error": error,
        "encode_gb_s": rates[0],
        "decode_gb_s": rates[1],
        "encode_and_decode_us": pair,
    }


def main() -> None:
    """Measure both models, print and write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--turns", type=int, default=100)
    options = parser.parse_args()
    prepare(1)
    rows = [each for name in MODELS for each in measure(name, options.turns)]
    print_table([{key: value for key, value in each.items() if key != "name"} for each in rows])
    if options.out:
        write_json(options.out, {"machine": machine(), "threads": 1, "rows": rows})


if __name__ == "__main__":
    main()
