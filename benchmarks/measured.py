"""What every benchmark shares: the machine it ran on, a table for people, JSON for the record."""

import json
import os
import platform
import subprocess
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from elsa.engine.machine import machine_facts
from elsa.engine.provenance import versions
from elsa.record.atomic import write_atomically


def machine() -> dict[str, Any]:
    """Processor, cores, memory and versions."""
    return {"system": platform.platform(), **machine_facts(), "versions": versions()}


def commit() -> str | None:
    """The commit of this code, "-dirty" where files differ; None without git."""
    command = ["git", "describe", "--always", "--dirty", "--abbrev=12", "--exclude=*"]
    folder = Path(__file__).parent
    try:
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return None
    return done.stdout.strip()


def run_alone(settings: Iterable[str], folder: Path) -> int:
    """`elsa run` with these settings into `folder`/run, as a process of its own.

    Returns the bytes of its largest resident memory, by the operating system's account.
    """
    options = [part for it in settings for part in ("--set", it)]
    command = [sys.executable, "-m", "elsa.cli.main", "run", "--json", "--out", f"{folder}/run"]
    log = folder / "log"
    with log.open("wb") as file:
        process = subprocess.Popen([*command, *options], stdout=file, stderr=subprocess.STDOUT)
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        sys.exit(log.read_text(encoding="utf-8"))
    return usage.ru_maxrss * 1024


def print_table(rows: Sequence[Mapping[str, Any]]) -> None:
    """Print rows that have the same keys."""
    table = Table(*rows[0], box=None, pad_edge=False)
    for row in rows:
        table.add_row(*(f"{it:.4g}" if isinstance(it, float) else str(it) for it in row.values()))
    Console(width=140).print(table)


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """Write results together with the command that made them."""
    command = " ".join(["python", *sys.argv])
    path.parent.mkdir(parents=True, exist_ok=True)
    text = json.dumps({"command": command, **content}, indent=1) + "\n"
    write_atomically(path, text.encode())
