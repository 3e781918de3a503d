import os
import subprocess
import sys

import pytest
import torch

from elsa.engine.machine import KERNELS_KEPT, prepare

SHAPES = """
import resource, torch
from elsa.engine.machine import prepare
prepare(1)
weight = torch.randn(384, 384).bfloat16()
torch.randn(8, 384).bfloat16() @ weight
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
for rows in range(16, 700):
    torch.randn(rows, 384).bfloat16() @ weight
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""


def test_threads_are_set_and_told() -> None:
    before = torch.get_num_threads()
    try:
        assert prepare(2) == torch.get_num_threads() == 2
        assert prepare(0) == torch.get_num_threads() >= 1
    finally:
        torch.set_num_threads(before)


def test_shapes_that_come_and_go_do_not_fill_memory() -> None:
    # Without the bound, 684 shapes take about 350 MB where products in bfloat16 are compiled.
    free = {name: value for name, value in os.environ.items() if "CACHE_CAPACITY" not in name}
    done = subprocess.run(
        [sys.executable, "-c", SHAPES], env=free, capture_output=True, text=True, check=True
    )
    assert int(done.stdout) * 1024 < 200e6


def test_a_size_set_from_outside_stands(monkeypatch: pytest.MonkeyPatch) -> None:
    before = torch.get_num_threads()
    monkeypatch.setenv("LRU_CACHE_CAPACITY", "7")
    monkeypatch.delenv("ONEDNN_PRIMITIVE_CACHE_CAPACITY", raising=False)
    prepare(before)
    assert os.environ["LRU_CACHE_CAPACITY"] == "7"
    assert os.environ["ONEDNN_PRIMITIVE_CACHE_CAPACITY"] == str(KERNELS_KEPT)
