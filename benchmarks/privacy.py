"""What does each defence cost in accuracy, and what do attacks still learn from the transcript?

Each cell is one short run of `elsa run` with the settings of a corpus and of an arm; those of the
seeds in --attacked are recorded and attacked as `elsa audit` does it. Finished cells are kept, and
the same command goes on. Writes cells/CORPUS/ARM/SEED.json, failed.json, and of what is there
privacy.json, a table, and a plot for each corpus: accuracy lost against tokens that the best attack
reads.

    python benchmarks/privacy.py --out docs/results/privacy
"""

import argparse
import json
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from time import monotonic
from typing import Any

from measured import commit, machine, print_table
from privacy_table import plot, rows_of
from wire import write

from elsa.audit.audit import Settings
from elsa.cli.audit import attack_run
from elsa.config.load import load_config
from elsa.engine.machine import prepare
from elsa.engine.run import run
from elsa.errors import ElsaError

FROZEN = ("split.freeze=trunk", "split.top=2")
ARMS: Mapping[str, tuple[str, ...]] = {
    "none": (),
    "frozen-trunk": FROZEN,
    "noise-0.1": ("noise.ratio=0.1",),
    "noise-0.2": ("noise.ratio=0.2",),
    "noise-0.3": ("noise.ratio=0.3",),
    "ssop-16": ("ssop.rank=16", "ssop.angle=1.0"),
    "ssop-384": ("ssop.rank=384", "ssop.angle=1.0"),
    "ssop-384-batch": ("ssop.rank=384", "ssop.angle=1.0", "ssop.fresh=batch"),
    "bottom-3": ("split.bottom=3",),
    "2-bit": ("wire.h1=rotate+quantize:2:token:gauss",),
    "labels-1": ("noise.gradient_ratio=1.0",),
    "updates-0.01": ("noise.update_ratio=0.01",),
    "frozen-noise-0.1": (*FROZEN, "noise.ratio=0.1"),
    "frozen-noise-0.2": (*FROZEN, "noise.ratio=0.2"),
    "frozen-2-bit": (*FROZEN, "wire.h1=rotate+quantize:2:token:gauss"),
    "frozen-bottom-2": (*FROZEN, "split.bottom=2"),
    "frozen-updates-0.01": (*FROZEN, "noise.update_ratio=0.01"),
}
"""Defences, and what is sometimes taken for one: settings of `elsa run`."""

WIRE = "wire.preset=exact"
"""Of all arms that do not say otherwise."""

SHORT = ("federation.devices=6", "federation.edges=2", "evaluate.every=1000")


@dataclass(frozen=True)
class Corpus:
    """A model and its text.

    Attributes:
        preset: of the config.
        settings: besides.
        arms: that are run.
    """

    preset: str
    settings: tuple[str, ...]
    arms: Sequence[str]


CORPORA: Mapping[str, Corpus] = {
    "trec": Corpus("quickstart", ("federation.rounds=3", *SHORT), tuple(ARMS)),
    "sms": Corpus(
        "quickstart",
        ("data.path=sms", "data.limit=3000", "federation.rounds=1", *SHORT),
        tuple(ARMS),
    ),
    "smollm2": Corpus(  # not on its preset's text: that is what the attacker learns from
        "smollm2",
        ("data.path=trec", "data.answer=", "federation.rounds=1"),
        ("none", "frozen-trunk", "noise-0.3", "bottom-3"),
    ),
}


@dataclass(frozen=True)
class Cell:
    """One run."""

    corpus: str
    arm: str
    seed: int

    @property
    def name(self) -> str:
        """Of its file."""
        return f"{self.corpus}/{self.arm}/{self.seed}"


def settings_of(cell: Cell, extra: Sequence[str], *, attacked: bool) -> list[str]:
    """What is set of a cell's preset."""
    recording = ["audit.record_rounds=2"] if attacked else []
    corpus = CORPORA[cell.corpus]
    return [*recording, *corpus.settings, *extra, *ARMS[cell.arm], f"run.seed={cell.seed}"]


def outcome(cell: Cell, overrides: Sequence[str], settings: Settings | None) -> dict[str, Any]:
    """A run's scores, and its attacks where there are settings of them."""
    config = load_config(CORPORA[cell.corpus].preset, [WIRE, *overrides])
    with tempfile.TemporaryDirectory(prefix="privacy-") as folder:
        began = monotonic()
        done = run(config, out=Path(folder) / "run")
        trained = monotonic() - began
        rows = attack_run(done.directory, done.directory, settings, _say) if settings else []
    kept = ("accuracy", "loss", "samples", "epsilon", "delta", "bytes")
    return {
        **{name: done.summary.get(name) for name in kept},
        "attack": asdict(settings) if settings else None,
        "run_seconds": trained,
        "attack_seconds": monotonic() - began - trained,
        "rows": [asdict(row) for row in rows],
    }


def study(options: argparse.Namespace) -> None:
    """Run the cells that are not there yet; one that fails is noted, and the others go on."""
    end = monotonic() + 60 * options.limit_minutes if options.limit_minutes else float("inf")
    failed: dict[str, str] = {}
    cells = [
        Cell(corpus, arm, seed)
        for seed in options.seeds
        for corpus in options.corpora
        for arm in options.arms
        if arm in CORPORA[corpus].arms
    ]
    for cell in cells:
        path = options.out / "cells" / f"{cell.name}.json"
        attacked = cell.seed in options.attacked
        overrides = settings_of(
            cell, [f"run.threads={options.threads}", *options.extra], attacked=attacked
        )
        if path.is_file():
            if json.loads(path.read_text("utf-8"))["settings"] != overrides:
                sys.exit(f"{path} was made with other settings; delete it, or take another --out")
            continue
        if monotonic() > end:
            continue
        _say(f"{cell.name} begins")
        settings = replace(Settings(), texts=options.texts, seed=cell.seed) if attacked else None
        try:
            found = outcome(cell, overrides, settings)
        except ElsaError as error:
            failed[cell.name] = f"{type(error).__name__}: {error}"
            _say(f"{cell.name} FAILED: {failed[cell.name]}")
            continue
        facts = {"settings": overrides, "commit": commit(), "machine": machine()}
        write(path, found | facts)
    if failed or (options.out / "failed.json").is_file():
        write(options.out / "failed.json", failed)


def _say(line: str) -> None:
    sys.stderr.write(f"  {line}\n")


def main() -> None:
    """Run what is not there yet, then print the table and draw the plots."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--corpora", nargs="+", choices=list(CORPORA), default=list(CORPORA))
    parser.add_argument("--arms", nargs="+", choices=list(ARMS), default=list(ARMS))
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--attacked", type=int, nargs="+", default=[0], help="seeds to attack")
    parser.add_argument("--texts", type=int, default=64)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--limit-minutes", type=float, help="start no cell after so many")
    parser.add_argument("--only-table", action="store_true", help="run nothing")
    parser.add_argument(
        "--set", action="append", default=[], metavar="KEY=VALUE", dest="extra", help="in all cells"
    )
    options = parser.parse_args()
    prepare(options.threads)
    if not options.only_table:
        study(options)
    rows = rows_of(options.out, CORPORA, ARMS)
    if rows:
        write(options.out / "privacy.json", rows)
        plot(options.out, rows)
        print_table([{name: row[name] for name in row if name != "best"} for row in rows])


if __name__ == "__main__":
    main()
