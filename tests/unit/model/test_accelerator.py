"""What computes: the best there is unless told otherwise, and everything on it."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_leaves

from elsa.core.split import Split
from elsa.errors import ConfigError
from elsa.model import accelerator
from elsa.model.accelerator import CPU, chosen, fast_dtype
from elsa.model.checkpoint import open_checkpoint
from elsa.model.segments import build_bottom, build_top, build_trunk, initial_adapters
from elsa.model.tasks import CausalLM, Classification, LoraSpec, Task


def test_auto_takes_the_best_and_what_is_not_there_is_refused_by_name(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for there in (["cuda", "cpu"], ["mps", "cpu"], ["cpu"]):
        monkeypatch.setattr(accelerator, "present", lambda there=there: there)
        assert chosen("auto").type == there[0]
        for name in ("cuda", "mps", "cpu"):
            if name in there:
                assert chosen(name).type == name  # type: ignore[arg-type]
            else:
                with pytest.raises(ConfigError, match=f"which has {', '.join(there)}") as caught:
                    chosen(name)  # type: ignore[arg-type]
                assert f"run.accelerator = '{name}'" in str(caught.value)


@pytest.mark.parametrize("native", [True, False])
def test_bfloat16_is_for_hardware_that_multiplies_it(
    monkeypatch: pytest.MonkeyPatch, native: bool
) -> None:
    expected = torch.bfloat16 if native else torch.float32
    asked: list[bool] = []

    def supported(including_emulation: bool = True) -> bool:
        asked.append(including_emulation)
        return native

    monkeypatch.setattr(torch.cuda, "is_bf16_supported", supported)
    monkeypatch.setattr(torch.backends.mps, "is_macos_or_newer", lambda *_: native)
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: native)
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: False)
    for name in ("cuda", "mps", "cpu"):
        assert fast_dtype(torch.device(name)) == expected
    assert asked == [False]


class Mixed(TorchFunctionMode):
    """Finds calls that are given tensors of two places; single numbers may lie anywhere.

    Attributes:
        found: names of such calls.
        moved: how many tensors were moved.
    """

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []
        self.moved = 0

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        given = tree_leaves((args, kwargs or {}))
        places = {it.device.type for it in given if isinstance(it, torch.Tensor) and it.dim()}
        if len(places) > 1:
            self.found.append(getattr(func, "__name__", repr(func)))
        self.moved += func is torch.Tensor.to
        if func is torch.Tensor.__bool__ and args[0].is_meta:
            return True  # whether all texts are plain ones, which the library asks
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("task", [CausalLM(), Classification(3, "last")], ids=str)
def test_a_segment_computes_where_its_weights_lie_whatever_it_is_given(
    llama_dir: Path, task: Task
) -> None:
    """A place without memory stands for a GPU: a tensor left behind would meet one there."""
    place, lora, split = torch.device("meta"), LoraSpec(2, 4), Split.of(3, 1, 1)
    checkpoint = open_checkpoint(llama_dir, device=place)
    parts = [
        build(checkpoint, split, task, lora) for build in (build_bottom, build_trunk, build_top)
    ]
    bottom, trunk, top = parts
    ids, states = torch.ones(2, 5, dtype=torch.int64), torch.ones(2, 5, checkpoint.hidden_size)
    mask, labels = torch.ones_like(ids), ids if isinstance(task, CausalLM) else ids[:, 0]
    with Mixed() as mixed, torch.no_grad():
        for part in parts:
            part.bind(initial_adapters(checkpoint, task, lora, 0))
        logits = top(states, mask)
        given = [bottom(ids, mask), trunk(states, mask), logits, top.loss(logits, labels)]
        given += [top.final(states, mask), top.pooled(states, mask)]
        if isinstance(task, Classification):
            given.append(top.judge(states, mask))
    assert mixed.found == []
    assert mixed.moved > 5
    assert {it.device.type for it in given} == {"meta"}
    frozen = [tensor for part in parts for tensor in (*part.frozen().values(), *part.buffers())]
    assert {it.device.type for it in frozen} == {"meta"}
    assert open_checkpoint(llama_dir).device == CPU
