"""What a peer's run leaves behind: accuracy and loss of every round, bytes of model updates."""

import json
from pathlib import Path


class Outcome:
    """Written anew after every round."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._accuracy: list[float] = []
        self._loss: list[float] = []
        self._up = self._down = 0

    def add(self, accuracy: float, loss: float, *, up: int, down: int) -> None:
        """A round's scores, and the bytes of all its updates to and from the server."""
        self._accuracy.append(accuracy)
        self._loss.append(loss)
        self._up += up
        self._down += down
        content = {
            "accuracy": self._accuracy,
            "loss": self._loss,
            "bytes_up": self._up,
            "bytes_down": self._down,
        }
        self._path.write_text(json.dumps(content), encoding="utf-8")

    def check(self, rounds: int) -> None:
        """See that all rounds were there."""
        if len(self._accuracy) != rounds:
            raise SystemExit(f"{len(self._accuracy)} of {rounds} rounds were evaluated")
