"""Micro-batches that are in flight together train what they train one after the other, to the bit,
and what the whole batch trains, but for rounding."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from unsplit import BATCH, BERT, LORA, Adapters, Parts, Tiny

from elsa.audit.transcript import read_sessions
from elsa.core.cast import Cast
from elsa.core.chain import Chain
from elsa.core.codec import EXACT, HopCodecs
from elsa.core.feedback import ErrorFeedback
from elsa.core.sketch import CountSketch
from elsa.core.temporal import Temporal
from elsa.core.waterfill import WaterFill
from elsa.engine.simulate import Simulation
from elsa.model.checkpoint import open_checkpoint
from elsa.model.tasks import CausalLM
from elsa.roles.exchange import Exchange
from elsa.wire.layers import Tap
from elsa.wire.messages import Activations
from elsa.wire.transcript import Recorder
from elsa.wire.transport import Layer

PartsOf = Callable[[str], Parts]
Codecs = Callable[[], HopCodecs]


def exact() -> HopCodecs:
    return EXACT


def remembering() -> HopCodecs:
    states = Temporal(WaterFill(0.2), 10**6), Temporal(WaterFill(0.2), 10**6)
    shrunk = Chain((CountSketch(3, 8, shrink=0.4),), Cast("float32"))
    return HopCodecs(*states, ErrorFeedback(shrunk, 10**6), WaterFill(0.3))


@pytest.fixture(scope="module")
def parts_of(tiny: Tiny) -> PartsOf:
    """A classifier, the same above a frozen bottom, and a model whose top asks for some tokens."""

    def make(name: str) -> Parts:
        if name == "words":
            return Parts(open_checkpoint(tiny("llama")), CausalLM())
        lora = replace(LORA, first=1 if name == "frozen" else 0)
        return Parts(open_checkpoint(tiny("bert")), BERT[1], lora)

    return cache(make)


CUTS = {"plain": (1, 1), "frozen": (1, 1), "words": (2, 0)}


def one_after_the_other(exchanges: Sequence[Exchange[Any]]) -> Exchange[list[Any]]:
    """What `interleaved` must equal."""
    results = []
    for exchange in exchanges:
        result = yield from exchange
        results.append(result)
    return results


class Trained:
    """A device's first rounds at its edge.

    Attributes:
        adapters: the cloud's afterwards.
        moments: of AdamW, of both.
        loss: of the last round.
        seconds: simulated.
        kinds: way and micro-batch of each frame of hidden states, as they passed.
    """

    def __init__(
        self,
        parts: Parts,
        name: str,
        codecs: Codecs,
        rows: int,
        *layers: Layer,
        steps: int = 3,
        **how: int,
    ) -> None:
        device = parts.device("d", parts.examples(rows), CUTS[name], codecs=codecs(), **how)
        tap = Tap()
        federation = parts.federation({"edge-0": [device]}, steps=steps, codecs=codecs)
        federation = replace(federation, layers=(*federation.layers, tap, *layers))
        simulation = Simulation(federation)
        for _ in range(2 if steps > 1 else 1):
            (report,) = simulation.train_round()
            assert report.lost == ""
        self.adapters: Adapters = federation.cloud.adapters
        self.moments = {**device.moments(), **federation.edges["edge-0"].moments_of("d")}
        self.loss, self.seconds = report.loss, simulation.seconds
        hops = [it for it in tap.frames if isinstance(it.message, Activations)]
        self.kinds = [(it.direction, it.message.micro_batch) for it in hops]


@settings(deadline=None, max_examples=6)
@given(
    st.sampled_from(sorted(CUTS)),
    st.sampled_from([exact, remembering]),
    st.integers(1, 2 * BATCH + 1),
    st.integers(1, BATCH),
    st.integers(0, BATCH),
)
def test_together_is_one_after_the_other_to_the_bit_and_whole_but_for_rounding(
    parts_of: PartsOf, name: str, codecs: Codecs, rows: int, in_flight: int, micro_batch: int
) -> None:
    parts, how = parts_of(name), {"in_flight": in_flight, "micro_batch": micro_batch}
    together = Trained(parts, name, codecs, rows, **how)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("elsa.roles.passes.interleaved", one_after_the_other)
        alone = Trained(parts, name, codecs, rows, **how)
    assert together.adapters.keys() == alone.adapters.keys()
    for key, value in alone.adapters.items():
        assert torch.equal(together.adapters[key], value), key
    for key, value in alone.moments.items():
        assert torch.equal(together.moments[key], value), key
    assert together.loss == alone.loss
    if rows > 1 and in_flight > 1:
        ahead = (("up", 0), ("up", 1))  # in the steps on more than one row
        assert ahead in pairwise(together.kinds)
        assert ahead not in pairwise(alone.kinds)
        assert together.seconds < alone.seconds
    # After one step AdamW's first moment is a tenth of the gradient.
    step, whole = (
        Trained(parts, name, exact, rows, steps=1, **it) for it in (how, {"in_flight": 1})
    )
    assert step.loss == pytest.approx(whole.loss, rel=1e-5)
    assert step.moments.keys() == whole.moments.keys()
    for key in [key for key in whole.moments if key.startswith("exp_avg/")]:
        slack = 1e-5 * float(whole.moments[key].abs().max())
        torch.testing.assert_close(step.moments[key], whole.moments[key], rtol=1e-4, atol=slack)


def test_a_transcript_shows_steps_as_if_they_had_come_whole(
    parts_of: PartsOf, tmp_path: Path
) -> None:
    sessions = []
    for in_flight in (1, 3):
        recorder = Recorder(tmp_path / str(in_flight), 1, 10**7)
        Trained(parts_of("plain"), "plain", exact, 8, recorder, steps=1, in_flight=in_flight)
        sessions += read_sessions(tmp_path / str(in_flight), exact)
    (whole,), (cut,) = (session.steps for session in sessions)
    assert whole.lengths == cut.lengths
    assert len(cut.lengths) == BATCH
    for hop in ("h1", "h2", "g2"):
        torch.testing.assert_close(getattr(cut, hop), getattr(whole, hop), rtol=1e-4, atol=1e-5)
