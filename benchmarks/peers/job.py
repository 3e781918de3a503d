"""The one job that all arms do, and its files for the peers, as elsa has it.

A peer reads nothing but this folder and the model's own: the token ids of each device's rows, in
which order they come in which round, the common test rows, and the adapters that everybody starts
from, under the names that PEFT saves. elsa itself gets the same job as settings.
"""

import json
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from safetensors.torch import save_file

from elsa.config.load import load_config
from elsa.data.batches import Examples, eval_batches
from elsa.engine.build import build_federation, initial_of, open_sources
from elsa.engine.codecs import prepare_codecs
from elsa.engine.parts import encode
from elsa.model.tasks import Classification
from elsa.roles.device import Device

TEST_FRACTION = 0.0929
"""Of TREC's 5,382 questions: 500 to test on."""
EDGE_ROUNDS = 2
"""Averages at the edges in a global round of ELSA, as in the quick start."""


@dataclass(frozen=True)
class Job:
    """What is to be done.

    Attributes:
        devices: that train, all in every round.
        rounds: averages of all devices.
        steps: local steps of a device between two of them.
        threads: cores that an arm may use.
        seed: of the rows' places, their order, and the adapters to start from.
    """

    devices: int = 10
    rounds: int = 3
    steps: int = 12
    threads: int = 2
    seed: int = 0


def settings(job: Job, method: str, precision: str) -> list[str]:
    """What `elsa run --set` is told: the quick start's defaults but for these.

    Fresh optimizers every round and no rows kept back on the devices are what the peers do.
    """
    edge_rounds = 1 if method == "fedavg" else EDGE_ROUNDS
    return [
        f"run.method={method}",
        f"run.seed={job.seed}",
        f"run.threads={job.threads}",
        f"model.precision={precision}",
        f"data.test_fraction={TEST_FRACTION}",
        "data.holdout_fraction=0.0",
        f"federation.devices={job.devices}",
        f"federation.rounds={job.rounds}",
        f"federation.edges={1 if method == 'fedavg' else 2}",
        f"federation.edge_rounds={edge_rounds}",
        f"federation.local_steps={job.steps // edge_rounds}",
        "train.optimizer_state=reset",
        "evaluate.every=1",
    ]


def write(job: Job, folder: Path) -> dict[str, Any]:
    """Write the job for the peers; returns what `job.json` holds.

    What elsa compiles once for a processor is compiled here, as part of no run.
    """
    prepare_codecs(load_config(None, settings(job, "elsa", "float32")).wire)
    config = load_config(None, settings(job, "fedavg", "float32"))
    sources = open_sources(config)
    federation = build_federation(config, sources)
    model, pad_id = sources.model, sources.tokenizer.pad_id
    assert isinstance(model.task, Classification)
    folder.mkdir(parents=True, exist_ok=True)
    devices = [it for it in federation.devices.values() if isinstance(it, Device)]
    for number, device in enumerate(devices):
        batches = [list(batch.rows) for batch in islice(device.stream(), job.rounds * job.steps)]
        rows = _rows(device.training)
        _write(folder / f"device-{number}.json", {**rows, "batches": batches})
    test, size = encode(sources.text.test, sources.tokenizer, config), config.evaluate.batch_size
    batches = [list(batch.rows) for batch in eval_batches(test, size, pad_id)]
    _write(folder / "test.json", {**_rows(test), "batches": batches})
    save_file(initial_of(sources, job.seed), folder / "initial.safetensors")
    content = {
        **asdict(job),
        "model": str(model.checkpoint.directory.resolve()),
        "labels": model.task.labels,
        "pad_id": pad_id,
        "rank": model.lora.rank,
        "alpha": model.lora.alpha,
        "targets": list(model.lora.targets or model.checkpoint.family.targets),
        "learning_rate": config.train.learning_rate,
        "weight_decay": config.train.weight_decay,
        "batch_size": config.train.batch_size,
        "rows": [len(device.training) for device in devices],
        "test_rows": len(test),
    }
    _write(folder / "job.json", content)
    return content


def _rows(examples: Examples) -> dict[str, Any]:
    assert examples.labels is not None
    assert examples.token_types is None
    ids = [row.tolist() for row in examples.input_ids]
    return {"input_ids": ids, "labels": examples.labels.tolist()}


def _write(path: Path, content: Any) -> None:
    path.write_text(json.dumps(content), encoding="utf-8")
