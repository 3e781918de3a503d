"""A tiny pinned package, so that fetching is tested with the real pip and without a network."""

import hashlib
import zipfile
from collections.abc import Mapping
from pathlib import Path

import pytest

from elsa.data.catalogue import ASSETS, Asset, Package, PinnedFile

CONTENTS = {"one.txt": b"first file\n" * 50, "two.bin": bytes(range(256)) * 8}
WHEEL = "elsa_tiny_asset-1.0-py3-none-any.whl"


def pinned(contents: Mapping[str, bytes]) -> Asset:
    """The catalogue's row of a package with these files."""
    files = tuple(
        PinnedFile(name, f"tiny/data/{name}", len(data), hashlib.sha256(data).hexdigest())
        for name, data in contents.items()
    )
    package = Package("elsa-tiny-asset", "1.0", 1, files)
    return Asset("tiny", "model", package, tuple(contents), "none", "for tests")


def write_wheel(folder: Path, contents: Mapping[str, bytes]) -> Path:
    """A wheel that pip accepts, with these files and one that is not wanted."""
    folder.mkdir(parents=True, exist_ok=True)
    info = "elsa_tiny_asset-1.0.dist-info"
    with zipfile.ZipFile(folder / WHEEL, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in {**contents, "unwanted.txt": b"x"}.items():
            archive.writestr(f"tiny/data/{name}", data)
        archive.writestr(
            f"{info}/METADATA", "Metadata-Version: 2.1\nName: elsa-tiny-asset\nVersion: 1.0\n"
        )
        archive.writestr(
            f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        )
        archive.writestr(f"{info}/RECORD", "")
    return folder / WHEEL


@pytest.fixture
def tiny(monkeypatch: pytest.MonkeyPatch) -> Asset:
    """The tiny asset, in the catalogue, with pip kept off the network."""
    asset = pinned(CONTENTS)
    monkeypatch.setitem(ASSETS, "tiny", asset)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.delenv("PIP_FIND_LINKS", raising=False)
    return asset
