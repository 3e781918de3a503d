import dataclasses
import math
from collections.abc import Iterator
from contextlib import closing
from itertools import count
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tensorboard.backend.event_processing.event_file_loader import LegacyEventFileLoader

from elsa.errors import RunError
from elsa.record.metrics import COLUMNS, MetricsLog, RoundMetrics, read_metrics

ROW = RoundMetrics(
    round=0,
    loss=1.5,
    samples=320,
    evaluation_loss=1.25,
    accuracy=0.75,
    accuracy_mean_device=0.5,
    accuracy_worst_device=0.25,
    perplexity=None,
    answers=None,
    bytes_device_to_edge=100,
    bytes_edge_to_device=200,
    bytes_edge_to_cloud=10,
    bytes_cloud_to_edge=20,
    bytes_uncompressed_padded_float32=1000,
    simulated_seconds=30.5,
    wall_seconds=3.5,
    peak_rss_bytes=2**31,
)


def row(number: int) -> RoundMetrics:
    return dataclasses.replace(ROW, round=number, loss=1 / (number + 1))


def log_in(folder: Path, start: int = 0) -> MetricsLog:
    ticks: Iterator[int] = count(start)
    return MetricsLog(folder / "metrics.csv", folder / "tensorboard", lambda: float(next(ticks)))


def scalars(folder: Path) -> list[tuple[str, int, float, float]]:
    """Everything in the event files of a run: tag, step, value, wall-clock time."""
    return [
        (value.tag, event.step, value.simple_value, event.wall_time)
        for path in (folder / "tensorboard").iterdir()
        for event in LegacyEventFileLoader(str(path)).Load()
        for value in event.summary.value
    ]


optional = st.none() | st.floats(allow_nan=False)


@settings(max_examples=30)
@given(
    st.builds(
        RoundMetrics,
        round=st.integers(0, 10**6),
        loss=st.floats(allow_nan=False),
        simulated_seconds=st.floats(allow_nan=False),
        wall_seconds=st.floats(allow_nan=False),
        evaluation_loss=optional,
        accuracy=optional,
        accuracy_mean_device=optional,
        accuracy_worst_device=optional,
        perplexity=optional,
        answers=optional,
    )
)
def test_a_row_is_read_back_equal(
    tmp_path_factory: pytest.TempPathFactory, given_row: RoundMetrics
) -> None:
    folder = tmp_path_factory.mktemp("run")
    with closing(log_in(folder)) as log:
        log.append(given_row)
    assert read_metrics(folder / "metrics.csv") == [given_row]


def test_a_diverged_loss_is_kept(tmp_path: Path) -> None:
    log = log_in(tmp_path)
    log.append(dataclasses.replace(ROW, loss=math.nan))
    log.close()
    assert math.isnan(read_metrics(tmp_path / "metrics.csv")[0].loss)


def test_the_columns_stand_in_the_first_line_even_without_rows(tmp_path: Path) -> None:
    log_in(tmp_path).close()
    log_in(tmp_path).close()
    assert (tmp_path / "metrics.csv").read_text() == ",".join(COLUMNS) + "\n"


def test_tensorboard_has_every_measured_number_of_every_round(tmp_path: Path) -> None:
    log = log_in(tmp_path)
    log.append(row(0))
    log.append(row(1))
    log.close()
    found = scalars(tmp_path)
    assert ("train/loss", 0, 1.0, 0.0) in found
    assert ("train/loss", 1, 0.5, 1.0) in found
    assert ("test/accuracy", 1, 0.75, 1.0) in found
    assert ("bytes/device_to_edge", 1, 100.0, 1.0) in found
    assert not [tag for tag, *_ in found if "perplexity" in tag]


@pytest.mark.parametrize("reopened", [False, True])
def test_going_on_from_a_cut_writes_what_an_uninterrupted_run_writes(
    tmp_path: Path, reopened: bool
) -> None:
    whole = tmp_path / "whole"
    cut = tmp_path / "cut"
    whole.mkdir()
    cut.mkdir()
    log = log_in(whole)
    for number in range(4):
        log.append(row(number))
    log.close()

    log = log_in(cut)
    log.append(row(0))
    log.append(row(1))
    offset = log.offset()
    log.append(row(99))
    if reopened:
        log.close()
        (cut / "metrics.csv").write_bytes((cut / "metrics.csv").read_bytes() + b"3,0.5")
        log = log_in(cut, start=2)
    log.cut(offset)
    log._clock = iter([2.0, 3.0]).__next__
    log.append(row(2))
    log.append(row(3))
    log.close()
    assert (cut / "metrics.csv").read_bytes() == (whole / "metrics.csv").read_bytes()
    assert scalars(cut) == scalars(whole)


def test_cutting_everything_keeps_the_columns(tmp_path: Path) -> None:
    log = log_in(tmp_path)
    log.append(ROW)
    log.cut(0)
    log.close()
    assert read_metrics(tmp_path / "metrics.csv") == []
    assert (tmp_path / "metrics.csv").read_text() == ",".join(COLUMNS) + "\n"


def test_a_row_damaged_by_another_program_is_an_error_to_read_but_stops_no_run(
    tmp_path: Path,
) -> None:
    log = log_in(tmp_path)
    log.append(row(0))
    log.close()
    path = tmp_path / "metrics.csv"
    path.write_bytes(path.read_bytes() + b"spoilt,row\n")
    log = log_in(tmp_path)
    log.append(row(2))
    log.close()
    assert {step for _, step, *_ in scalars(tmp_path)} == {0, 2}
    with pytest.raises(RunError, match=r"metrics.csv, line 3: is no row"):
        read_metrics(path)
