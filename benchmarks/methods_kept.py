"""What is kept of the comparison of methods: a small file a run, and one a plan.

OUT/cells/SETTING/METHOD/seed-N.json            a run that is reported
OUT/cells/tune-CORPUS/METHOD/rate-RATE.json    a run that a learning rate was chosen by
OUT/plans/CORPUS/METHOD.json                   what the cost model says of a method
"""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from measured import commit
from methods_cells import PARTS, RATES, Corpus, Part, Setting
from pydantic import TypeAdapter

from elsa.compare.cells import Cell
from elsa.compare.numbers import best_rate
from elsa.compare.outcome import Cost, Outcome, read_cost, read_outcome
from elsa.errors import RunError
from elsa.record.atomic import write_atomically
from elsa.record.events import DeviceJudged, DeviceLost, Poisoned
from elsa.record.log import read_events

_OUTCOME = TypeAdapter(Outcome)


@dataclass(frozen=True)
class Result:
    """A run.

    Attributes:
        outcome: its numbers.
        poisoned: devices that were.
        cut: edge rounds of poisoned and of honest devices whose update trust dropped, and how many
            were judged.
        lost: how often a device was lost.
    """

    outcome: Outcome
    poisoned: frozenset[str]
    cut: Mapping[str, tuple[int, int]]
    lost: int


class Kept:
    """The results below a folder."""

    def __init__(self, out: Path) -> None:
        """Take the folder, which need not be there."""
        self.out = out

    def has(self, setting: Setting, cell: Cell) -> bool:
        """Whether a cell's result is kept."""
        return self._path(setting, cell).is_file()

    def read(self, setting: Setting, cell: Cell) -> Result | None:
        """A cell's result; None if there is none.

        Raises:
            RunError: it was made with other settings.
        """
        path = self._path(setting, cell)
        if not path.is_file():
            return None
        held = json.loads(path.read_text("utf-8"))
        if held["settings"] != (known := setting.known_by(cell)):
            changed = ", ".join(sorted(set(held["settings"]) ^ set(known)))
            raise RunError(
                f"{path}: was made with other settings than this study's ({changed}); delete it, "
                "or take another --out"
            )
        outcome = _OUTCOME.validate_python(held["outcome"])
        cut = {name: (int(it[0]), int(it[1])) for name, it in held["cut"].items()}
        return Result(outcome, frozenset(held["poisoned"]), cut, held["lost"])

    def keep(self, setting: Setting, cell: Cell, folder: Path) -> None:
        """Keep what the run directory of a finished cell says."""
        content = {
            "outcome": asdict(read_outcome(folder, cell.method, cell.seed)),
            **_happened(folder),
            "settings": setting.known_by(cell),
            "commit": commit(),
        }
        _write(self._path(setting, cell), content)

    def rates(self, corpus: Corpus) -> dict[str, float]:
        """The learning rate of each method that has tried them all on a corpus."""
        found = {}
        for method, scores in self.tuned(corpus).items():
            rate = best_rate(scores) if len(scores) == len(RATES) else None
            if rate is not None:
                found[method] = rate
        return found

    def tuned(self, corpus: Corpus) -> dict[str, dict[float, float]]:
        """Mean accuracy on the devices' own held-out rows, by method and rate."""
        part = PARTS[f"tune-{corpus.name}"]
        found: dict[str, dict[float, float]] = {}
        for cell in part.cells({}):
            result = self.read(part.setting, cell)
            if result is not None and cell.rate is not None:
                found.setdefault(cell.method, {})[cell.rate] = result.outcome.own
        return found

    def without_plan(self, part: Part) -> list[str]:
        """Methods whose plan is not kept; none while learning rates are chosen."""
        if part.setting.tuning:
            return []
        return [it for it in part.methods if not self._plan(part.setting.corpus, it).is_file()]

    def keep_plan(self, corpus: Corpus, method: str, path: Path) -> None:
        """Keep a plan, if it is there."""
        cost = read_cost(path, method)
        if cost is not None and not self._plan(corpus, method).is_file():
            _write(self._plan(corpus, method), asdict(cost))

    def cost(self, corpus: Corpus, method: str) -> Cost | None:
        """What the cost model says of a method; None if it was not asked."""
        path = self._plan(corpus, method)
        return Cost(**json.loads(path.read_text("utf-8"))) if path.is_file() else None

    def _plan(self, corpus: Corpus, method: str) -> Path:
        return self.out / "plans" / corpus.name / f"{method}.json"

    def _path(self, setting: Setting, cell: Cell) -> Path:
        return self.out / "cells" / setting.name / f"{cell.name}.json"


def _happened(folder: Path) -> dict[str, Any]:
    seen = [it.event for it in read_events(folder / "events.jsonl")]
    evil = {name for it in seen if isinstance(it, Poisoned) for name in it.devices}
    judged = [it for it in seen if isinstance(it, DeviceJudged)]

    def cut(*, poisoned: bool) -> tuple[int, int]:
        own = [it for it in judged if (it.device in evil) == poisoned]
        return sum(it.weight == 0 for it in own), len(own)

    return {
        "poisoned": sorted(evil),
        "cut": {"poisoned": cut(poisoned=True), "honest": cut(poisoned=False)},
        "lost": sum(isinstance(it, DeviceLost) for it in seen),
    }


def _write(path: Path, content: Mapping[str, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, json.dumps(content).encode() + b"\n")
