"""What leaves a device is disguised as set, and by numbers that only it can draw."""

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
from elsa.wire.messages import Activations

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
    torch.testing.assert_close(shown, noise.apply(turned, torch.zeros(20, 6)), atol=1e-6, rtol=1e-5)


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
