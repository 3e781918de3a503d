"""A person's own rows and models run end to end, whatever form they have."""

import json
import math
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file

from elsa.engine.run import run
from elsa.errors import ConfigError, DataError, ModelError
from elsa.record.metrics import read_metrics

Rows = list[tuple[str, str]]
Traces = Callable[[Path], dict[str, Any]]


def write_jsonl(path: Path, columns: dict[str, list[Any]]) -> Path:
    rows = [dict(zip(columns, cells, strict=True)) for cells in zip(*columns.values(), strict=True)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def write_parquet(path: Path, columns: dict[str, list[Any]]) -> Path:
    import pandas

    pandas.DataFrame(columns).to_parquet(path)
    return path


def write_datasets(path: Path, columns: dict[str, list[Any]]) -> Path:
    import datasets

    datasets.disable_progress_bars()
    try:
        datasets.Dataset.from_dict(columns).save_to_disk(str(path))
    finally:
        datasets.enable_progress_bars()
    return path


FORMS = {"own.jsonl": write_jsonl, "own.parquet": write_parquet, "own": write_datasets}


@pytest.mark.parametrize("name", FORMS)
def test_form_of_the_file_does_not_matter(
    name: str, rows: Rows, make: Any, finished: Any, traces: Traces, tmp_path: Path
) -> None:
    questions, kinds = (list(column) for column in zip(*rows, strict=True))
    path = FORMS[name](tmp_path / name, {"question": questions, "kind": kinds, "unused": kinds})
    result = run(make(f"data.path={path}"), out=tmp_path / "run")
    assert traces(result.directory) == traces(finished.directory)


def test_pairs_with_groups_and_a_test_file_of_their_own(
    rows: Rows, make: Any, tmp_path: Path
) -> None:
    def pairs(name: str, start: int) -> Path:
        some = rows[start : start + 48]
        same = [int(a == b) for (_, a), (_, b) in zip(some, some[::-1], strict=True)]
        return write_jsonl(
            tmp_path / name,
            {
                "left": [text for text, _ in some],
                "right": [text for text, _ in reversed(some)],
                "same kind?": same,
                "ward": [f"ward {number % 3}" for number in range(48)],
            },
        )

    config = make(
        f"data.path={pairs('train.jsonl', 0)}",
        f"data.test={pairs('test.jsonl', 48)}",
        "data.text=left",
        "data.pair=right",
        "data.label=same kind?",
        "data.group=ward",
        "data.limit=0",
        "partition.kind=natural",
        "federation.rounds=1",
        "federation.trunk=shared",
        "data.holdout_fraction=0",
    )
    blind = config.model_copy(update={"data": config.data.model_copy(update={"pair": "left"})})
    summary = run(config, out=tmp_path / "run").summary
    assert summary["samples"] == 3 * 2 * 2 * 4
    assert "accuracy_worst_device" not in summary  # no device kept rows back
    labels = json.loads((tmp_path / "run" / "adapter" / "labels.json").read_bytes())
    assert labels == ["0", "1"]
    # The second text reaches the model.
    assert run(blind, out=tmp_path / "blind").summary["loss"] != summary["loss"]


def test_language_model_learns_from_text_alone(
    llama: Path, questions: Path, make: Any, tmp_path: Path
) -> None:
    config = make(
        f"model.path={llama}",
        "model.task=causal-lm",
        "split.top=0",
        "data.label=label",  # the default, and no column of this file
        "partition.kind=iid",
        "federation.local_steps=6",
    )
    result = run(config, out=tmp_path / "run")
    summary = result.summary
    assert summary["perplexity"] == pytest.approx(math.exp(summary["loss"]))
    assert 0 <= summary["accuracy_worst_device"] <= summary["accuracy_mean_device"] < 1
    first, last = read_metrics(result.directory / "metrics.csv")
    assert last.loss < first.loss
    adapter = load_file(result.directory / "adapter" / "adapter_model.safetensors")
    assert all(".lora_" in name for name in adapter)
    blocks = {name.split(".layers.")[1].split(".")[0] for name in adapter}
    assert blocks == {"0", "1", "2"}
    assert all(bool(value.any()) for value in adapter.values())


def test_language_model_learns_answers_alone(
    llama: Path, rows: Rows, make: Any, tmp_path: Path
) -> None:
    """Questions with their class as the answer, in the model's own chat template."""
    chatty = shutil.copytree(llama, tmp_path / "llama")
    (chatty / "chat_template.jinja").write_text(
        "{% for turn in messages %}{{ turn['content'] }} [END] {% endfor %}"
    )
    questions, kinds = (list(column) for column in zip(*rows[:90], strict=True))
    columns = {"question": questions, "kind": kinds}
    settings = [
        f"model.path={chatty}",
        f"data.path={write_jsonl(tmp_path / 'own.jsonl', columns)}",
        "model.task=causal-lm",
        "data.answer=kind",
        "partition.kind=iid",
        "federation.local_steps=12",
        "train.micro_batch=3",
    ]
    result = run(make(*settings), out=tmp_path / "run")
    first, last = read_metrics(result.directory / "metrics.csv")
    assert last.loss < first.loss
    # The end of each answer is learned at once, the class is one of few: half of the tokens.
    assert result.summary["accuracy"] >= 0.5
    assert 0 <= result.summary["answers"] <= result.summary["accuracy"]
    chats = [
        [{"role": "user", "content": question}, {"role": "assistant", "content": kind}]
        for question, kind in zip(questions, kinds, strict=True)
    ]
    path = write_jsonl(tmp_path / "chats.jsonl", {"talk": chats})
    same = [f"data.path={path}", "data.messages=talk", "data.answer="]
    other = run(make(*settings, *same), out=tmp_path / "other")
    assert adapter_of(other.directory) == adapter_of(result.directory)


def adapter_of(run: Path) -> bytes:
    return (run / "adapter" / "adapter_model.safetensors").read_bytes()


def test_decoder_learns_to_classify(llama: Path, make: Any, tmp_path: Path) -> None:
    result = run(make(f"model.path={llama}", "split.top=0"), out=tmp_path / "run")
    assert 0 < result.summary["accuracy"] < 1
    first, last = read_metrics(result.directory / "metrics.csv")
    assert last.loss < first.loss
    config = json.loads((result.directory / "adapter" / "adapter_config.json").read_bytes())
    assert (config["task_type"], config["modules_to_save"]) == ("TOKEN_CLS", ["score"])


@pytest.mark.parametrize(
    ("settings", "error", "reason"),
    [
        (["data.answer=kind"], ModelError, "no chat template, which data.answer"),
        (["data.answer=kinds"], DataError, r"no column 'kinds' \(data.answer\).*mean 'kind'"),
        (["model.max_tokens=49"], ConfigError, "max_tokens = 49: .* takes at most 48"),
    ],
)
def test_what_cannot_be_learned_is_refused_before_anything_is_written(
    llama: Path, make: Any, tmp_path: Path, settings: list[str], error: Any, reason: str
) -> None:
    model = [f"model.path={llama}", "model.task=causal-lm", "partition.kind=iid"]
    with pytest.raises(error, match=reason):
        run(make(*model, *settings), out=tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_text_is_not_written_into_the_run(rows: Rows, make: Any, tmp_path: Path) -> None:
    secret = "zebra giraffe okapi"
    marked = [(f"{secret} {text}", kind) for text, kind in rows[:60]]
    questions, kinds = (list(column) for column in zip(*marked, strict=True))
    path = write_jsonl(tmp_path / "own.jsonl", {"question": questions, "kind": kinds})
    result = run(
        make(f"data.path={path}", "data.limit=0", "federation.rounds=1"), out=tmp_path / "run"
    )
    for written in result.directory.rglob("*"):
        if written.is_file():
            assert secret.encode() not in written.read_bytes(), written
