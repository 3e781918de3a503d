"""`elsa doctor`: what a run needs, what is there, and how to get what is not."""

import platform
import shutil
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version

import psutil
from rich.console import Console
from rich.table import Table
from rich.text import Text

from elsa.data.assets import cache_dir, is_cached
from elsa.data.catalogue import ASSETS
from elsa.report.numbers import size

PACKAGES = ("torch", "transformers", "peft", "safetensors", "datasets", "flwr-datasets")
MEMORY = 2 * 10**9
DISK = 10**9


@dataclass(frozen=True)
class Finding:
    """One thing looked at.

    Attributes:
        what: its name.
        state: what was found.
        advice: what to do; empty if all is well.
        fatal: whether a run cannot do without.
    """

    what: str
    state: str
    advice: str = ""
    fatal: bool = False


def examine(console: Console | None = None) -> int:
    """Print all findings; return 1 if a run cannot start, else 0."""
    console = console or Console()
    table = Table("", "", "", box=None, show_header=False, pad_edge=False)
    fatal = False
    for finding in _findings():
        fatal |= finding.fatal
        mark = "missing" if finding.fatal else "note" if finding.advice else "ok"
        table.add_row(mark, finding.what, Text(finding.state))
        if finding.advice:
            table.add_row("", "", Text(finding.advice))
    console.print(table)
    return int(fatal)


def _findings() -> Iterator[Finding]:
    python = platform.python_version()
    old = sys.version_info < (3, 11)
    yield Finding("python", python, "install Python 3.11 or newer" if old else "", old)
    for package in PACKAGES:
        yield _package(package)
    yield _compute()
    free = psutil.virtual_memory().available
    yield Finding(
        "memory",
        f"{size(free)} free",
        f"the quick start takes about {size(MEMORY)}: close something" if free < MEMORY else "",
    )
    yield from _cache()


def _package(name: str) -> Finding:
    try:
        return Finding(name, version(name))
    except PackageNotFoundError:
        return Finding(name, "not installed", "run `make setup`, or pip install elsa", True)


def _compute() -> Finding:
    try:
        import torch
    except ImportError as error:
        advice = "install a PyTorch build that fits this machine; see the Makefile's first lines"
        return Finding("compute", f"PyTorch cannot be loaded: {error}", advice, True)
    from elsa.model.accelerator import chosen, fast_dtype

    cores, best = psutil.cpu_count(logical=False), chosen("auto")
    precision = str(fast_dtype(best)).removeprefix("torch.")
    found = f"{cores} cores, computes on {best.type} in {precision}, PyTorch {torch.__version__}"
    return Finding("compute", found)


def _cache() -> Iterator[Finding]:
    folder = cache_dir()
    above = next(parent for parent in (folder, *folder.parents) if parent.exists())
    free = shutil.disk_usage(above).free
    advice = f"less than {size(DISK)}: free some, or set ELSA_CACHE" if free < DISK else ""
    yield Finding("cache", f"{folder}, {size(free)} free", advice)
    for name, asset in ASSETS.items():
        fetched = "fetched" if is_cached(name) else f"{asset.package.megabytes} MB to fetch"
        yield Finding(f"asset {name}", f"{fetched}; {asset.licence}; {asset.description}")
