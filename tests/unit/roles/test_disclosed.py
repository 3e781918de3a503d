"""Two-part splits at the edge: only where they are asked for, and with labels of the task."""

from dataclasses import replace
from typing import Any

import pytest
import torch

from elsa.core.codec import EXACT
from elsa.core.split import Layout
from elsa.errors import CodecError, ProtocolError
from elsa.model.segments import build_end
from elsa.roles.edge import Edge
from elsa.roles.edgemodel import EdgeModel
from elsa.roles.trunk import PerDeviceTrunk
from elsa.wire.messages import (
    Accepted,
    EvaluationOrder,
    Gradients,
    LabelledActivations,
    LocalPlan,
    Ready,
    Score,
    Update,
)

World = Any
LABELS = (0, 2, 1)


def edge_of(world: World, layout: Layout) -> Edge:
    top = world.segments(world.split(1, 1)).top
    model = EdgeModel(
        world.blocks,
        world.hidden,
        world.longest,
        world.trunk,
        seed=0,
        layout=layout,
        end=lambda split: build_end(world.checkpoint, split, top.task, top.lora),
    )
    edge = Edge("edge-0", model, PerDeviceTrunk(world.optimizer), lambda _: EXACT)
    edge.open(world.order())
    return edge


@pytest.fixture
def two(world: World) -> tuple[Edge, Any]:
    """An edge of a two-part split, and a device that has its plan."""
    edge = edge_of(world, "two-part")
    puppet = world.puppet(edge)
    puppet.send(Ready(0, 0, 1, 0, labelled=True))
    return edge, puppet


def told(puppet: Any, step: int = 0, **more: Any) -> LabelledActivations:
    made = LabelledActivations(step, True, puppet.world.lengths, LABELS, puppet.values(step))
    return replace(made, **more)


@pytest.mark.parametrize("layout", ["three-part", "whole", "two-part"])
@pytest.mark.parametrize(
    "asked",
    [Ready(0, 0, 1, 1), Ready(0, 0, 1, 0, labelled=True), Ready(0, 0, 1, 3)],
    ids=["three-part", "two-part", "whole"],
)
def test_an_edge_takes_its_own_layout_alone(world: World, layout: Layout, asked: Ready) -> None:
    """So no device of an ordinary run can disclose labels, or skip the edge's blocks."""
    edge = edge_of(world, layout)
    its_own = {"three-part": (1, False), "two-part": (0, True), "whole": (3, False)}[layout]
    if (asked.top, asked.labelled) == its_own:
        assert isinstance(edge.handle("d0", asked), LocalPlan)
    else:
        with pytest.raises(Exception, match=r"another split than|split\.bottom \+ split\.top"):
            edge.handle("d0", asked)


def test_labels_are_refused_in_three_parts(world: World) -> None:
    edge = edge_of(world, "three-part")
    puppet = world.puppet(edge)
    puppet.send(puppet.ready())
    with pytest.raises(ProtocolError, match="LabelledActivations in a three-part split"):
        puppet.send(told(puppet))


def test_the_device_is_given_what_is_below_the_cut_alone(world: World) -> None:
    plan = edge_of(world, "two-part").handle("d0", Ready(0, 0, 1, 0, labelled=True))
    assert isinstance(plan, LocalPlan)
    bottom = world.segments(world.split(1, 1)).bottom
    assert set(plan.adapters) == set(bottom.adapter_names)


def test_the_edge_gives_back_the_gradient_and_the_loss(world: World, two: Any) -> None:
    edge, puppet = two
    back = puppet.send(told(puppet))
    assert isinstance(back, Gradients)
    assert back.loss > 0
    other = puppet.send(told(puppet, 1, labels=(0, 0, 0)))
    assert other.loss != back.loss
    adapters = {name: v for name, v in world.adapters.items() if ".layer.0." in name}
    assert puppet.send(Update(0, 0, adapters, 3, 6, 0.5)) == Accepted()
    learned = world.closed(edge).adapters
    moved = [n for n, v in learned.items() if not torch.equal(v, world.adapters[n])]
    assert any("classifier" in name or "score" in name for name in moved)
    assert not any(".layer.0." in name for name in moved)


@pytest.mark.parametrize(
    ("more", "error"),
    [
        ({"labels": (0, 3, 1)}, ProtocolError),
        ({"labels": (0, -1, 1)}, ProtocolError),
        ({"labels": (0,) * 9}, ProtocolError),
        ({"training": False}, ProtocolError),
        ({"step": 1}, ProtocolError),
    ],
)
def test_what_is_not_of_the_task_or_not_due_is_refused(two: Any, more: Any, error: Any) -> None:
    _, puppet = two
    with pytest.raises(error):
        puppet.send(told(puppet, **more))


def test_hidden_states_that_are_not_finite_are_refused(two: Any) -> None:
    _, puppet = two
    values = torch.full((9, puppet.world.hidden), torch.nan)
    with pytest.raises(CodecError, match="NaN"):
        puppet.send(told(puppet, packet=puppet.states(values).packet))


def test_plain_activations_and_early_updates_are_refused(world: World, two: Any) -> None:
    _, puppet = two
    with pytest.raises(ProtocolError, match="Activations in a two-part split"):
        puppet.send(puppet.forward())
    with pytest.raises(ProtocolError, match="before its local steps"):
        puppet.send(Update(0, 0, {}, 3, 6, 0.5))


def test_a_device_with_the_whole_model_has_no_steps_at_the_edge(world: World) -> None:
    edge = edge_of(world, "whole")
    puppet = world.puppet(edge)
    plan = puppet.send(Ready(0, 0, 1, 3))
    assert set(plan.adapters) == set(world.adapters)
    with pytest.raises(ProtocolError, match="Activations in a whole split"):
        puppet.send(puppet.forward())
    assert puppet.send(Update(0, 0, world.adapters, 3, 6, 0.5)) == Accepted()


def test_in_evaluation_the_edge_counts(world: World) -> None:
    edge = edge_of(world, "two-part")
    edge.open(EvaluationOrder(4, ("d0",), world.adapters))
    puppet = world.puppet(edge)
    puppet.send(Ready(4, 0, 1, 0, labelled=True))
    score = puppet.send(told(puppet, training=False))
    assert isinstance(score, Score)
    assert (score.round, score.items) == (4, 3)
    assert 0 <= score.correct <= 3
    assert isinstance(puppet.send(told(puppet, 1, training=False)), Score)
