"""How much memory does a device need, against the sum of what it must hold?

A real device process trains a few steps over its own segments, with the edge server in this
process and every message serialised between the two. Its peak resident memory, read from outside,
less that of a process that has only imported the same modules, is set against what it must hold:
the frozen tensors of its segments, its adapters with gradients and moments, and one step's
activations (what autograd keeps between the passes, the hidden states that cross the wire, and one
chunk of logits). The measured memory has pages of the libraries in it that importing does not touch
and computing does; they are named beside it, as the system shares and drops them at will. Beside it
the same texts, batches and precision with plain `peft` on the whole model. Cases that are in the
file already are not run again. Prints a table, writes JSON.

    python benchmarks/device_memory.py --out docs/results/device-memory.json
"""

import argparse
import contextlib
import importlib
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from multiprocessing.connection import Client, Connection, Listener
from pathlib import Path
from typing import Any

from measured import machine, print_table, write_json

STEPS = 2
ROWS = 64
MODELS = {
    "minilm": {"path": "minilm", "data": "trec", "batch": 16, "tokens": 64},
    "smollm2": {"path": "smollm2", "data": "nq-open", "batch": 8, "tokens": 64},
}
CUTS = ((1, 1), (2, 2))
Case = dict[str, Any]


def settings(case: Case) -> list[str]:
    """The config of a case: one device of one edge, exact wire."""
    model = MODELS[case["model"]]
    lines = [
        f"model.path={model['path']}",
        f"data.path={model['data']}",
        f"data.limit={ROWS}",
        f"model.max_tokens={model['tokens']}",
        f"train.batch_size={model['batch']}",
        f"model.precision={case['precision']}",
        f"model.embeddings={case['embeddings']}",
        f"train.micro_batch={case['micro_batch']}",
        f"split.bottom={case['bottom']}",
        f"split.top={case['top']}",
        "partition.kind=iid",
        "run.threads=1",
    ]
    if case["model"] == "smollm2":
        lines += ["model.task=causal-lm", "data.answer=answer"]
    return lines


def opened(case: Case) -> tuple[Any, Any, Any]:
    """Config, model and encoded rows; the tokenizer is let go."""
    from elsa.config.load import load_config
    from elsa.engine.machine import give_back, prepare
    from elsa.engine.parts import encode, load_model, load_text, model_directory
    from elsa.model.tokenizer import load_tokenizer

    config = load_config(None, settings(case))
    prepare(1)
    directory = model_directory(config.model.path, lambda _: None)
    text = load_text(config, config.data, lambda _: None).train
    examples = encode(text, load_tokenizer(directory), config)
    give_back()
    return config, load_model(config, len(text.label_names), directory), examples


def device_of(case: Case) -> tuple[Any, Any, Any]:
    """The device of a case, with its model and its config."""
    from elsa.core.codec import EXACT
    from elsa.core.split import Split
    from elsa.data.batches import Examples
    from elsa.roles.device import Device, DeviceSettings
    from elsa.roles.learner import OptimizerSettings

    config, model, examples = opened(case)
    split = Split.of(model.checkpoint.blocks, case["bottom"], case["top"])
    settings = DeviceSettings(
        OptimizerSettings(1e-3, 0.0, keep_moments=True),
        config.train.batch_size,
        config.train.batch_size,
        False,
        0,
        0,
        micro_batch=config.train.micro_batch,
    )
    device = Device("d", model.segments(split), examples, Examples([]), EXACT, settings)
    return device, model, config


def run_device(case: Case, link: Connection) -> None:
    """The device process: train one edge round over the link."""
    from elsa.wire.serde import decode, encode

    device, _, _ = device_of(case)
    exchange = device.train(0, 0)
    request = next(exchange)
    while True:
        link.send_bytes(encode(request))
        try:
            request = exchange.send(decode(link.recv_bytes()))
        except StopIteration:
            return


def run_whole(case: Case, link: Connection) -> None:  # noqa: ARG001
    """The same training with plain `peft` on the whole model, frozen weights in its precision."""
    import itertools

    import torch
    from peft import LoraConfig, get_peft_model
    from torch.nn import functional
    from transformers import AutoModelForCausalLM, AutoModelForTokenClassification

    from elsa.data.batches import BatchStream

    config, model, examples = opened(case)
    causal = config.model.task == "causal-lm"
    kind = AutoModelForCausalLM if causal else AutoModelForTokenClassification
    extra = {} if causal else {"num_labels": model.task.labels}
    dtype = getattr(torch, case["precision"])
    plain = kind.from_pretrained(model.checkpoint.directory, dtype=dtype, **extra)
    lora = LoraConfig(
        r=model.lora.rank,
        lora_alpha=int(model.lora.alpha),
        target_modules=list(model.checkpoint.family.targets),
        task_type="CAUSAL_LM" if causal else "TOKEN_CLS",
    )
    tuned = get_peft_model(plain, lora).train()
    optimizer = torch.optim.AdamW([p for p in tuned.parameters() if p.requires_grad], lr=1e-3)
    batches = BatchStream(examples, config.train.batch_size, 0, False, 0)
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


def run_libraries(case: Case, link: Connection) -> None:  # noqa: ARG001
    """Import the modules that a device ends with, and touch nothing."""
    for name in case["modules"]:
        with contextlib.suppress(Exception):  # some can only be imported by their own kind
            importlib.import_module(name)


def count(case: Case) -> dict[str, int]:
    """What a device must hold; bytes by kind."""
    import torch

    from elsa.data.batches import BatchStream
    from elsa.model.heads import CHUNK
    from elsa.model.segments import initial_adapters
    from elsa.roles.learner import Learner, OptimizerSettings
    from elsa.roles.local import LocalStep

    device, model, config = device_of(case)
    parts = (device.segments.bottom, device.segments.top)
    frozen = {
        tensor.untyped_storage().data_ptr(): tensor.untyped_storage().nbytes()
        for part in parts
        for tensor in part.frozen().values()
    }
    names = {name for part in parts for name in part.adapter_names}
    start = initial_adapters(model.checkpoint, model.task, model.lora, 0)
    own = {name: value for name, value in start.items() if name in names}
    learner = Learner(own, OptimizerSettings(1e-3, 0.0, keep_moments=True))
    not_activations = {*frozen, *(p.data_ptr() for p in learner.parameters.values())}
    batch = next(BatchStream(device._training, config.train.batch_size, 0, False, 0))
    step = LocalStep(*parts, learner.parameters, batch, None, config.train.micro_batch)
    live: dict[int, int] = {}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in not_activations:
            live[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        h1 = step.up()
        below = sum(live.values())
        live.clear()
        # The graphs of the top's micro-batches come one after the other: the largest counts.
        step._batches = step._batches[:1]
        step.learn(h1[: sum(step._batches[0].lengths)])
    above = sum(live.values())
    logits = 0
    if config.model.task == "causal-lm":
        rows = min(CHUNK // model.checkpoint.vocabulary, sum(len(row) for row in batch.labels))
        # The logits, their softmax in float32, and where they are bfloat16 their gradient.
        logits = 8 * rows * model.checkpoint.vocabulary
    return {
        "frozen": sum(frozen.values()),
        "adapters": 4 * sum(4 * value.numel() for value in own.values()),
        "activations": below + above + 4 * h1.nbytes,
        "logits": logits,
    }


JOBS: dict[str, Callable[[Case, Connection], None]] = {
    "device": run_device,
    "whole": run_whole,
    "libraries": run_libraries,
}


def child(address: str) -> None:
    """A process of its own: do the job that the parent names, then wait to be measured."""
    with Client(address) as link:
        job, case = link.recv()
        JOBS[job](case, link)
        link.send(list(sys.modules))
        link.recv_bytes()


def serve(case: Case, link: Connection) -> None:
    """The edge server of a device process, until its update has come."""
    from elsa.core.codec import EXACT
    from elsa.model.segments import initial_adapters
    from elsa.roles.edge import Edge, EdgeModel
    from elsa.roles.learner import OptimizerSettings
    from elsa.roles.trunk import PerDeviceTrunk
    from elsa.wire.messages import RoundOrder, Update
    from elsa.wire.serde import decode, encode

    config, model, _ = opened(case)
    checkpoint = model.checkpoint
    known = EdgeModel(
        checkpoint.blocks, checkpoint.hidden_size, config.model.max_tokens, model.trunk, 0
    )
    trunks = PerDeviceTrunk(OptimizerSettings(1e-3, 0.0, keep_moments=True))
    edge = Edge("edge", known, trunks, lambda _: EXACT)
    adapters = initial_adapters(checkpoint, model.task, model.lora, 0)
    edge.open(RoundOrder(0, 1, STEPS, ("d",), adapters))
    message: Any = None
    while not isinstance(message, Update):
        message = decode(link.recv_bytes())
        link.send_bytes(encode(edge.handle("d", message)))


def peak(job: str, case: Case) -> tuple[int, int, list[str]]:
    """A process that does this job: peak resident bytes, mapped files at the end, modules."""
    with tempfile.TemporaryDirectory() as folder:
        address = f"{folder}/link"
        with Listener(address) as listener:
            process = subprocess.Popen([sys.executable, __file__, "--child", address])
            with listener.accept() as link:
                link.send((job, case))
                if job == "device":
                    serve(case, link)
                modules: list[str] = link.recv()
                status = Path(f"/proc/{process.pid}/status").read_text(encoding="utf-8")
                link.send_bytes(b"bye")
            if process.wait():
                raise SystemExit(f"{job} {case} failed")
    sizes = {line.split(":")[0]: line.split()[1:2] for line in status.splitlines()}
    return int(sizes["VmHWM"][0]) * 1024, int(sizes["RssFile"][0]) * 1024, modules


def cases() -> Iterator[Case]:
    """The matrix, then what else makes a device smaller."""
    plain: Case = {"precision": "bfloat16", "micro_batch": 0, "embeddings": "auto"}
    for model in MODELS:
        for bottom, top in CUTS:
            yield {"model": model, "bottom": bottom, "top": top, **plain}
    small: Case = {"model": "smollm2", "bottom": 1, "top": 1, **plain}
    yield {**small, "micro_batch": 2}
    yield {**small, "embeddings": "int8"}


def main() -> None:
    """Measure every case, print and write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--child", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        child(options.child)
        return
    os.environ["OMP_NUM_THREADS"] = "1"
    rows: list[dict[str, Any]] = []
    if options.out and options.out.is_file():
        rows = json.loads(options.out.read_text(encoding="utf-8"))["rows"]
    known = [{key: row[key] for key in case} for case in cases() for row in rows]
    wholes = {row["model"]: round(row["whole_mb"] * 1e6) for row in rows}
    missing = [case for case in cases() if case not in known]
    libraries: dict[str, tuple[int, int]] = {}
    for case in missing:
        name = case["model"]
        highest, files, modules = peak("device", case)
        if name not in libraries:
            libraries[name] = peak("libraries", {**case, "modules": modules})[:2]
        alone, code = libraries[name]
        if name not in wholes:
            wholes[name] = peak("whole", case)[0] - alone
        measured, needed = highest - alone, count(case)
        total = sum(needed.values())
        rows.append(
            {
                **case,
                "libraries_mb": alone / 1e6,
                **{f"{kind}_mb": value / 1e6 for kind, value in needed.items()},
                "sum_mb": total / 1e6,
                "measured_mb": measured / 1e6,
                "of_it_code_mb": (files - code) / 1e6,
                "ratio": measured / total,
                "ratio_without_code": (measured - files + code) / total,
                "whole_mb": wholes[name] / 1e6,
                "of_whole": measured / wholes[name],
            }
        )
        print_table(rows[-1:])
        if options.out:
            write_json(options.out, {"machine": machine(), "rows": rows})
    print_table(rows)


if __name__ == "__main__":
    main()
