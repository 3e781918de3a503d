"""SS-OP changes what the edge sees and nothing else: gradients are exact, the secret stays."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from elsa.engine.build import build_federation
from elsa.engine.run import resume, run
from elsa.engine.simulate import Simulation
from elsa.errors import ConfigError, Interrupted
from elsa.roles.device import Device
from elsa.wire.layers import Tap
from elsa.wire.messages import (
    Accepted,
    Activations,
    Gradients,
    LocalPlan,
    Message,
    Ready,
    Update,
)

ON = ("ssop.rank=8", "ssop.angle=0.3")
STEPS = 3


def mirror(device: Device, adapters: dict[str, Tensor]) -> tuple[Update, list[Tensor]]:
    """Train against an edge that hands back what it is given; the update, and what it saw."""
    exchange, seen = device.train(0, 0), list[Tensor]()
    request: Message = next(exchange)
    while True:
        match request:
            case Ready():
                answer: Message = LocalPlan(0, 0, STEPS, 1, adapters)
            case Activations():
                seen.append(
                    torch.frombuffer(bytearray(request.packet.payload), dtype=torch.float32)
                )
                answer = request
            case Gradients():
                answer = request
            case Update():
                return request, seen
            case _:
                answer = Accepted()
        request = exchange.send(answer)


@pytest.mark.parametrize("fresh", ["fixed", "round", "batch"])
@pytest.mark.parametrize("about", ["mean", "origin"])
def test_gradients_are_exact(make: Any, sources: Any, fresh: str, about: str) -> None:
    """Where the trunk does nothing, turning and turning back must change no adapter."""
    turned = make(*ON, f"ssop.fresh={fresh}", f"ssop.about={about}", "ssop.angle=1.0")
    updates, views = {}, {}
    for name, config in (("plain", make()), ("turned", turned)):
        federation = build_federation(config, sources)
        device = federation.devices["device-0"]
        own = (*device.segments.bottom.adapter_names, *device.segments.top.adapter_names)
        adapters = {key: federation.cloud.adapters[key] for key in own}
        updates[name], views[name] = mirror(device, adapters)
    for key, value in updates["plain"].adapters.items():
        torch.testing.assert_close(updates["turned"].adapters[key], value, atol=2e-5, rtol=2e-4)
    apart = [float((b - a).norm() / a.norm()) for a, b in zip(*views.values(), strict=True)]
    assert min(apart) > 0.05  # it was really on


def test_angle_zero_is_no_perturbation(make: Any, sources: Any) -> None:
    ends = []
    for config in (make(), make("ssop.rank=8", "ssop.angle=0.0")):
        simulation = Simulation(build_federation(config, sources))
        simulation.train_round()
        ends.append(simulation.federation.cloud.adapters)
    assert all(torch.equal(ends[0][name], value) for name, value in ends[1].items())


def test_the_secret_is_in_no_message_and_no_file(
    make: Any, drive: Callable[..., tuple[Any, Path]]
) -> None:
    tap = Tap()
    federation, out = drive(make(*ON), tap)
    needles = []
    for device in federation.devices.values():
        rotations = device._rotations
        subspace, now = rotations._subspace, rotations._now
        tensors = (subspace._directions, subspace._origin, now._forward, now._inverse)
        # Eight numbers in a row are no accident, in whatever float type they are written.
        for rows in (tensor.reshape(-1)[:8] for tensor in tensors):
            needles += [rows.to(kind).view(torch.uint8) for kind in (torch.float32, torch.float64)]
        needles.append(torch.frombuffer(bytearray(rotations._seed._key), dtype=torch.uint8))
    secrets = [needle.numpy().tobytes() for needle in needles]
    assert len(set(secrets)) > len(federation.devices)
    written = [path.read_bytes() for path in out.rglob("*") if path.is_file()]
    haystack = [frame.data for frame in tap.frames] + written
    assert len(haystack) > 50
    assert not any(secret in hay for secret in secrets for hay in haystack)
    planted = haystack[0] + secrets[0]
    assert secrets[0] in planted


@pytest.mark.parametrize("fresh", ["fixed", "batch"])
def test_resumed_run_turns_as_the_uninterrupted_one(make: Any, tmp_path: Path, fresh: str) -> None:
    config = make(*ON, f"ssop.fresh={fresh}")
    whole = run(config, out=tmp_path / "whole")
    asked = iter(range(10**6))
    with pytest.raises(Interrupted):
        run(config, out=tmp_path / "torn", stop=lambda: next(asked) > 80)
    torn = resume(tmp_path / "torn")
    ends = [
        (it.directory / "adapter/adapter_model.safetensors").read_bytes() for it in (whole, torn)
    ]
    assert ends[0] == ends[1]


def test_a_rank_above_the_hidden_size_is_refused_before_training(make: Any, sources: Any) -> None:
    with pytest.raises(ConfigError, match="rank"):
        build_federation(make("ssop.rank=4096"), sources)
