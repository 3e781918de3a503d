"""metrics.csv: a row a global round; and the same numbers for TensorBoard."""

import csv
import io
import json
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, dataclass, fields
from pathlib import Path

from pydantic import TypeAdapter

from elsa.errors import RunError
from elsa.record.lines import LineFile, read_lines
from elsa.record.tensorboard import ScalarFile


@dataclass(frozen=True)
class RoundMetrics:
    """The numbers of one global round; None, an empty cell, is what was not measured.

    Attributes:
        round: global round, from 0.
        loss: mean training loss over the round's samples.
        samples: rows trained on in this round, repeats counted.
        evaluation_loss: of the global adapters after this round, like the next five.
        accuracy: on the common test rows.
        accuracy_mean_device: mean over the devices' own held-out rows, device by device.
        accuracy_worst_device: least of them.
        perplexity: of a language model.
        answers: share of answers without a wrong token.
        bytes_*: bytes on the wire in this round, by hop.
        bytes_uncompressed_padded_float32: the same exchanges as padded float32.
        simulated_seconds: length of this round on the virtual clock.
        wall_seconds: length of this round on the wall clock.
        peak_rss_bytes: the process's largest resident memory so far.
        accuracy_by_task: where there are several tasks, of each; a JSON table in the file.
    """

    round: int
    loss: float
    samples: int
    evaluation_loss: float | None
    accuracy: float | None
    accuracy_mean_device: float | None
    accuracy_worst_device: float | None
    perplexity: float | None
    answers: float | None
    bytes_device_to_edge: int
    bytes_edge_to_device: int
    bytes_edge_to_cloud: int
    bytes_cloud_to_edge: int
    bytes_uncompressed_padded_float32: int
    simulated_seconds: float
    wall_seconds: float
    peak_rss_bytes: int
    accuracy_by_task: dict[str, float] | None = None


COLUMNS = (*(field.name for field in fields(RoundMetrics)), "time")
"""Columns of metrics.csv; `time` is when the row was written, in seconds since 1970."""

ROW = TypeAdapter(RoundMetrics)


class MetricsLog:
    """The metrics of a run, open for appending.

    The TensorBoard file is derived from metrics.csv: the first row appended after opening or
    cutting writes it anew, so a resumed run shows no step twice.
    """

    def __init__(
        self, path: Path, tensorboard: Path, clock: Callable[[], float] = time.time
    ) -> None:
        """Open metrics.csv, making it if it is not there.

        Args:
            path: the CSV file.
            tensorboard: folder of the TensorBoard file.
            clock: wall clock, in seconds since 1970.

        Raises:
            RunError: the file cannot be opened.
        """
        self._path = path
        self._file = LineFile(path)
        self._tensorboard = tensorboard
        self._scalars: ScalarFile | None = None
        self._clock = clock
        self._write_header()

    def append(self, row: RoundMetrics) -> None:
        """Add a round; raises RunError if it cannot be written."""
        if self._scalars is None:
            self._scalars = ScalarFile(self._tensorboard)
            self._replay(self._scalars)
        now = self._clock()
        cells = asdict(row) | {"time": now}
        self._file.append(_csv_line([_cell(value) for value in cells.values()]))
        self._scalars.add(row.round, asdict(row), now)

    def offset(self) -> int:
        """Return the length of metrics.csv in bytes, all of it flushed to the disk."""
        return self._file.offset()

    def cut(self, offset: int) -> None:
        """Remove the rows after `offset`."""
        self._file.cut(offset)
        self._write_header()
        self._close_scalars()

    def close(self) -> None:
        """Close the files."""
        self._file.close()
        self._close_scalars()

    def _write_header(self) -> None:
        if self._file.offset() == 0:
            self._file.append(_csv_line(list(COLUMNS)))

    def _replay(self, scalars: ScalarFile) -> None:
        """Write the rows so far; one that something else damaged must not stop the run."""
        for line in read_lines(self._path)[1:]:
            with suppress(ValueError):
                row, written = _parse(line)
                scalars.add(row.round, asdict(row), written)

    def _close_scalars(self) -> None:
        if self._scalars is not None:
            self._scalars.close()
            self._scalars = None


def read_metrics(path: Path) -> list[RoundMetrics]:
    """Return the rows of a metrics.csv; a half-written last row is left out.

    Raises:
        RunError: a whole row is no row of metrics.
    """
    rows = []
    for number, line in enumerate(read_lines(path)[1:], start=2):
        try:
            rows.append(_parse(line)[0])
        except ValueError as error:
            raise RunError(f"{path}, line {number}: is no row of metrics: {line!r}") from error
    return rows


def _parse(line: bytes) -> tuple[RoundMetrics, float]:
    """Return a row and the time it was written at; raises ValueError."""
    cells = next(csv.reader([line.decode()]), [])
    values = {name: cell or None for name, cell in zip(COLUMNS, cells, strict=True)}
    written = float(values.pop("time") or "nan")
    by_task = values.pop("accuracy_by_task")
    tasks = {"accuracy_by_task": None if by_task is None else json.loads(by_task)}
    return ROW.validate_python(values | tasks), written


def _cell(value: object) -> str:
    if isinstance(value, dict):
        return json.dumps(value)
    return "" if value is None else repr(value)


def _csv_line(cells: list[str]) -> bytes:
    line = io.StringIO()
    csv.writer(line, lineterminator="").writerow(cells)
    return line.getvalue().encode()
