from collections.abc import Callable
from io import StringIO
from typing import Any

import pytest
from rich.console import Console

from elsa.cli import doctor
from elsa.data.catalogue import ASSETS


def squeezed(text: str) -> str:
    """Without white space, which wrapping changes."""
    return "".join(text.split())


def test_all_is_well_here_and_every_licence_is_shown(elsa: Callable[..., Any]) -> None:
    ended = elsa("doctor")
    assert ended.status == 0
    assert "\x1b" not in ended.told
    lines = ended.told.splitlines()
    assert any(line.startswith("ok") and "torch" in line for line in lines)
    for name, asset in ASSETS.items():
        assert any(f"asset {name} " in line for line in lines)
        assert squeezed(asset.licence) in squeezed(ended.told)


def test_what_is_missing_is_named_with_the_way_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "PACKAGES", ("torch", "no-such-package"))
    seen = StringIO()
    assert doctor.examine(Console(file=seen, width=200)) == 1
    missing, advice = seen.getvalue().split("no-such-package")
    assert missing.splitlines()[-1].strip() == "missing"
    assert "not installed" in advice
    assert "make setup" in advice


def test_little_memory_and_disk_are_noted_but_stop_nothing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(doctor, "MEMORY", 10**18)
    monkeypatch.setattr(doctor, "DISK", 10**18)
    seen = StringIO()
    assert doctor.examine(Console(file=seen, width=200)) == 0
    notes = [line for line in seen.getvalue().splitlines() if line.startswith("note")]
    assert [line.split()[1] for line in notes] == ["memory", "cache"]
    assert "ELSA_CACHE" in seen.getvalue()


def test_folder_names_are_shown_as_they_are(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ELSA_CACHE", "/tmp/odd [red] [/x] :smile:")
    seen = StringIO()
    doctor.examine(Console(file=seen, width=200))
    assert "/tmp/odd [red] [/x] :smile:" in seen.getvalue()
