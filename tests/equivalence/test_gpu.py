"""On a GPU a federation trains what it trains on the processor, but for rounding."""

from collections.abc import Mapping
from dataclasses import replace

import pytest
import torch
from torch import Tensor
from unsplit import CASES, KEEP, Central, Parts, Tiny

from elsa.engine.simulate import Simulation
from elsa.model.accelerator import present
from elsa.model.checkpoint import open_checkpoint
from elsa.model.tasks import Task

GPUS = [name for name in present() if name != "cpu"]


def trained(parts: Parts, in_flight: int) -> tuple[float, Mapping[str, Tensor], set[str]]:
    """Loss and AdamW's moments after one step, and where the parameters lay."""
    optimizer = replace(KEEP, device=parts.checkpoint.device)
    device = parts.device("d", parts.examples(4), optimizer=optimizer, in_flight=in_flight)
    federation = parts.federation({"edge-0": [device]}, steps=1, optimizer=optimizer)
    (report,) = Simulation(federation).train_round()
    assert report.lost == ""
    segments = device.segments
    bound = [it for part in (segments.bottom, segments.top) for it in part.parameters()]
    moments = {**device.moments(), **federation.edges["edge-0"].moments_of("d")}
    return report.loss, moments, {it.device.type for it in bound}


@pytest.mark.skipif(not GPUS, reason="no GPU that PyTorch can use")
@pytest.mark.parametrize("in_flight", [1, 2])
@pytest.mark.parametrize("case", CASES, ids=str)
def test_split_is_whole_on_a_gpu_as_on_the_processor(
    tiny: Tiny, case: tuple[str, Task], in_flight: int
) -> None:
    there, here = (
        Parts(open_checkpoint(tiny(case[0]), device=torch.device(name)), case[1])
        for name in (GPUS[0], "cpu")
    )
    loss, moments, places = trained(there, in_flight)
    expected, same, _ = trained(here, in_flight)
    _, whole = Central(there, there.examples(4)).train(there.adapters, steps=1)
    assert places == {GPUS[0]}
    assert loss == pytest.approx(whole, rel=1e-4)
    assert loss == pytest.approx(expected, rel=1e-4)
    assert {it.device.type for it in moments.values()} == {"cpu"}
    for key in [key for key in same if key.startswith("exp_avg/")]:
        slack = 1e-3 * float(same[key].abs().max())
        torch.testing.assert_close(moments[key], same[key], rtol=1e-2, atol=slack)
