from collections.abc import Sequence
from io import StringIO

from rich.console import Console

from elsa.cli.progress import Progress
from elsa.record import events
from elsa.record.events import Event

BYTES = {
    "device_to_edge": 2_000,
    "edge_to_device": 3_000,
    "edge_to_cloud": 400,
    "cloud_to_edge": 100,
    "uncompressed_padded_float32": 9_000,
}


def a_round(number: int) -> list[Event]:
    name = "device-[/0]"  # brackets mean something to rich, and must not here
    return [
        events.RoundStarted(number, (name, "device-1")),
        events.DeviceFinished(number, 0, "edge-0", name, 8, 1.5, 3.0),
        events.DeviceFinished(number, 0, "edge-0", "device-1", 8, 1.4, 2.0),
        events.DeviceLost(number, "edge-0", "device-1", "WireError: [bold] :smile:"),
        events.RoundFinished(number, 1.25, 16, 0.5, 130.0, BYTES),
        events.Evaluated(number, 1.125, 0.75, 0.5, 0.25),
        events.CheckpointSaved(number + 1),
    ]


def shown(happened: Sequence[Event], *, terminal: bool = False) -> str:
    seen = StringIO()
    console = Console(file=seen, width=60, force_terminal=terminal, legacy_windows=False)
    with Progress(console) as progress:
        for event in happened:
            progress.event(event)
    return seen.getvalue()


def test_log_has_a_line_a_round_and_one_for_each_loss() -> None:
    start: list[Event] = [events.RunStarted(0, 10, 2, 1), events.CheckpointSaved(0)]
    lines = shown([*start, *a_round(0), *a_round(1)]).splitlines()
    left_out = "  device-1 left out by edge-0: WireError: [bold] :smile:"
    assert lines[0] == "2 devices, 1 edges, 10 rounds"
    assert lines[1] == lines[3] == left_out
    expected = (
        "  loss 1.250  devices-edges 5.0 kB  edges-cloud 500 B  simulated 2 min 10 s, "
        "slowest device-[/0]  test loss 1.125  accuracy 0.750  worst device 0.250  left "
    )
    assert lines[2].startswith(f"round  1/10{expected}")
    assert lines[4].startswith(f"round  2/10{expected}")
    assert len(lines) == 5


def test_cloud_on_real_machines_shows_what_it_sees() -> None:
    there = dict.fromkeys(("device_to_edge", "edge_to_device"), 0)
    lines = shown([events.RoundFinished(0, 1.25, 16, 0.5, 0.0, BYTES | there), *a_round(0)[6:]])
    assert lines.startswith("round 1  loss 1.250  edges-cloud 500 B")
    assert "simulated" not in lines


def test_line_of_several_tasks_has_each() -> None:
    happened = a_round(0)
    happened[5:5] = [events.TaskEvaluated(0, task, 0.5, 0.625) for task in ("trec", "sms")]
    assert "  trec 0.625  sms 0.625  test loss 1.125" in shown(happened)


def test_last_round_has_no_time_left() -> None:
    lines = shown([events.RunStarted(0, 1, 2, 1), *a_round(0)]).splitlines()
    assert "left 0" not in lines[-1]
    assert lines[-1].endswith("worst device 0.250")


def test_resumed_run_says_where_it_goes_on() -> None:
    lines = shown([events.CheckpointSaved(4), events.RunStarted(4, 10, 2, 1), *a_round(4)])
    assert lines.splitlines()[0] == "2 devices, 1 edges, 10 rounds, 4 of them done"
    assert "round  5/10" in lines


def test_language_model_shows_its_perplexity() -> None:
    happened = [*a_round(0)[:5], events.Evaluated(0, 2.0, 0.5, perplexity=7.389)]
    lines = shown([*happened, events.CheckpointSaved(1)]).splitlines()
    assert lines[-1].endswith("test loss 2.000  accuracy 0.500  perplexity 7.39")


def test_round_that_was_not_saved_is_shown_when_it_ends_early() -> None:
    assert "round 1  loss 1.250" in shown(a_round(0)[:5])


def test_terminal_gets_the_same_lines_and_a_bar_that_goes_away() -> None:
    happened = [events.RunStarted(0, 10, 2, 1), *a_round(0)]
    live = shown(happened, terminal=True)
    assert "\x1b" in live
    assert "\x1b" not in shown(happened)
    for line in shown(happened).splitlines():
        assert line.split("  left ")[0] in live


def test_new_splits_are_told_in_a_line() -> None:
    splits = {"a": (1, 4, 1), "b": (2, 4, 0), "c": (1, 4, 1)}
    text = shown([events.SplitsChosen(3, splits)])
    assert "round 4: 3 devices have a new split p/o/q: 1/4/1, 2/4/0" in " ".join(text.split())
    assert "1 device has a new split" in shown([events.SplitsChosen(0, {"a": (1, 4, 1)})])
