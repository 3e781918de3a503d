"""What a party keeps on disk is what it finds again, or nothing."""

import logging
from pathlib import Path

import pytest
import torch

from elsa.engine.deploy.keep import Keeper, Kept
from elsa.errors import ConfigError

TERMS = {"adapter.rank": "2"}
KEPT = Kept({"exp_avg/a": torch.randn(2, 3), "step/a": torch.tensor(4.0)}, {"position": 7})


def keeper(folder: Path | None, party: str = "device-0", **terms: str) -> Keeper:
    return Keeper(folder, party, TERMS | terms)


def same(left: Kept, right: Kept) -> bool:
    return left.numbers == right.numbers and all(
        torch.equal(left.tensors[key], right.tensors[key])
        for key in left.tensors.keys() | right.tensors.keys()
    )


def test_what_was_kept_last_is_found_again(tmp_path: Path) -> None:
    folder = tmp_path / "a" / "b"
    assert same(keeper(folder).load(), Kept())
    for number in (1, 2):
        keeper(folder).save(Kept({"x": torch.tensor([float(number)])}, {"n": number}))
    assert same(keeper(folder).load(), Kept({"x": torch.tensor([2.0])}, {"n": 2}))
    keeper(folder).save(KEPT)
    assert same(keeper(folder).load(), KEPT)
    assert [path.name for path in folder.iterdir()] == ["device-0.safetensors"]


def test_no_folder_keeps_nothing() -> None:
    keeper(None).save(KEPT)
    assert same(keeper(None).load(), Kept())


@pytest.mark.parametrize("cut", [0, 1, 8, 50, 300, -1])
def test_torn_file_is_left_aside(
    tmp_path: Path, cut: int, caplog: pytest.LogCaptureFixture
) -> None:
    keeper(tmp_path).save(KEPT)
    path = tmp_path / "device-0.safetensors"
    path.write_bytes(path.read_bytes()[:cut])
    with caplog.at_level(logging.WARNING):
        assert same(keeper(tmp_path).load(), Kept())
    assert "is not used" in caplog.text


def test_changed_value_is_noticed(tmp_path: Path) -> None:
    keeper(tmp_path).save(KEPT)
    path = tmp_path / "device-0.safetensors"
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    assert same(keeper(tmp_path).load(), Kept())


def test_file_of_another_party_or_of_other_settings_is_left_aside(tmp_path: Path) -> None:
    keeper(tmp_path).save(KEPT)
    assert same(keeper(tmp_path, **{"adapter.rank": "3"}).load(), Kept())
    path = tmp_path / "device-0.safetensors"
    path.rename(tmp_path / "device-1.safetensors")
    assert same(keeper(tmp_path, "device-1").load(), Kept())


def test_disk_that_takes_no_more_leaves_what_was_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    keeper(tmp_path).save(KEPT)

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("elsa.record.atomic.sync", full)
    with caplog.at_level(logging.WARNING):
        keeper(tmp_path).save(Kept({}, {"position": 8}))
    assert "No space left on device; what was kept before stays" in caplog.text
    assert same(keeper(tmp_path).load(), KEPT)


def test_folder_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match="--state"):
        keeper(tmp_path / "file" / "state")
