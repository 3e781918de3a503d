import os
import subprocess
import sys

import pytest
import torch

from elsa.engine.machine import KERNELS_KEPT, prepare

SHAPES = """
import resource, torch
from elsa.engine.machine import prepare
prepare(1, sparing=SPARING)
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


GIVEN_BACK = """
import torch
from pathlib import Path
from elsa.engine.machine import give_back, prepare

def held(kind):
    lines = Path("/proc/self/status").read_text().splitlines()
    return 1024 * next(int(line.split()[1]) for line in lines if line.startswith(kind))

prepare(1, sparing=True)
values = torch.randn(64, 384)
before, files = values @ values.T, held("RssFile")
small = [torch.zeros(4096) for _ in range(4000)]  # 64 MB in pieces
full = held("RssAnon")
del small
give_back()
assert held("RssFile") < files - 40e6, (held("RssFile"), files)
assert held("RssAnon") < full - 50e6, (held("RssAnon"), full)
assert torch.equal(values @ values.T, before)
"""


def in_a_process(program: str) -> str:
    ours = ("CACHE_CAPACITY", "FAST_MM", "MALLOC")
    free = {k: value for k, value in os.environ.items() if not any(it in k for it in ours)}
    done = subprocess.run(
        [sys.executable, "-c", program], env=free, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize(("sparing", "most"), [(False, 200e6), (True, 15e6)])
def test_shapes_that_come_and_go_do_not_fill_memory(sparing: bool, most: float) -> None:
    # Without the bound, 684 shapes take about 350 MB where products in bfloat16 are compiled.
    assert int(in_a_process(SHAPES.replace("SPARING", str(sparing)))) * 1024 < most


@pytest.mark.skipif(sys.platform != "linux", reason="nothing is given back elsewhere")
def test_what_is_not_needed_is_given_back_and_what_is_comes_back() -> None:
    in_a_process(GIVEN_BACK)


def test_a_size_set_from_outside_stands(monkeypatch: pytest.MonkeyPatch) -> None:
    before = torch.get_num_threads()
    monkeypatch.setenv("LRU_CACHE_CAPACITY", "7")
    monkeypatch.delenv("ONEDNN_PRIMITIVE_CACHE_CAPACITY", raising=False)
    prepare(before)
    assert os.environ["LRU_CACHE_CAPACITY"] == "7"
    assert os.environ["ONEDNN_PRIMITIVE_CACHE_CAPACITY"] == str(KERNELS_KEPT)
