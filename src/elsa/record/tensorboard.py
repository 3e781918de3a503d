"""Scalars as a TensorBoard event file, without torch or TensorFlow."""

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from elsa.errors import RunError

TAGS = {
    "loss": "train/loss",
    "evaluation_loss": "test/loss",
    "accuracy": "test/accuracy",
    "accuracy_mean_device": "test/accuracy_mean_device",
    "accuracy_worst_device": "test/accuracy_worst_device",
    "perplexity": "test/perplexity",
    "answers": "test/answers",
    "bytes_device_to_edge": "bytes/device_to_edge",
    "bytes_edge_to_device": "bytes/edge_to_device",
    "bytes_edge_to_cloud": "bytes/edge_to_cloud",
    "bytes_cloud_to_edge": "bytes/cloud_to_edge",
    "simulated_seconds": "cost/simulated_seconds",
    "wall_seconds": "cost/wall_seconds",
    "peak_rss_bytes": "cost/peak_rss_bytes",
}
"""Name of a number, and its tag in TensorBoard; the part before "/" is the group."""


class ScalarFile:
    """A new event file that takes the place of those in the folder."""

    def __init__(self, folder: Path) -> None:
        """Remove the folder's event files and begin a new one; raises RunError.

        TensorBoard's record format and messages are imported here because they take a quarter
        of a second.
        """
        from tensorboard.compat.proto.event_pb2 import Event
        from tensorboard.compat.proto.summary_pb2 import Summary
        from tensorboard.summary.writer.record_writer import RecordWriter

        self._event, self._summary = Event, Summary
        now = time.time()
        name = f"events.out.tfevents.{int(now * 1000):014d}.elsa"
        try:
            folder.mkdir(exist_ok=True)
            for old in folder.glob("events.out.tfevents.*"):
                old.unlink()
            self._writer = RecordWriter((folder / name).open("wb", buffering=0))
        except OSError as error:
            raise RunError(f"{folder}: cannot be written: {error.strerror}") from error
        self._write(Event(wall_time=now, file_version="brain.Event:2"))

    def add(self, step: int, numbers: Mapping[str, Any], wall_time: float) -> None:
        """Add the numbers that have a tag and a value; `wall_time` in seconds since 1970."""
        by_task = numbers["accuracy_by_task"] or {}
        tagged = {tag: numbers[name] for name, tag in TAGS.items()} | {
            f"{TAGS['accuracy']}_{task}": accuracy for task, accuracy in by_task.items()
        }
        values = [
            self._summary.Value(tag=tag, simple_value=value)
            for tag, value in tagged.items()
            if value is not None
        ]
        summary = self._summary(value=values)
        self._write(self._event(wall_time=wall_time, step=step, summary=summary))

    def close(self) -> None:
        """Close the file."""
        self._writer.close()

    def _write(self, event: object) -> None:
        try:
            self._writer.write(event.SerializeToString())  # type: ignore[attr-defined]
        except OSError as error:
            raise RunError(f"TensorBoard file: cannot be written: {error.strerror}") from error
