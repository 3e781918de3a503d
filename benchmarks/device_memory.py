"""How much memory does a device need, against the sum of what it must hold?

`elsa device` as a process trains an edge round, with an edge and a cloud in this process and gRPC
between. The device is watched from outside: its peak resident memory, less that of a process that
has only imported the same modules, is set against what it must hold (`device_sum.py`). A device
lets go of code that only importing needs and looks better by that than it is; so its memory without
the pages of files, the libraries' code, is set against the sum too. Beside it, the same for plain
`peft` on the whole model with the same texts, batches and precision, and for a device with a model
of next to no size: what a device holds whatever the model. Cases that are in the file already are
not run again. Prints a table, writes JSON.

    python benchmarks/device_memory.py --out docs/results/device-memory.json
"""

import argparse
import atexit
import contextlib
import csv
import importlib
import itertools
import json
import os
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from threading import Thread
from time import sleep
from typing import Any

from measured import machine, print_table, write_json

STEPS = 4
ROWS = 64
NAME = "device-0"
SET_HERE = ("LRU_CACHE_CAPACITY", "ONEDNN_PRIMITIVE_CACHE_CAPACITY", "MKL_DISABLE_FAST_MM")
PAUSE = 0.01
"""Seconds between two looks at a process."""
MODELS: dict[str, tuple[str, ...]] = {
    "minilm": ("model.path=minilm", "train.batch_size=16"),
    "smollm2": (
        "model.path=smollm2",
        "train.batch_size=8",
        "model.task=causal-lm",
        "data.answer=answer",
    ),
}
CUTS = ((1, 1), (2, 2))
Case = dict[str, Any]


@dataclass(frozen=True)
class Peak:
    """Most bytes that a process held: resident in all, and without pages of files."""

    resident: int
    private: int


def settings(case: Case, rows: Path) -> list[str]:
    """The config of a case: one device of one edge, exact wire."""
    own = MODELS.get(case["model"], (f"model.path={case['model']}", "train.batch_size=16"))
    lines = [
        *own,
        f"data.path={rows}",
        "data.text=text",
        "model.max_tokens=64",
        "data.holdout_fraction=0",
        "wire.preset=exact",
        f"model.precision={case['precision']}",
        f"model.embeddings={case['embeddings']}",
        f"train.micro_batch={case['micro_batch']}",
        f"split.bottom={case['bottom']}",
        f"split.top={case['top']}",
        "partition.kind=iid",
        "federation.devices=1",
        "federation.edges=1",
        "federation.rounds=1",
        "federation.edge_rounds=1",
        f"federation.local_steps={STEPS}",
        "deploy.reconnect_seconds=600",
        "deploy.answer_seconds=600",
        "deploy.round_seconds=3000",
        "run.threads=1",
    ]
    if "model.task=causal-lm" not in own:
        lines += ["data.label=label", f"data.labels={json.dumps(['a', 'b', 'c', 'd', 'e', 'f'])}"]
    return lines


def write_rows(case: Case, path: Path) -> None:
    """The device's own rows: TREC questions, or NQ-open's with their answers."""
    from elsa.data.sources import load_table
    from elsa.data.table import Columns

    causal = case["model"] == "smollm2"
    columns = Columns("text", "", "", "", answer="answer") if causal else Columns("text")
    table = load_table("nq-open" if causal else "trec", columns)
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["text", "answer" if causal else "label"])
        for row in range(ROWS):
            if table.chat is not None:
                writer.writerow([turn.content for turn in table.chat[row]])
            else:
                assert table.label is not None
                writer.writerow([table.text[row], "abcdef"[table.label[row]]])


def run_whole(case: Case, rows: Path) -> None:
    """The same training with plain `peft` on the whole model, frozen weights in its precision."""
    import torch
    from device_sum import opened
    from peft import LoraConfig, get_peft_model
    from torch.nn import functional
    from transformers import AutoModelForCausalLM, AutoModelForTokenClassification

    from elsa.config.load import load_config
    from elsa.data.batches import BatchStream
    from elsa.engine.machine import give_back

    config = load_config(None, settings(case, rows))
    device, model = opened(config, rows)
    examples = device.training
    give_back()
    causal = config.model.task == "causal-lm"
    kind = AutoModelForCausalLM if causal else AutoModelForTokenClassification
    extra = {} if causal else {"num_labels": len(config.data.labels)}
    dtype = getattr(torch, case["precision"])
    plain = kind.from_pretrained(model.checkpoint.directory, dtype=dtype, **extra)
    lora = LoraConfig(
        r=model.lora.rank,
        lora_alpha=int(model.lora.alpha),
        target_modules=list(model.checkpoint.family.targets),
        task_type="CAUSAL_LM" if causal else "TOKEN_CLS",
    )
    del device, model
    tuned = get_peft_model(plain, lora).train()
    optimizer = torch.optim.AdamW([p for p in tuned.parameters() if p.requires_grad], lr=1e-3)
    batches = BatchStream(examples, config.train.batch_size, 0, True, 0)
    for batch in itertools.islice(batches, STEPS):
        with torch.autocast("cpu", torch.bfloat16, enabled=dtype == torch.bfloat16):
            if causal:
                loss = tuned(
                    input_ids=batch.input_ids, attention_mask=batch.mask, labels=batch.labels
                ).loss
            else:
                logits = tuned(input_ids=batch.input_ids, attention_mask=batch.mask).logits
                loss = functional.cross_entropy(logits.float().mean(1), batch.labels)
        torch.autograd.backward(loss)
        optimizer.step()
        optimizer.zero_grad()


def child(job: str, words: Sequence[str]) -> None:
    """A process that is watched: a device, the whole model, or imports alone."""
    if job == "device":
        atexit.register(lambda: Path(words[0]).write_text(json.dumps(list(sys.modules))))
        sys.argv = ["elsa", "device", *words[1:]]
        importlib.import_module("elsa.cli.main").main()
    elif job == "whole":
        run_whole(json.loads(words[0]), Path(words[1]))
    else:
        if job == "libraries of a device":
            importlib.import_module("elsa.model.lean").import_lean()
        for name in json.loads(Path(words[0]).read_text()):
            with contextlib.suppress(Exception):  # some can only be imported by their own kind
                importlib.import_module(name)


def own_environment() -> dict[str, str]:
    """That of this process without what it has set for itself."""
    return {name: value for name, value in os.environ.items() if name not in SET_HERE}


def watched(job: str, *words: str) -> Peak:
    """Run such a process to its end, watching."""
    command = [sys.executable, __file__, "--child", job, *words]
    process = subprocess.Popen(command, env=own_environment())
    status = Path(f"/proc/{process.pid}/status")
    reset = Path(f"/proc/{process.pid}/clear_refs")
    resident = private = files = 0
    while process.poll() is None:
        with contextlib.suppress(OSError, KeyError):
            lines = status.read_text(encoding="utf-8").splitlines()
            sizes = {line.split(":")[0]: line.split()[1:2] for line in lines}
            highest, code = int(sizes["VmHWM"][0]), int(sizes["RssFile"][0])
            resident = max(resident, highest)
            # The peak since the last look, with the code of then or of now.
            private = max(private, highest - max(files, code))
            files = code
            reset.write_text("5")  # the peak begins anew
        sleep(PAUSE)
    if process.returncode:
        raise SystemExit(f"{job} {words} ended with {process.returncode}")
    return Peak(resident * 1024, private * 1024)


def device_peak(case: Case, rows: Path, folder: Path) -> tuple[Peak, Path]:
    """A device process that trains with an edge and a cloud in this one, over gRPC on loopback.

    Returns:
        Its peak, and a list of the modules that it imported.
    """
    from elsa.config.load import load_config
    from elsa.engine.deploy.cloud import run_cloud
    from elsa.engine.deploy.edge import run_edge
    from elsa.wire.rpc.security import Loopback

    with socket.create_server(("127.0.0.1", 0)) as free:
        address = f"127.0.0.1:{free.getsockname()[1]}"
    config, modules = load_config(None, settings(case, rows)), folder / "modules.json"
    parties = [
        Thread(target=run_edge, args=(config, address, Loopback("edge-0"))),
        Thread(
            target=run_cloud,
            args=(config, {"edge-0": address}, Loopback("cloud")),
            kwargs={"out": folder / "run"},
        ),
    ]
    for party in parties:
        party.start()
    sets = [word for line in settings(case, rows) for word in ("--set", line)]
    own = ["--edge", address, "--data", str(rows), "--name", NAME, "--insecure-loopback"]
    peak = watched("device", str(modules), *own, *sets)
    for party in parties:
        party.join()
    return peak, modules


def tiny(folder: Path) -> str:
    """A model of next to no size: what a device holds whatever the model."""
    from transformers import BertConfig, BertModel

    from elsa.engine.parts import model_directory
    from elsa.model.tokenizer import load_tokenizer

    tokens = load_tokenizer(model_directory("minilm", lambda _: None))
    tokens.save(folder / "tiny")
    sizes = {"vocab_size": 30522, "max_position_embeddings": 128, "intermediate_size": 8}
    config = BertConfig(hidden_size=8, num_hidden_layers=3, num_attention_heads=1, **sizes)
    BertModel(config).save_pretrained(folder / "tiny")
    return str(folder / "tiny")


def cases() -> Iterator[Case]:
    """The matrix, then what else makes a device smaller."""
    plain: Case = {"precision": "bfloat16", "micro_batch": 0, "embeddings": "auto"}
    for model in MODELS:
        for bottom, top in CUTS:
            yield {"model": model, "bottom": bottom, "top": top, **plain}
    small: Case = {"model": "smollm2", "bottom": 1, "top": 1, **plain}
    yield {**small, "micro_batch": 2}
    yield {**small, "embeddings": "int8"}
    yield {"model": "tiny", "bottom": 1, "top": 1, **plain}


def measured(case: Case, folder: Path, whole: float | None) -> dict[str, Any]:
    """A row of the table."""
    from device_sum import sums

    from elsa.config.load import load_config

    rows = folder / "rows.csv"
    write_rows(case, rows)
    real = {**case, "model": tiny(folder)} if case["model"] == "tiny" else case
    peak, modules = device_peak(real, rows, folder)
    alone = watched("libraries of a device", str(modules))
    if whole is None and case["model"] in MODELS:
        plain = watched("libraries", str(modules))
        whole = (watched("whole", json.dumps(real), str(rows)).private - plain.private) / 1e6
    needed = sums(load_config(None, settings(real, rows)), rows, STEPS)
    plan = needed.pop("plan")
    total = sum(needed.values())
    resident, private = peak.resident - alone.resident, peak.private - alone.private
    return {
        **case,
        "libraries_mb": alone.resident / 1e6,
        **{f"{kind}_mb": value / 1e6 for kind, value in needed.items()},
        "sum_mb": total / 1e6,
        "plan_mb": plan / 1e6,
        "resident_mb": resident / 1e6,
        "private_mb": private / 1e6,
        "resident_of_sum": resident / total,
        "private_of_sum": private / total,
        "private_of_plan": private / plan,
        "whole_mb": whole,
        "private_of_whole": private / 1e6 / whole if whole else None,
    }


def main() -> None:
    """Measure every case, print and write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--child", nargs=argparse.REMAINDER, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        child(options.child[0], options.child[1:])
        return
    os.environ["OMP_NUM_THREADS"] = "1"
    rows: list[dict[str, Any]] = []
    if options.out and options.out.is_file():
        rows = json.loads(options.out.read_text(encoding="utf-8"))["rows"]
    known = [{key: row[key] for key in case} for case in cases() for row in rows]
    wholes: dict[str, float] = {row["model"]: row["whole_mb"] for row in rows}
    for case in cases():
        if case in known:
            continue
        with tempfile.TemporaryDirectory() as folder:
            rows.append(measured(case, Path(folder), wholes.get(case["model"])))
        wholes[case["model"]] = rows[-1]["whole_mb"]
        print_table(rows[-1:])
        if options.out:
            write_json(options.out, {"machine": machine(), "rows": rows})
    print_table(rows)


if __name__ == "__main__":
    main()
