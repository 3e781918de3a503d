"""This machine and this process: how many threads, how large the caches of compiled kernels."""

import ctypes
import gc
import os
import platform
import sys
from contextlib import suppress
from pathlib import Path

import psutil
import torch

from elsa.model.accelerator import chosen, described

KERNELS_KEPT = 128
"""Compiled kernels that each of torch's two caches keeps; see `prepare`."""
_CACHES = ("LRU_CACHE_CAPACITY", "ONEDNN_PRIMITIVE_CACHE_CAPACITY")
_SPARING = {
    "LRU_CACHE_CAPACITY": "1",
    "ONEDNN_PRIMITIVE_CACHE_CAPACITY": "0",
    "MKL_DISABLE_FAST_MM": "1",  # MKL keeps its buffers otherwise
}
_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3
_PIECE = 2**18
"""Bytes from which on a piece of memory is taken from the system, and given back, by itself; the
compiler of kernels takes pieces just below it, 60 times a step."""
_KEPT = 2**20
"""Bytes that may lie free at the end of the C library's own heap."""
_DONT_NEED = 4


def prepare(threads: int, *, sparing: bool = False) -> int:
    """Set up this process to compute; call it before the first tensor is touched.

    Low precision matrix products on a CPU are compiled for every shape they meet, and torch keeps
    1,024 of them twice, about 0.3 MB each: batches of texts meet so many shapes that a long run
    would grow by half a gigabyte. A local step needs about 40 of them, so fewer do. Both sizes can
    be set from outside, by the names in `_CACHES`.

    A process that is to hold as little as it can keeps one of them, and has the C library of Linux
    return what is let go at once. Both cost it time (`docs/planning.md`), and change no result.

    Args:
        threads: compute threads; 0 takes one a physical core.
        sparing: whether memory counts for more than time, as on a device.

    Returns:
        How many threads.
    """
    sizes = _SPARING if sparing else dict.fromkeys(_CACHES, str(KERNELS_KEPT))
    for name, size in sizes.items():
        os.environ.setdefault(name, size)
    if sparing:
        _return_at_once()
    threads = threads or cores()
    torch.set_num_threads(threads)
    return threads


def cores() -> int:
    """Physical cores that this process may use."""
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return min(psutil.cpu_count(logical=False) or 1, usable or 1)


def give_back() -> None:
    """Return to the system what this process no longer needs; a device does it before it trains.

    Memory that was freed: a tokenizer of 49,152 words takes 40 MB in small pieces, and the C
    library of Linux keeps them for later, while a model's tensors are taken anew. And pages of
    the libraries' code: importing touches some 100 MB of them, of which training needs half; those
    that are needed come back by themselves. Elsewhere than on Linux: nothing.
    """
    gc.collect()
    if sys.platform != "linux":
        return
    library = ctypes.CDLL(None)
    trim, advise = getattr(library, "malloc_trim", None), getattr(library, "madvise", None)
    if trim is not None:
        trim(0)
    if advise is not None:
        for start, end in _code():
            advise(ctypes.c_void_p(start), ctypes.c_size_t(end - start), _DONT_NEED)


def _code() -> list[tuple[int, int]]:
    """Where code lies that was mapped from files and never written to."""
    found: list[tuple[int, int]] = []
    place: tuple[int, int] | None = None
    with suppress(OSError):
        for line in Path("/proc/self/smaps").read_text(encoding="utf-8").splitlines():
            words = line.split()
            if not words[0].endswith(":"):
                start, _, end = words[0].partition("-")
                mapped = len(words) > 5 and words[5].startswith("/") and words[1] == "r-xp"
                place = (int(start, 16), int(end, 16)) if mapped else None
            elif place and words[0] == "Anonymous:" and words[1] == "0":
                found.append(place)
    return found


def _return_at_once() -> None:
    change = getattr(ctypes.CDLL(None), "mallopt", None) if sys.platform == "linux" else None
    if change is not None:
        change(_MMAP_THRESHOLD, _PIECE)
        change(_TRIM_THRESHOLD, _KEPT)


def machine_facts() -> dict[str, str | int | float]:
    """System, processor, cores, threads, bytes of memory, and the best that it can compute on."""
    return {
        "system": platform.system(),
        "processor": _processor(),
        "cores": psutil.cpu_count(logical=False) or 1,
        "threads": torch.get_num_threads(),
        "memory_bytes": psutil.virtual_memory().total,
        "accelerator": described(chosen("auto")),
    }


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor()
