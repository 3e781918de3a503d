"""Loops are compiled once, kept, loaded without numba, and refuse what they were not made for."""

import math
import subprocess
import sys
import threading
from pathlib import Path
from time import sleep

import pytest
import torch

from elsa.core import allot, compiled
from elsa.core.cells import Cells
from elsa.core.compiled import FLOATS, Fixed
from elsa.errors import ConfigError

SHAPE = Cells((4,)).shape


@pytest.fixture
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Path, Path]:
    """Two places of this test's own; nothing is kept there, and nothing can be compiled."""
    places = tmp_path / "first", tmp_path / "second"
    monkeypatch.setattr(compiled, "_places", lambda: iter(places))
    monkeypatch.setattr(compiled, "_build", lambda: pytest.fail("compiled again"))
    return places


def test_numba_is_not_in_the_process_that_computes() -> None:
    code = (
        "import sys, torch; from elsa.core import allot; from elsa.core.cells import Cells;"
        "found = torch.empty(2, dtype=torch.float64);"
        "assert allot.measure(torch.ones(2, 4), Cells((4,)).shape, found) == 8;"
        "assert 'numba' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_what_is_kept_is_found_again(elsewhere: tuple[Path, Path]) -> None:
    assert not compiled.ready()
    compiled._keep(b"code")
    assert compiled.ready()
    assert compiled._kept() == b"code"
    assert [path.parent for path in elsewhere[0].parent.rglob("*.o")] == [elsewhere[0]]


def test_second_place_is_for_when_the_first_cannot_be_written(
    elsewhere: tuple[Path, Path],
) -> None:
    elsewhere[0].write_text("a file where a folder should be")
    compiled._keep(b"code")
    assert compiled._kept() == b"code"
    assert len(list(elsewhere[1].iterdir())) == 1


def test_nowhere_to_keep_it_is_no_error(elsewhere: tuple[Path, Path]) -> None:
    for place in elsewhere:
        place.write_text("a file where a folder should be")
    compiled._keep(b"code")
    assert not compiled.ready()


def test_one_compiles_at_a_time(elsewhere: tuple[Path, Path]) -> None:
    inside, most = [], []

    def work() -> None:
        with compiled._alone():
            inside.append(1)
            most.append(len(inside))
            sleep(0.05)
            inside.pop()

    threads = [threading.Thread(target=work) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert most == [1, 1, 1]


def test_without_a_place_for_a_lock_all_compile(elsewhere: tuple[Path, Path]) -> None:
    for place in elsewhere:
        place.write_text("a file where a folder should be")
    with compiled._alone(), compiled._alone():
        pass


@pytest.mark.parametrize("harm", [b"", b"short", b"\0" * 40])
def test_torn_code_counts_as_none(elsewhere: tuple[Path, Path], harm: bytes) -> None:
    compiled._keep(b"code")
    (path,) = elsewhere[0].iterdir()
    path.write_bytes(harm)
    assert not compiled.ready()


@pytest.mark.parametrize(
    ("program", "why"),
    [("import sys; sys.exit('no such\\nprocessor')", "processor"), ("", "ended without a word")],
)
def test_failure_to_compile_is_said_plainly(
    program: str, why: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake = tmp_path / "python"
    fake.write_text(f'#!/bin/sh\nexec "{sys.executable}" -c "{program}"\n')
    fake.chmod(0o755)
    monkeypatch.setattr(compiled.sys, "executable", str(fake))
    with pytest.raises(ConfigError, match=rf"{why}; mend it, or take wire\.preset = 'exact'"):
        compiled._build()


@pytest.mark.parametrize(
    "values",
    [
        torch.ones(2, 4, dtype=torch.float64),
        torch.ones(8),
        torch.ones(4, 2).T,
        torch.ones(2, 8)[:, ::2],
    ],
)
def test_other_tensors_are_refused(values: torch.Tensor) -> None:
    # Machine code would read whatever lies there.
    with pytest.raises(TypeError, match=r"allot\.measure"):
        allot.measure(values, SHAPE, torch.empty(2, dtype=torch.float64))


def test_fixed_tensors_are_looked_at_when_they_are_fixed() -> None:
    for tensor in (torch.ones(2), torch.ones(2, 2).double(), torch.ones(4).double()[::2]):
        with pytest.raises(TypeError):
            Fixed((FLOATS,), (tensor,))
    with pytest.raises(TypeError, match="is due"):
        other = Fixed((FLOATS,), (torch.ones(2).double(),))
        allot.measure(torch.ones(2, 4), other, torch.empty(2, dtype=torch.float64))


def test_wrong_number_of_arguments_is_refused() -> None:
    with pytest.raises(TypeError, match=r"allot\.measure\(\) missing 1"):
        allot.measure(torch.ones(2, 4), SHAPE)


def test_loops_may_call_the_c_library_and_nothing_else() -> None:
    # What numba adds for Python's sake is not there where they are loaded.
    code = compiled._kept()
    assert code is not None
    for name in (b"numba_gil_ensure", b"NRT_Free", b"PyErr_SetString"):
        assert name not in code


def test_name_follows_from_the_processor(monkeypatch: pytest.MonkeyPatch) -> None:
    from llvmlite import binding

    here = compiled._name.__wrapped__()
    monkeypatch.setattr(binding, "get_host_cpu_name", lambda: "another")
    assert compiled._name.__wrapped__() != here


def test_numbers_go_in_and_out() -> None:
    found = torch.full((2,), math.nan, dtype=torch.float64)
    assert allot.measure(torch.full((2, 4), 3.0), SHAPE, found) == 72.0
    assert found.tolist() == [36.0, 36.0]
