"""The command line, called in this process."""

import sys
from collections.abc import Callable
from dataclasses import dataclass

import pytest

from elsa.cli.main import main


@dataclass(frozen=True)
class Ended:
    """How a command ended: its exit status, standard output and standard error."""

    status: int
    told: str
    said: str


@pytest.fixture
def elsa(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[..., Ended]:
    """`elsa(...)` is what a person's `elsa ...` would give."""

    def call(*arguments: object) -> Ended:
        monkeypatch.setattr(sys, "argv", ["elsa", *map(str, arguments)])
        capsys.readouterr()
        with pytest.raises(SystemExit) as ended:
            main()
        told, said = capsys.readouterr()
        assert isinstance(ended.value.code, int)
        return Ended(ended.value.code, told, said)

    return call
