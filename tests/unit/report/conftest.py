"""Made-up runs with everything that a page can show, by the same dataclasses as real ones."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from elsa.config.schema import Config
from elsa.record import events
from elsa.record.directory import RunDirectory
from elsa.record.manifest import Manifest
from elsa.record.reading import RunRecord, read_run

Story = Callable[..., RunRecord]
BYTES = {
    "device_to_edge": 66_000_000,
    "edge_to_device": 65_000_000,
    "edge_to_cloud": 600_000,
    "cloud_to_edge": 600_000,
    "uncompressed_padded_float32": 280_000_000,
}


@pytest.fixture
def story(tmp_path: Path) -> Story:
    """Writes a run of `rounds` rounds to a folder and reads it back.

    Everything that is text in it begins with `word`; `done` rounds of it are there, all by default.
    """

    def tell(
        name: str = "run", word: str = "", rounds: int = 4, done: int | None = None
    ) -> RunRecord:
        last = rounds if done is None else done
        devices = tuple(f"{word}device-{number}" for number in range(4))
        with RunDirectory.create(tmp_path / name, manifest(word, rounds)) as run:
            _begin(run, devices, word, rounds)
            for number in range(last):
                _round(run, number, devices, word)
            if done is None:
                run.write_summary(SUMMARY | {"rounds": rounds})
                run.events.append(events.RunFinished(rounds, {}))
            (run.path / "audit").mkdir()
            attacks = {f"{word}arm": [_attack(word, value) for value in (0.9, 0.2)]}
            text = json.dumps({"attacks": attacks})
            (run.path / "audit" / "audit.json").write_text(text, encoding="utf-8")
        return read_run(tmp_path / name)

    return tell


SUMMARY: dict[str, Any] = {
    "accuracy": 0.9,
    "wall_seconds": 100.0,
    "peak_rss_bytes": 1_500_000_000,
    "bytes": {"evaluation": 20_000_000},
}


def manifest(word: str, rounds: int) -> Manifest:
    config = Config().model_dump(mode="json")
    config["federation"]["rounds"] = rounds
    config["data"]["path"] = f"{word}mine.csv"
    config[f"{word}unknown"] = {f"{word}key": f"{word}value"}
    return Manifest(
        name=f"{word}name",
        created=1.7e9,
        seed=1,
        config=config,
        config_toml="",
        versions={f"{word}package": f"{word}1.0"},
        machine={"processor": f"{word}processor", "memory_bytes": 8e9},
        model={f"{word}model.safetensors": f"{word}ab"},
        data={f"{word}rows.csv": f"{word}cd"},
    )


def _begin(run: RunDirectory, devices: tuple[str, ...], word: str, rounds: int) -> None:
    run.events.append(events.RunStarted(0, rounds, len(devices), 2))
    for number, name in enumerate(devices):
        edge = "" if number == 3 else f"{word}edge-{number % 2}"
        run.events.append(events.DevicePlaced(-1, name, edge, "", -1, 0.1, f"{word}why"))
    pieces = {"weights": 30e6, "adapters": 1e6, "step": 10e6}
    rows = [
        {
            "device": name,
            "split": [1 + number % 2, 4 - number % 2, 1],
            "memory": pieces,
            "whole_memory": {piece: 2 * size for piece, size in pieces.items()},
            "flops": 3e9,
            "whole_flops": 9e9,
            "memory_limit": 1e8,
        }
        for number, name in enumerate(devices)
    ]
    run.write_plan({"devices": rows})


def _round(run: RunDirectory, number: int, devices: tuple[str, ...], word: str) -> None:
    say = run.events.append
    say(events.Poisoned(number, f"{word}attack", devices[:1]))
    say(events.SplitsChosen(number, {devices[0]: (1, 4, 1)}))
    for place, name in enumerate(devices):
        edge, cut = f"{word}edge-{place % 2}", place == 0
        loss = 1.5 / (number + 1) + 0.1 * place
        say(events.DeviceFinished(number, 0, edge, name, 160, loss, 5.0))
        weight, why = (0.0, f"{word}against the others") if cut else (0.9, "")
        say(
            events.DeviceJudged(
                number, 0, name, place % 2, 0.1, 0.2, 0.1 + 0.2 * place, weight, why
            )
        )
    say(events.DeviceLost(number, f"{word}edge-0", devices[1], f"{word}no answer"))
    say(events.RoundFinished(number, 1.5 / (number + 1), 640, 20.0, 11.0, BYTES))
    say(events.NoiseSpent(number, "label", number + 1, 11.5 + number, 1e-5))
    say(events.TaskEvaluated(number, f"{word}task", 0.5, 0.8))
    say(events.Evaluated(number, 1.0 / (number + 1), 0.5 + 0.1 * number, 0.5, 0.4, 3.0, 0.1))
    arrays = {
        "devices": np.array(devices),
        "labels": np.array([0, 1, 0, 1]),
        "apart": np.zeros((4, 4)),
        "plane": np.array([[0.0, 1.0], [1.0, 0.0], [-1.0, 0.0], [0.3, 0.2]]),
    }
    file = f"clusters/round-{number:06d}.npz"
    run.write_arrays(file, arrays)
    say(events.Clustered(number, 2, 1, 0, file))
    edges = (f"{word}edge-1", f"{word}edge-0")
    say(events.DevicePlaced(number, devices[0], *edges, 1, 0.2, f"{word}closer"))


def _attack(word: str, value: float) -> dict[str, Any]:
    score = {"value": value, "low": value - 0.1, "high": value + 0.1, "chance": 0.06}
    return {
        "about": f"{word}tokens",
        "attack": f"{word}attack {value}",
        "measure": f"{word}share",
        "knows": f"{word}public text",
        "score": score,
    }
