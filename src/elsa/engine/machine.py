"""This machine and this process: how many threads, how large the caches of compiled kernels."""

import ctypes
import gc
import os
import platform
import sys
from pathlib import Path

import psutil
import torch

KERNELS_KEPT = 128
"""Compiled kernels that each of torch's two caches keeps; see `prepare`."""
_CACHES = ("LRU_CACHE_CAPACITY", "ONEDNN_PRIMITIVE_CACHE_CAPACITY")


def prepare(threads: int) -> int:
    """Set up this process to compute; call it before the first tensor is touched.

    Low precision matrix products on a CPU are compiled for every shape they meet, and torch keeps
    1,024 of them twice, about 0.3 MB each: batches of texts meet so many shapes that a long run
    would grow by half a gigabyte. A local step needs about 40 of them, so fewer do. Both sizes can
    be set from outside, by the names in `_CACHES`.

    Args:
        threads: compute threads; 0 takes one a physical core.

    Returns:
        How many threads.
    """
    for name in _CACHES:
        os.environ.setdefault(name, str(KERNELS_KEPT))
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    threads = threads or min(psutil.cpu_count(logical=False) or 1, cores or 1)
    torch.set_num_threads(threads)
    return threads


def give_back() -> None:
    """Return memory that was freed to the system; a device does it before it reads its segments.

    A tokenizer of 49,152 words takes 40 MB in small pieces, and the C library of Linux keeps them
    for later after they are freed, while a model's tensors are taken anew. Elsewhere: nothing.
    """
    gc.collect()
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None) if sys.platform == "linux" else None
    if trim is not None:
        trim(0)


def machine_facts() -> dict[str, str | int | float]:
    """System, processor, cores, threads, bytes of memory."""
    return {
        "system": platform.system(),
        "processor": _processor(),
        "cores": psutil.cpu_count(logical=False) or 1,
        "threads": torch.get_num_threads(),
        "memory_bytes": psutil.virtual_memory().total,
    }


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor()
