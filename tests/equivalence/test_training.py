"""Split, federated and serialised training is the training of the unsplit model, to the bit.

float32 and the identity codec: everything is compared with `torch.equal` unless said otherwise.
"""

from collections.abc import Callable
from dataclasses import replace
from functools import cache

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from unsplit import (
    BERT,
    CASES,
    KEEP,
    LORA,
    RESET,
    STEPS,
    Adapters,
    Central,
    Parts,
    Tiny,
    fedavg,
)

from elsa.core.cast import Cast
from elsa.core.chain import Chain
from elsa.core.codec import EXACT, Frame, HopCodecs, Identity, Packet
from elsa.core.feedback import ErrorFeedback
from elsa.core.sketch import CountSketch
from elsa.core.temporal import Temporal
from elsa.core.waterfill import WaterFill
from elsa.data.batches import Examples, make_batch
from elsa.engine.federation import Federation
from elsa.engine.simulate import Simulation
from elsa.model.checkpoint import open_checkpoint
from elsa.model.families import Pooling
from elsa.model.tasks import Classification, Task
from elsa.roles.learner import OptimizerSettings


def differing(got: Adapters, expected: Adapters) -> list[str]:
    assert list(got) == list(expected)
    return [name for name, value in expected.items() if not torch.equal(got[name], value)]


@pytest.fixture(scope="module")
def parts_of(tiny: Tiny) -> Callable[[tuple[str, Task]], Parts]:
    return cache(lambda case: Parts(open_checkpoint(tiny(case[0])), case[1]))


PartsOf = Callable[[tuple[str, Task]], Parts]


@pytest.mark.parametrize("cuts", [(1, 1), (2, 0), (1, 0), (1, 2)], ids=str)
@pytest.mark.parametrize("case", CASES, ids=str)
def test_one_device_trains_as_the_unsplit_model(
    parts_of: PartsOf, case: tuple[str, Task], cuts: tuple[int, int]
) -> None:
    parts = parts_of(case)
    examples = parts.examples(10)
    federation = parts.federation({"edge-0": [parts.device("d", examples, cuts)]})
    simulation, central = Simulation(federation), Central(parts, examples)
    adapters = parts.adapters
    for _ in range(2):
        (report,) = simulation.train_round()
        adapters, loss = central.train(adapters)
        assert report.lost == ""
        assert report.loss == loss
        assert differing(federation.cloud.adapters, adapters) == []
    unchanged = [k for k, value in adapters.items() if torch.equal(value, parts.adapters[k])]
    assert not unchanged


def test_pairs_of_texts_train_as_in_the_unsplit_model(parts_of: PartsOf) -> None:
    parts = parts_of(BERT)
    single = parts.examples(10)
    types = [(np.arange(len(row)) >= len(row) // 2).astype(np.int32) for row in single.input_ids]
    pairs = replace(single, token_types=types)
    losses = []
    for examples in (pairs, single):
        federation = parts.federation({"edge-0": [parts.device("d", examples, (1, 1))]})
        (report,) = Simulation(federation).train_round()
        adapters, loss = Central(parts, examples).train(parts.adapters)
        assert report.loss == loss
        assert differing(federation.cloud.adapters, adapters) == []
        losses.append(loss)
    assert losses[0] != losses[1]  # which text a token is of does matter


def test_bytes_of_a_step_are_those_of_the_tokens(parts_of: PartsOf) -> None:
    """The link is real: four hops of [T, D] float32 a step went over it, and little else."""
    parts = parts_of(BERT)
    examples = parts.examples(8)
    federation = parts.federation({"edge-0": [parts.device("d", examples)]}, steps=2)
    Simulation(federation).train_round()
    tokens = sum(len(ids) for ids in examples.input_ids)
    states = tokens * parts.checkpoint.hidden_size * 4
    for kind in ("Activations", "Gradients"):
        for direction in ("up", "down"):
            flow = federation.meter.total(kind=kind, direction=direction)
            assert flow.frames == 2
            assert states < flow.bytes < states + 2 * 100


@pytest.mark.parametrize("cuts", [(1, 1), (2, 0)], ids=str)
def test_above_a_frozen_bottom_all_trains_as_in_the_unsplit_model(
    tiny: Tiny, cuts: tuple[int, int]
) -> None:
    """Nothing comes back over hop 4, and with memory each text's h1 is sent once."""
    parts = Parts(open_checkpoint(tiny("bert")), BERT[1], replace(LORA, first=cuts[0]))
    examples = parts.examples(10)
    federation = parts.federation({"edge-0": [parts.device("d", examples, cuts)]})
    simulation, central, adapters = (
        Simulation(federation),
        Central(parts, examples),
        parts.adapters,
    )
    for _ in range(2):
        (report,) = simulation.train_round()
        adapters, _ = central.train(adapters)
        assert report.lost == ""
        assert differing(federation.cloud.adapters, adapters) == []
    assert not any(f".layer.{block}." in name for name in adapters for block in range(cuts[0]))
    assert federation.meter.total(kind="Gradients", direction="down").frames == 0
    assert federation.meter.total(kind="Gradients", direction="up").frames == 2 * STEPS


@pytest.mark.parametrize("kind", [BERT, *CASES[3:]], ids=str)
def test_above_a_frozen_trunk_the_top_trains_as_in_the_unsplit_model(
    tiny: Tiny, kind: tuple[str, Task]
) -> None:
    """No gradient leaves the device, a text is sent once, and what is kept is what it would be."""
    cuts = (1, 2)
    checkpoint = open_checkpoint(tiny(kind[0]))
    parts = Parts(checkpoint, kind[1], replace(LORA, first=checkpoint.blocks - cuts[1]))
    examples = parts.examples(10)
    federation = parts.federation({"edge-0": [parts.device("d", examples, cuts)]})
    simulation, central = Simulation(federation), Central(parts, examples)
    adapters, meter = parts.adapters, federation.meter
    for round_ in range(3):
        (report,) = simulation.train_round()
        adapters, loss = central.train(adapters)
        assert report.lost == ""
        assert report.loss == pytest.approx(loss, rel=1e-5)
        for name, value in federation.cloud.adapters.items():
            # Kept states were made beside other rows than they are used with after an epoch.
            torch.testing.assert_close(value, adapters[name], rtol=0, atol=round_ * 2e-5)
        for direction in ("up", "down"):
            assert meter.total(kind="Activations", direction=direction).frames == STEPS
    assert meter.total(kind="Gradients").frames == 0


def test_below_a_frozen_bottom_a_text_is_sent_once(tiny: Tiny) -> None:
    parts = Parts(open_checkpoint(tiny("bert")), BERT[1], replace(LORA, first=1))
    device = parts.device("d", parts.examples(12), codecs=remembering())
    simulation = Simulation(parts.federation({"edge-0": [device]}, codecs=remembering))
    sizes = []
    for _ in range(2):
        simulation.train_round()  # an epoch
        flow = simulation.federation.meter.total(kind="Activations", direction="up")
        sizes.append(flow.bytes)
    assert sizes[1] - sizes[0] < STEPS * 120 < sizes[0] / 2


@pytest.mark.parametrize("pooling", ["cls", "last", "mean"])
def test_without_blocks_above_the_cut_one_row_a_text_goes_down(
    tiny: Tiny, pooling: Pooling
) -> None:
    parts = Parts(open_checkpoint(tiny("bert")), Classification(3, pooling))
    examples = parts.examples(8)
    federation = parts.federation({"edge-0": [parts.device("d", examples, (1, 0))]}, steps=2)
    (report,) = Simulation(federation).train_round()
    expected, loss = Central(parts, examples).train(parts.adapters, steps=2)
    assert report.loss == loss
    assert differing(federation.cloud.adapters, expected) == []
    hidden, meter = parts.checkpoint.hidden_size, federation.meter
    for kind, direction in (("Activations", "down"), ("Gradients", "up")):
        flow = meter.total(kind=kind, direction=direction)
        assert 8 * hidden * 4 < flow.bytes < 8 * hidden * 4 + 2 * 120
        # What the same exchange takes plainly is reckoned with all tokens.
        assert flow.padded == meter.total(kind="Activations", direction="up").padded


@pytest.mark.parametrize("kind", CASES[3:], ids=str)
def test_without_blocks_above_the_cut_only_what_predicts_answers_goes_down(
    parts_of: PartsOf, kind: tuple[str, Task]
) -> None:
    parts = parts_of(kind)
    plain = parts.examples(8)
    answers = [np.arange(len(ids)) >= max(len(ids) - 2, 1) for ids in plain.input_ids]
    examples = replace(plain, counted=answers)
    federation = parts.federation({"edge-0": [parts.device("d", examples, (1, 0))]}, steps=2)
    simulation = Simulation(federation)
    (report,) = simulation.train_round()
    expected, loss = Central(parts, examples).train(parts.adapters, steps=2)
    assert report.loss == loss
    assert differing(federation.cloud.adapters, expected) == []
    # A row that has no answer, the first, wants one token back.
    rows = sum(max(int(row.sum()), 1) for row in answers)
    tokens = sum(len(ids) for ids in examples.input_ids)
    size, meter = 4 * parts.checkpoint.hidden_size, federation.meter
    for kind_, direction in (("Activations", "down"), ("Gradients", "up")):
        flow = meter.total(kind=kind_, direction=direction)
        assert rows * size < flow.bytes < rows * size + 2 * 120 < tokens * size
        assert flow.padded == meter.total(kind="Activations", direction="up").padded


@pytest.mark.parametrize("optimizer", [KEEP, RESET], ids=["keep", "reset"])
def test_a_hierarchy_is_federated_averaging_of_unsplit_models(
    parts_of: PartsOf, optimizer: OptimizerSettings
) -> None:
    """Two edges, devices with other splits and numbers of rows, E = 2, two rounds."""
    parts = parts_of(BERT)
    rows = {"a": 6, "b": 11, "c": 4, "d": 9}
    cuts = {"a": (1, 1), "b": (2, 0), "c": (1, 0), "d": (1, 2)}
    texts = {name: parts.examples(count, seed=count) for name, count in rows.items()}
    devices = {name: parts.device(name, texts[name], cuts[name], optimizer) for name in rows}
    groups = {"edge-0": "ab", "edge-1": "cd"}
    federation = parts.federation(
        {edge: [devices[name] for name in names] for edge, names in groups.items()},
        edge_rounds=2,
        optimizer=optimizer,
    )
    simulation = Simulation(federation)
    central = {name: Central(parts, texts[name], optimizer) for name in rows}
    expected = parts.adapters
    for _ in range(2):
        simulation.train_round()
        edges = []
        for names in groups.values():
            average = expected
            for _ in range(2):
                updates = [(central[name].train(average)[0], rows[name]) for name in names]
                average = fedavg(updates)
            edges.append((average, sum(rows[name] for name in names)))
        expected = fedavg(edges)
        assert differing(federation.cloud.adapters, expected) == []


def test_moments_matter_from_the_second_round_on(parts_of: PartsOf) -> None:
    parts = parts_of(BERT)
    rounds: list[list[Adapters]] = [[], []]
    for optimizer in (KEEP, RESET):
        device = parts.device("d", parts.examples(10), optimizer=optimizer)
        federation = parts.federation({"edge-0": [device]}, optimizer=optimizer)
        simulation = Simulation(federation)
        for number in range(2):
            simulation.train_round()
            rounds[number].append(federation.cloud.adapters)
    assert differing(*rounds[0]) == []
    assert differing(*rounds[1]) == list(parts.adapters)


def test_shared_trunk_takes_the_gradient_of_the_concatenated_batch(parts_of: PartsOf) -> None:
    """Within float32 rounding: the sums are taken in another order."""
    parts = parts_of(BERT)
    texts = [parts.examples(4, seed=1), parts.examples(2, seed=2)]
    devices = [parts.device(name, it) for name, it in zip("ab", texts, strict=True)]
    federation = parts.federation({"edge-0": devices}, steps=1, shared=True)
    Simulation(federation).train_round()
    every = Examples(
        [ids for it in texts for ids in it.input_ids],
        labels=np.concatenate([it.labels for it in texts]),
    )
    batch = make_batch(every, range(6), 0)
    parameters = {name: nn.Parameter(value.clone()) for name, value in parts.adapters.items()}
    parts.whole.bind(parameters)
    parts.whole.loss(parts.whole(batch.input_ids, batch.mask), batch.labels).backward()
    torch.optim.AdamW(parameters.values(), lr=1e-2, weight_decay=0.01).step()
    moments = federation.edges["edge-0"].moments()
    trunk = parts.trunk(parts.split((1, 1))).adapter_names
    assert {name.rpartition("/")[2] for name in moments} == set(trunk)
    for name in trunk:  # after one step AdamW's first moment is (1 - 0.9) times the gradient
        gradient, got = parameters[name].grad, moments[f"shared/exp_avg/{name}"] * 10
        slack = 1e-5 * float(gradient.abs().max())
        torch.testing.assert_close(got, gradient, rtol=1e-4, atol=slack)
        # Where a gradient is near zero, its sign decides the step, and that is rounding.
        clear = gradient.abs() > 1e-6
        after = federation.cloud.adapters[name]
        torch.testing.assert_close(after[clear], parameters[name].detach()[clear])


def test_shared_trunk_of_one_device_is_its_own(parts_of: PartsOf) -> None:
    parts = parts_of(BERT)
    examples = parts.examples(10)
    federation = parts.federation({"edge-0": [parts.device("d", examples)]}, shared=True)
    Simulation(federation).train_round()
    expected, _ = Central(parts, examples).train(parts.adapters)
    # Gradients are multiplied and divided by the rows of the batch, 4, 4 and 2.
    assert differing(federation.cloud.adapters, expected) == []


class Rounded:
    """A lossy codec: bfloat16."""

    name = "rounded"

    def encode(self, values: Tensor, frame: Frame) -> Packet:
        inner = Identity().encode(values.bfloat16(), frame)
        return replace(inner, codec=self.name)

    def decode(self, packet: Packet, frame: Frame) -> Tensor:
        return Identity().decode(replace(packet, codec="identity"), frame).float()


@pytest.mark.parametrize("hop", ["h1", "h2", "g2", "g1"])
def test_codec_of_every_hop_is_really_in_use(parts_of: PartsOf, hop: str) -> None:
    parts = parts_of(BERT)
    examples = parts.examples(10)
    codecs = replace(EXACT, **{hop: Rounded()})
    device = parts.device("d", examples, codecs=codecs)
    federation = parts.federation({"edge-0": [device]}, codecs=lambda: codecs)
    (report,) = Simulation(federation).train_round()
    expected, loss = Central(parts, examples).train(parts.adapters)
    assert report.lost == ""
    assert report.loss == pytest.approx(loss, rel=0.05)
    changed = differing(federation.cloud.adapters, expected)
    assert set(device.segments.bottom.adapter_names) <= set(changed)


def test_evaluation_over_the_wire_is_that_of_the_unsplit_model(parts_of: PartsOf) -> None:
    parts = parts_of(BERT)
    texts = {"a": parts.examples(7, seed=1), "b": parts.examples(9, seed=2)}
    devices = {
        edge: [parts.device(name, texts[name], cuts)]
        for edge, name, cuts in (("edge-0", "a", (1, 1)), ("edge-1", "b", (2, 0)))
    }
    got = Simulation(parts.federation(devices)).evaluate()
    parts.whole.bind(parts.adapters)
    for name, examples in texts.items():
        batch = make_batch(examples, range(len(examples)), 0)
        with torch.no_grad():
            logits = parts.whole(batch.input_ids, batch.mask)
        correct = int((logits.argmax(1) == batch.labels).sum())
        assert (got[name].items, got[name].correct) == (len(examples), correct)
        assert got[name].mean_loss == pytest.approx(float(parts.whole.loss(logits, batch.labels)))


def test_dropout_is_off_while_training(parts_of: PartsOf) -> None:
    """The tiny BERT's config asks for dropout; two forwards are identical all the same."""
    parts = parts_of(BERT)
    assert parts.checkpoint.config.hidden_dropout_prob > 0
    batch = make_batch(parts.examples(4), range(4), 0)
    segments, trunk = parts.segments(parts.split((1, 1))), parts.trunk(parts.split((1, 1)))
    for part in (segments.bottom, trunk, segments.top):
        part.train().bind(parts.adapters)
    first, second = (
        segments.top(trunk(segments.bottom(batch.input_ids, batch.mask), batch.mask), batch.mask)
        for _ in range(2)
    )
    assert torch.equal(first, second)


def remembering() -> HopCodecs:
    states = Temporal(WaterFill(0.2), 10**6), Temporal(WaterFill(0.2), 10**6)
    shrunk = Chain((CountSketch(3, 8, shrink=0.4),), Cast("float32"))
    return HopCodecs(*states, ErrorFeedback(shrunk, 10**6), WaterFill(0.3))


@pytest.mark.parametrize("codecs", [lambda: EXACT, remembering], ids=["exact", "remembering"])
@pytest.mark.parametrize("shared", [False, True], ids=["per-device", "shared"])
def test_going_on_from_a_checkpoint_is_never_having_stopped(
    parts_of: PartsOf, shared: bool, codecs: Callable[[], HopCodecs]
) -> None:
    parts = parts_of(BERT)
    texts = [parts.examples(8, 1), parts.examples(9, 2)]

    def built() -> Federation:
        devices = [
            parts.device(name, it, codecs=codecs()) for name, it in zip("ab", texts, strict=True)
        ]
        return parts.federation({"edge-0": devices}, shared=shared, codecs=codecs)

    whole, stopped, resumed = built(), built(), built()
    for federation, rounds in ((whole, 3), (stopped, 2)):
        simulation = Simulation(federation)
        for _ in range(rounds):
            simulation.train_round()
    resumed.restore(2, stopped.tensors(), stopped.positions())
    Simulation(resumed).train_round()
    assert differing(resumed.tensors(), whole.tensors()) == []
    assert resumed.positions() == whole.positions()
