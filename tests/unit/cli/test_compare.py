"""`elsa compare` as a person types it."""

import pytest
from typer.testing import CliRunner

from elsa.cli.compare import _budget
from elsa.cli.main import app
from elsa.config.methods import METHODS
from elsa.errors import ConfigError


def test_the_list_names_every_method() -> None:
    shown = CliRunner().invoke(app, ["compare", "--list"]).stdout
    assert [line.split()[0] for line in shown.splitlines()] == list(METHODS)


@pytest.mark.parametrize(
    "words",
    [
        ["--methods", "fedavg", "nothing", "--seeds", "0", "1"],
        ["--methods", "fedavg,nothing", "--seeds", "0,1"],
        ["--seeds", "3", "--methods", "fedavg", "--methods", "nothing"],
    ],
)
def test_several_words_follow_an_option(words: list[str]) -> None:
    result = CliRunner().invoke(app, ["compare", *words])
    assert isinstance(result.exception, ConfigError)
    assert "'nothing' is no method" in str(result.exception)


def test_words_that_are_no_numbers_are_refused() -> None:
    result = CliRunner().invoke(app, ["compare", "--seeds", "0", "one"])
    assert result.exit_code == 2
    assert "--seeds" in result.output


@pytest.mark.parametrize("jobs", range(5))
def test_runs_and_their_threads_fit_the_cores(jobs: int) -> None:
    side_by_side, threads = _budget(jobs)
    cores = max(_budget(0)[0], jobs)
    assert side_by_side >= 1
    assert 1 <= side_by_side * threads <= cores
