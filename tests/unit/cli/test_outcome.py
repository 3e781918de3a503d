from io import StringIO
from pathlib import Path
from typing import Any

from rich.console import Console

from elsa.cli.outcome import show


def shown(summary: dict[str, Any], directory: Path = Path("runs/one")) -> str:
    seen = StringIO()
    show(directory, summary, Console(file=seen, width=40))
    return seen.getvalue()


def test_table_shows_the_numbers_of_the_summary(finished: Any) -> None:
    summary = dict(finished.summary)
    lines = [line.rstrip() for line in shown(summary).splitlines()]
    values = dict(line.rsplit("  ", 1) for line in lines[:-2])
    values = {name.strip(): value.strip() for name, value in values.items()}
    assert values["test accuracy"] == f"{summary['accuracy']:.3f}"
    assert values["worst device"] == f"{summary['accuracy_worst_device']:.3f}"
    assert values["test loss"] == f"{summary['loss']:.3f}"
    assert values["samples trained on"] == str(summary["samples"])
    assert values["device to edge"] == f"{summary['bytes']['device_to_edge'] / 1000:.1f} kB"
    assert lines[-2:] == ["run      runs/one", "adapter  runs/one/adapter"]


def test_language_model_has_a_perplexity_and_perhaps_no_devices_scores(finished: Any) -> None:
    summary = finished.summary | {"perplexity": 12.345}
    for name in ("accuracy_mean_device", "accuracy_worst_device"):
        del summary[name]
    lines = shown(summary)
    assert "12.35" in lines or "12.34" in lines
    assert "worst device" not in lines


def test_tasks_have_a_line_each_below_their_mean(finished: Any) -> None:
    lines = shown(finished.summary | {"tasks": {"trec": 0.75, "sms": 0.9}}).splitlines()
    assert [line.split() for line in lines[1:3]] == [["trec", "0.750"], ["sms", "0.900"]]
    assert lines[0].startswith("test accuracy")


def test_paths_stay_whole_and_as_they_are(finished: Any) -> None:
    folder = Path("/a very long [red] path [/x] :smile:") / ("long" * 12)
    assert f"run      {folder}\n" in shown(dict(finished.summary), folder)


def test_what_the_cloud_of_real_machines_cannot_know_is_left_out(finished: Any) -> None:
    there = {hop: 0 if "device" in hop else size for hop, size in finished.summary["bytes"].items()}
    lines = shown(finished.summary | {"loss": None, "simulated_seconds": 0.0, "bytes": there})
    assert "edge to cloud" in lines
    for title in ("test loss", "simulated time", "device to edge", "edge to device"):
        assert title not in lines
