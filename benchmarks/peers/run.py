"""The same job by Flower, by NVFlare, and by elsa as FedAvg and as ELSA: what each costs.

MiniLM, TREC-6, LoRA of rank 8: the same rows on the same devices in the same order, from the same
adapters, with the same optimizer, on as many cores. Each run is a tree of processes, measured from
outside (`measuring.py`). Arms take turns; a ratio is taken within a turn. Every run that ended is
kept in the JSON file at once, and the same command goes on with those that are missing.

    python benchmarks/peers/environments.py
    python benchmarks/peers/run.py --out docs/results/peers.json --turns 2
"""

import argparse
import json
import os
import shutil
import signal
import sys
import tempfile
from dataclasses import asdict
from pathlib import Path

from arms import ARMS, PRECISIONS, Place
from comparison import Run, parity_of, rows_of
from environments import FOLDER, PEERS, interpreter
from job import Job, write
from measuring import measure

sys.path.append(str(Path(__file__).parents[1]))
from measured import commit, machine, print_table

from elsa.record.atomic import write_atomically


def one(name: str, precision: str, job: Job, job_folder: Path, options: argparse.Namespace) -> Run:
    """Run an arm once; stops with the end of what it printed if it failed."""
    arm = ARMS[name]
    with tempfile.TemporaryDirectory(prefix="peers-") as folder:
        place = Place(job_folder, Path(folder), options.environments, precision)
        load, log = os.getloadavg()[0], Path(folder) / "log"
        environment = arm.environment(job, place)
        # Elsewhere than in its sources, as Python takes the folder of a script for its own.
        cost = measure(arm.command(job, place), log, environment, options.limit, Path(folder))
        if options.logs:
            options.logs.mkdir(parents=True, exist_ok=True)
            shutil.copy(log, options.logs / f"{name}-{precision}.log")
        try:
            outcome = arm.outcome(place)
        except OSError:
            outcome = {}
        if cost.status or len(outcome.get("accuracy", ())) != job.rounds:
            printed = log.read_text(encoding="utf-8", errors="replace")
            sys.exit(f"{printed[-4000:]}\n{arm.title} ({precision}): status {cost.status}")
    return {"arm": name, "precision": precision, "load": load} | asdict(cost) | outcome


def main() -> None:
    """Measure what is missing, print and write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--turns", type=int, default=2)
    parser.add_argument("--arms", nargs="+", choices=ARMS, default=list(ARMS))
    parser.add_argument("--precisions", nargs="+", choices=PRECISIONS, default=list(PRECISIONS))
    for size, value in asdict(Job()).items():
        parser.add_argument(f"--{size}", type=int, default=value)
    parser.add_argument("--limit", type=float, default=1800.0, help="seconds that a run may take")
    parser.add_argument("--environments", type=Path, default=FOLDER)
    parser.add_argument(
        "--logs", type=Path, help="folder for what the last run of each arm printed"
    )
    options = parser.parse_args()
    options.environments = options.environments.resolve()
    for peer in PEERS:
        if not interpreter(options.environments, peer).exists():
            sys.exit(f"{options.environments}: make them with benchmarks/peers/environments.py")
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("ended from outside; finished runs are kept"))
    job = Job(**{size: getattr(options, size) for size in asdict(Job())})
    content: Run = {"job": asdict(job), "runs": []}
    if options.out.exists():
        content = json.loads(options.out.read_text(encoding="utf-8"))
        if content["job"] != asdict(job):
            sys.exit(f"{options.out} is of another job, {content['job']}: give another --out")
    runs: list[Run] = content["runs"]
    done = {(it["turn"], it["arm"], it["precision"]) for it in runs}
    with tempfile.TemporaryDirectory() as folder:
        written = write(job, Path(folder))
        shape = {key: written[key] for key in ("rows", "test_rows", "batch_size", "learning_rate")}
        for turn in range(options.turns):
            for precision in options.precisions:
                for name in options.arms:
                    if (turn, name, precision) in done:
                        continue
                    sys.stderr.write(f"turn {turn + 1}: {ARMS[name].title}, {precision}\n")
                    of = {"turn": turn, "commit": commit()}
                    runs.append(of | one(name, precision, job, Path(folder), options))
                    content = {
                        "command": "python benchmarks/peers/run.py --out docs/results/peers.json",
                        "machine": machine(),
                        "job": asdict(job),
                        "shape": shape,
                        "rows": rows_of(runs),
                        "parity": parity_of(runs),
                        "runs": runs,
                    }
                    text = json.dumps(content, indent=1) + "\n"
                    options.out.parent.mkdir(parents=True, exist_ok=True)
                    write_atomically(options.out, text.encode())
    print_table(rows_of(runs))


if __name__ == "__main__":
    main()
