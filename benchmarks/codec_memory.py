"""What do the compiled codecs take of a process's memory, and of a machine's time once?

Resident memory of processes of their own, as Linux counts it: with torch and elsa's codecs, before
and after the machine code of the loops is loaded and used; and with numba imported and one function
compiled in the process itself, as it was before. Pages of files are shared between processes and
let go when memory is short. Then the processor time of compiling, in a folder of its own. Prints a
table, writes JSON.

    python benchmarks/codec_memory.py --out docs/results/codec-memory.json
"""

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from measured import machine, print_table, write_json

USED = """
import torch
from elsa.core.codec import Frame
from elsa.core.bands import Bands
from elsa.core.temporal import Temporal
from elsa.core.waterfill import WaterFill
draw = torch.Generator().manual_seed(0)
values, axes = torch.randn(192, 384, generator=draw), torch.eye(384)[:, :64]
frame = Frame((12,) * 16, 0, range(16))
values @ axes  # the first product takes memory of its own
before = look()
for coder in (WaterFill(0.3), Temporal(WaterFill(0.15, Bands(axes)), 10**6)):
    coder.encode(values, frame)
"""
NUMBA = """
import torch, numpy
before = look()
import numba
numba.njit((numba.float32[:, ::1],))(lambda rows: rows.sum())
"""
LOOK = """
import json
from pathlib import Path
def look():
    lines = Path("/proc/self/status").read_text().splitlines()
    sizes = {line.split(":")[0]: line.split()[1:2] for line in lines}
    return [int(sizes[name][0]) * 1024 for name in ("VmRSS", "RssFile", "RssAnon")]
"""


def added(code: str) -> list[int]:
    """Bytes that a process has more of after `code` than at its `before`."""
    program = f"{LOOK}{code}\nprint(json.dumps([before, look()]))"
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    before, after = json.loads(done.stdout)
    return [there - here for here, there in zip(before, after, strict=True)]


def compiling() -> float:
    """Processor seconds of compiling all loops."""
    began = resource.getrusage(resource.RUSAGE_CHILDREN)
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "loops.o"
        subprocess.run([sys.executable, "-m", "elsa.core.building", str(out)], check=True)
    ended = resource.getrusage(resource.RUSAGE_CHILDREN)
    return ended.ru_utime + ended.ru_stime - began.ru_utime - began.ru_stime


def main() -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    os.environ["OMP_NUM_THREADS"] = "1"
    from elsa.core import compiled

    compiled.make()
    rows: list[dict[str, Any]] = []
    for name, code in (("machine code loaded and used", USED), ("numba in the process", NUMBA)):
        resident, files, own = (size / 1e6 for size in added(code))
        rows.append({"process": name, "resident_mb": resident, "of_files_mb": files, "own_mb": own})
    print_table(rows)
    seconds = compiling()
    print(f"compiling: {seconds:.1f} s of processor time")
    if options.out:
        content = {"machine": machine(), "rows": rows, "compile_processor_seconds": seconds}
        write_json(options.out, content)


if __name__ == "__main__":
    main()
