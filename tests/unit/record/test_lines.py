import resource
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from elsa.errors import RunError
from elsa.record.atomic import replaced_folder, write_atomically
from elsa.record.lines import LineFile, read_lines

WHOLE = b"first\nsecond, longer\n\nfourth\n"


@contextmanager
def disk_full_after(size: int) -> Iterator[None]:
    """No file may grow beyond `size` bytes."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.mark.parametrize("length", range(len(WHOLE) + 1))
def test_a_torn_last_line_is_not_read_and_is_cut_off_on_opening(
    tmp_path: Path, length: int
) -> None:
    path = tmp_path / "lines"
    path.write_bytes(WHOLE[:length])
    kept = WHOLE[:length].split(b"\n")[:-1]
    assert read_lines(path) == kept
    file = LineFile(path)
    file.append(b"next")
    file.close()
    assert read_lines(path) == [*kept, b"next"]


@pytest.mark.parametrize("offset", range(len(WHOLE) + 10))
def test_a_cut_leaves_whole_lines_and_never_makes_the_file_longer(
    tmp_path: Path, offset: int
) -> None:
    path = tmp_path / "lines"
    path.write_bytes(WHOLE)
    file = LineFile(path)
    file.cut(offset)
    assert path.read_bytes() == WHOLE[: WHOLE[:offset].rfind(b"\n") + 1]
    file.append(b"next")
    file.close()
    assert path.read_bytes().endswith(b"\nnext\n" if offset > 5 else b"next\n")


def test_an_offset_is_where_the_next_line_begins(tmp_path: Path) -> None:
    file = LineFile(tmp_path / "lines")
    file.append(b"kept")
    offset = file.offset()
    file.append(b"gone")
    file.cut(offset)
    file.close()
    assert read_lines(tmp_path / "lines") == [b"kept"]


def test_a_full_disk_is_an_error_and_leaves_the_file_as_it_was(tmp_path: Path) -> None:
    path = tmp_path / "lines"
    file = LineFile(path)
    file.append(b"x" * 90)
    with disk_full_after(100), pytest.raises(RunError, match="cannot be written"):
        file.append(b"y" * 50)
    assert read_lines(path) == [b"x" * 90]
    file.append(b"z")
    file.close()
    assert read_lines(path) == [b"x" * 90, b"z"]


def test_a_missing_file_has_no_lines_and_a_folder_is_an_error(tmp_path: Path) -> None:
    assert read_lines(tmp_path / "absent") == []
    with pytest.raises(RunError, match="cannot be read"):
        read_lines(tmp_path)
    with pytest.raises(RunError, match="cannot be opened"):
        LineFile(tmp_path)


def test_a_failed_write_keeps_the_old_file_and_leaves_nothing_behind(tmp_path: Path) -> None:
    path = tmp_path / "summary.json"
    write_atomically(path, b"old")
    with disk_full_after(100), pytest.raises(RunError, match="cannot be written"):
        write_atomically(path, b"new" * 100)
    assert path.read_bytes() == b"old"
    assert [entry.name for entry in tmp_path.iterdir()] == ["summary.json"]


def test_a_folder_is_replaced_whole_or_not_at_all(tmp_path: Path) -> None:
    path = tmp_path / "adapter"
    with replaced_folder(path) as folder:
        (folder / "old").write_text("1")
        assert not path.exists()
    with pytest.raises(ZeroDivisionError), replaced_folder(path) as folder:
        (folder / "half").write_text("2")
        raise ZeroDivisionError
    assert [entry.name for entry in path.iterdir()] == ["old"]
    with replaced_folder(path) as folder:
        (folder / "sub").mkdir()
        (folder / "sub" / "new").write_text("3")
    assert [entry.name for entry in path.iterdir()] == ["sub"]
    assert [entry.name for entry in tmp_path.iterdir()] == ["adapter"]
