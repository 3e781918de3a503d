"""What leaves a device is disguised as set, and by numbers that only it can draw."""

from contextlib import suppress
from typing import Any

import pytest
import torch

from elsa.core.noise import Noise
from elsa.core.secret import SecretSeed
from elsa.core.ssop import Rotation, Subspace
from elsa.engine.build import build_federation
from elsa.engine.simulate import Simulation
from elsa.roles.perturb import Disguise
from elsa.wire.layers import Tap
from elsa.wire.messages import Activations, Gradients, LocalPlan, RoundOrder, Update

SECRET = SecretSeed(b"a device's own secret")
STATES = torch.randn(20, 6, generator=torch.Generator().manual_seed(0))


def test_nothing_set_changes_nothing() -> None:
    assert Disguise().show(STATES) is STATES
    assert Disguise().read(STATES) is STATES


def test_noise_follows_its_secret_alone_and_is_not_undone() -> None:
    noise = Noise(100.0, 0.01)
    one, again = (Disguise(None, noise, SECRET.derive("batch", 1)) for _ in range(2))
    other = Disguise(None, noise, SECRET.derive("batch", 2))
    assert torch.equal(one.show(STATES), again.show(STATES))
    assert not torch.allclose(one.show(STATES), other.show(STATES), atol=0.1)
    assert torch.equal(one.read(STATES), STATES)


def test_noise_comes_after_the_rotation_so_that_the_rotation_cannot_thin_it() -> None:
    subspace = Subspace.fit(STATES, 4, SECRET.derive("fit"))
    rotation = Rotation.draw(subspace, 1.0, SECRET.derive("turn"))
    noise = Noise(0.5, 1e-9)
    shown = Disguise(rotation, noise, SECRET).show(STATES)
    turned = rotation.forward(STATES)
    torch.testing.assert_close(shown, noise.rows(turned, torch.zeros(20, 6)), atol=1e-6, rtol=1e-5)


def first_states(config: Any, sources: Any) -> list[bytes]:
    """The payloads of hop 1 of a round, in order."""
    tap = Tap()
    Simulation(build_federation(config, sources, [tap])).train_round()
    return [
        it.message.packet.payload
        for it in tap.frames
        if it.direction == "up" and isinstance(it.message, Activations)
    ]


def test_a_federation_with_noise_sends_other_states_and_the_same_ones_again(
    make: Any, sources: Any
) -> None:
    noisy = make("noise.ratio=0.1")
    sent, again, plain = (first_states(it, sources) for it in (noisy, noisy, make()))
    assert sent == again
    assert all(one != other for one, other in zip(sent, plain, strict=True))


def test_no_noise_and_a_clip_that_nothing_reaches_train_as_without(make: Any, sources: Any) -> None:
    """So the gradient passes the disguise unharmed."""
    kept = {}
    for name, config in (("off", make()), ("on", make("noise.ratio=1e-12", "noise.clip=1e4"))):
        federation = build_federation(config, sources)
        Simulation(federation).train_round()
        kept[name] = federation.cloud.adapters
    for key, value in kept["off"].items():
        torch.testing.assert_close(kept["on"][key], value, atol=2e-5, rtol=2e-4)


def test_clipping_changes_what_is_learned(make: Any, sources: Any) -> None:
    sent = first_states(make("noise.ratio=1e-12", "noise.clip=0.5"), sources)
    values = torch.frombuffer(bytearray(sent[0]), dtype=torch.float32).view(-1, 32)
    assert values.norm(dim=1) == pytest.approx(torch.full((len(values),), 0.5), abs=1e-4)


def frames_of(config: Any, sources: Any, kind: type, rounds: int = 1) -> list[Any]:
    """What devices and edges said of one kind, in order; None is one that nobody said."""
    tap = Tap()
    simulation = Simulation(build_federation(config, sources, [tap]))
    for _ in range(rounds):
        simulation.train_round()
    kinds = [it.message for it in tap.frames if it.link.tier == "device_edge"]
    return [it for it in kinds if isinstance(it, kind)]


def moves(config: Any, sources: Any) -> list[torch.Tensor]:
    """How far each update of a round is from the adapters that its device was given."""
    both = frames_of(config, sources, (LocalPlan, Update))
    plans, updates = both[::2], both[1::2]
    return [
        torch.cat([(up.adapters[it] - plan.adapters[it]).flatten() for it in plan.adapters])
        for plan, up in zip(plans, updates, strict=True)
    ]


def test_what_a_device_changed_is_clipped_as_a_whole_and_drowned_in_noise(
    make: Any, sources: Any
) -> None:
    clipped = moves(make("noise.update_ratio=1e-9", "noise.update_clip=0.01"), sources)
    assert torch.stack([it.norm() for it in clipped]).numpy() == pytest.approx(0.01, rel=1e-3)
    noisy = moves(make("noise.update_ratio=50.0", "noise.update_clip=0.01"), sources)
    assert float(torch.cat(noisy).std()) == pytest.approx(0.5, rel=0.05)
    firsts = torch.stack([it[:500] for it in noisy])  # no two updates share their noise
    assert torch.corrcoef(firsts).fill_diagonal_(0).abs().max() < 0.25


def test_updates_with_noise_are_the_same_again_and_tell_no_loss(make: Any, sources: Any) -> None:
    noisy = make("noise.update_ratio=0.1")
    one, again = (moves(noisy, sources) for _ in range(2))
    assert all(map(torch.equal, one, again))
    assert {it.loss for it in frames_of(noisy, sources, Update)} == {0.0}
    assert 0.0 not in {it.loss for it in frames_of(make(), sources, Update)}


def test_an_edge_round_done_again_has_other_noise(make: Any, sources: Any) -> None:
    """Two updates with the same noise would give their difference away."""
    config = make("noise.update_ratio=100.0", "noise.update_clip=1e-6", "noise.ratio=0.1")
    federation = build_federation(config, sources)
    device = federation.devices["device-0"]
    edge = federation.edges["edge-0"]
    said: list[list[Any]] = []
    for _ in range(2):
        edge.open(RoundOrder(0, 1, 1, ("device-0",), federation.cloud.adapters))
        device.restore({}, {}, 0)
        said.append([])
        exchange = device.train(0, 0)
        with suppress(StopIteration):
            request = next(exchange)
            while True:
                said[-1].append(request)
                request = exchange.send(edge.handle("device-0", request))
    first, second = said
    assert first[1].packet.payload != second[1].packet.payload
    name = next(iter(first[-1].adapters))
    assert not torch.allclose(first[-1].adapters[name], second[-1].adapters[name], atol=1e-5)


def test_gradients_are_clipped_text_by_text_and_the_top_learns_from_the_clean_ones(
    make: Any, sources: Any
) -> None:
    base = ("federation.local_steps=1", "federation.edge_rounds=1")
    sent = frames_of(
        make(*base, "noise.gradient_ratio=1e-9", "noise.gradient_clip=1e-4"),
        sources,
        (Activations, Gradients),
    )
    lengths = sent[0].lengths
    values = torch.frombuffer(bytearray(sent[2].packet.payload), dtype=torch.float32).view(-1, 32)
    norms = [float(it.norm()) for it in values.split(list(lengths))]
    assert norms == pytest.approx([1e-4] * len(lengths), rel=1e-3)
    plain, noisy = (
        frames_of(make(*base, *more), sources, Update)[0].adapters
        for more in ((), ("noise.gradient_ratio=5.0",))
    )
    of_top = [it for it in plain if "layer.3." in it or "classifier" in it]
    assert of_top and all(torch.equal(plain[it], noisy[it]) for it in of_top)
    assert any(not torch.equal(plain[it], noisy[it]) for it in plain)
