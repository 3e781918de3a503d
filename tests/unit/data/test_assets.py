"""Fetching: whole or absent, verified, safe with several processes, and plain about failures."""

import os
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from elsa.data import assets
from elsa.data.assets import MARKER, cache_dir, fetch, find_asset, is_cached
from elsa.data.catalogue import ASSETS, Asset
from elsa.errors import AssetError

from .conftest import CONTENTS, WHEEL, write_wheel


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.name != MARKER}


def everything(cache: Path) -> set[str]:
    return {str(path.relative_to(cache)) for path in cache.rglob("*") if path.is_file()}


KEPT = {f"assets/elsa-tiny-asset-1.0/{name}" for name in (*CONTENTS, MARKER)}
LOCK = "assets/.elsa-tiny-asset-1.0.lock"


def test_pip_download_keeps_the_wanted_files_and_nothing_else(
    tiny: Asset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_wheel(tmp_path / "index", CONTENTS)
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path / "index"))
    said: list[str] = []
    folder = fetch("tiny", tmp_path / "cache", said.append)
    assert contents(folder) == CONTENTS
    assert everything(tmp_path / "cache") == KEPT | {LOCK}  # no wheel, no leftovers
    assert len(said) == 2
    assert "fetching elsa-tiny-asset==1.0 (1 MB) with pip" in said[0]
    monkeypatch.delenv("PIP_FIND_LINKS")
    assert fetch("tiny", tmp_path / "cache", said.append) == folder
    assert len(said) == 2


def test_a_wheel_put_there_by_hand_is_taken_and_left_alone(tiny: Asset, tmp_path: Path) -> None:
    wheel = write_wheel(tmp_path / "wheels", CONTENTS)
    assert not is_cached("tiny", tmp_path)
    assert contents(fetch("tiny", tmp_path)) == CONTENTS
    assert is_cached("tiny", tmp_path)
    assert wheel.exists()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"two.bin": b"\0" * 2048}, r"tiny/data/two\.bin is SHA-256 \w{16}… instead of \w{16}…"),
        ({"two.bin": b"short"}, r"tiny/data/two\.bin is 5 bytes instead of 2048"),
        ({"two.bin": None}, r"tiny/data/two\.bin is absent"),
    ],
)
def test_a_wheel_that_differs_is_refused_whole(
    change: dict[str, bytes | None], message: str, tiny: Asset, tmp_path: Path
) -> None:
    changed = {name: data for name, data in {**CONTENTS, **change}.items() if data is not None}
    wheel = write_wheel(tmp_path / "wheels", changed)
    with pytest.raises(AssetError, match=message) as caught:
        fetch("tiny", tmp_path)
    assert f"If you put {wheel} there, delete it" in str(caught.value)
    assert everything(tmp_path) == {LOCK, f"wheels/{WHEEL}"}  # not even the file that was right


def test_a_truncated_wheel_is_refused(tiny: Asset, tmp_path: Path) -> None:
    wheel = write_wheel(tmp_path / "wheels", CONTENTS)
    whole = wheel.read_bytes()
    wheel.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(AssetError, match=r"is broken .* delete it"):
        fetch("tiny", tmp_path)


def test_damaged_compressed_data_is_refused(tiny: Asset, tmp_path: Path) -> None:
    wheel = write_wheel(tmp_path / "wheels", CONTENTS)
    with zipfile.ZipFile(wheel) as archive:
        start = archive.getinfo("tiny/data/one.txt").header_offset
    data = bytearray(wheel.read_bytes())
    for place in range(start + 50, start + 60):
        data[place] ^= 0xFF
    wheel.write_bytes(data)
    with pytest.raises(AssetError, match="is broken"):
        fetch("tiny", tmp_path)


def test_a_failed_download_says_the_command_and_where_to_put_the_wheel(
    tiny: Asset, tmp_path: Path
) -> None:
    with pytest.raises(AssetError, match=r"pip could not download elsa-tiny-asset==1\.0") as caught:
        fetch("tiny", tmp_path)
    message = str(caught.value)
    assert "No matching distribution found" in message
    assert "`pip download --no-deps --only-binary :all: elsa-tiny-asset==1.0`" in message
    assert f"put the wheel into {tmp_path / 'wheels'}" in message
    assert everything(tmp_path) == {LOCK}


def test_a_python_without_pip_is_told_so(
    tiny: Asset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bare = tmp_path / "python"
    bare.write_text('#!/bin/sh\necho "$0: No module named pip" >&2\nexit 1\n')
    bare.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(bare))
    with pytest.raises(AssetError, match=r"has no pip; `.*python -m ensurepip` installs it"):
        fetch("tiny", tmp_path)


def test_a_download_that_hangs_is_given_up(
    tiny: Asset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    slow = tmp_path / "python"
    slow.write_text("#!/bin/sh\nexec sleep 60\n")
    slow.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(slow))
    monkeypatch.setattr(assets, "_PATIENCE", 0.2)
    with pytest.raises(AssetError, match="pip did not finish downloading"):
        fetch("tiny", tmp_path)


@pytest.fixture
def fetched(tiny: Asset, tmp_path: Path) -> Path:
    """The tiny asset's folder, with no way left to fetch it again."""
    write_wheel(tmp_path / "wheels", CONTENTS)
    folder = fetch("tiny", tmp_path)
    (tmp_path / "wheels" / WHEEL).rename(tmp_path / WHEEL)
    return folder


def damage_size(folder: Path) -> None:
    (folder / "one.txt").write_bytes(b"")


def damage_content(folder: Path) -> None:
    (folder / "two.bin").write_bytes(b"\1" * 2048)


def damage_absence(folder: Path) -> None:
    (folder / "one.txt").unlink()


def damage_marker(folder: Path) -> None:  # as if killed while writing: no marker, no trust
    (folder / MARKER).unlink()
    (folder / "two.bin").write_bytes(CONTENTS["two.bin"][:1000])


@pytest.mark.parametrize("damage", [damage_size, damage_content, damage_absence, damage_marker])
def test_a_damaged_folder_is_fetched_again(damage: Callable[[Path], None], fetched: Path) -> None:
    cache = fetched.parents[1]
    damage(fetched)
    assert not is_cached("tiny", cache)
    (cache / WHEEL).rename(cache / "wheels" / WHEEL)
    assert contents(fetch("tiny", cache)) == CONTENTS
    assert is_cached("tiny", cache)


def test_a_touched_file_is_read_once_and_then_trusted(
    fetched: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache = fetched.parents[1]
    os.utime(fetched / "one.txt", (1, 1))
    assert fetch("tiny", cache) == fetched

    def refuse(_: Path) -> str:
        raise AssertionError("contents were read again")

    monkeypatch.setattr(assets, "_sha256", refuse)
    assert fetch("tiny", cache) == fetched


def test_leftovers_of_a_killed_process_are_no_asset_and_are_removed(
    tiny: Asset, tmp_path: Path
) -> None:
    leftover = tmp_path / "assets" / ".elsa-tiny-asset-1.0.abc" / "files"
    leftover.mkdir(parents=True)
    (leftover / "one.txt").write_bytes(CONTENTS["one.txt"])
    assert not is_cached("tiny", tmp_path)
    write_wheel(tmp_path / "wheels", CONTENTS)
    fetch("tiny", tmp_path)
    assert everything(tmp_path) == KEPT | {LOCK, f"wheels/{WHEEL}"}


SCRIPT = """
import sys
from pathlib import Path
sys.path.insert(0, {here!r})
from conftest import CONTENTS, pinned
from elsa.data.catalogue import ASSETS
from elsa.data.assets import fetch
ASSETS["tiny"] = pinned(CONTENTS)
fetch("tiny", Path({cache!r}), lambda line: print(line, flush=True))
"""


def test_two_processes_fetch_once(
    tiny: Asset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_wheel(tmp_path / "index", CONTENTS)
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path / "index"))
    cache = tmp_path / "cache"
    script = SCRIPT.format(here=str(Path(__file__).parent), cache=str(cache))
    command = [sys.executable, "-c", script]
    both = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    outputs = [process.communicate(timeout=60)[0] for process in both]
    assert [process.returncode for process in both] == [0, 0]
    assert sum(output.count("fetching") for output in outputs) == 1
    assert everything(cache) == KEPT | {LOCK}


def test_a_cache_that_cannot_be_written_says_so(tiny: Asset, tmp_path: Path) -> None:
    (tmp_path / "cache").write_text("a file where the folder should be")
    with pytest.raises(AssetError, match=r"cannot write to the cache folder .* ELSA_CACHE"):
        fetch("tiny", tmp_path / "cache")


def test_names(tmp_path: Path) -> None:
    assert find_asset("trec") is ASSETS["trec"]
    assert find_asset("./trec") is None
    with pytest.raises(AssetError, match=r"named 'minlm' \(did you mean 'minilm'\?\); known are"):
        fetch("minlm", tmp_path)


def test_the_cache_folder_follows_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ELSA_CACHE", "/some/where")
    assert cache_dir() == Path("/some/where")
    monkeypatch.delenv("ELSA_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", "/base")
    assert cache_dir() == Path("/base/elsa")
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert cache_dir() == Path.home() / ".cache" / "elsa"


def test_the_catalogue_is_consistent() -> None:
    for name, asset in ASSETS.items():
        inside = [file.name for file in asset.package.files]
        assert asset.name == name
        assert set(asset.files) <= set(inside)
        assert len(set(inside)) == len(inside)
        assert all(len(file.sha256) == 64 and file.size for file in asset.package.files)
        assert asset.licence
        assert asset.description


def test_the_quick_start_model_is_really_there() -> None:
    folder = fetch("minilm")
    assert contents(folder).keys() == {
        "config.json",
        "model.safetensors",
        "tokenizer.json",
        "tokenizer_config.json",
    }
