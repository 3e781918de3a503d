"""How loops are compiled, kept and called, and the types of what they work on.

What water-filling (`core.waterfill`) and its memory (`core.temporal`) do to 200 x 384 values is
many small steps; one by one, each as a pass over memory and a call, they took a tenth of a training
step. They are compiled once for each processor, by numba in a process of its own
(`core.building`), because numba takes 130 MB of memory wherever it is imported. What is kept is
machine code, which the small library below numba, llvmlite, loads. Sums are taken in the order that
is written, on every machine.

The machine code lies beside Python's own compiled files, or, where that folder cannot be written
to, in the user's cache folder; its name follows from what the loops say, the processor and
llvmlite. Of processes that start together one compiles and the others wait. Where neither folder
can be written to, each process compiles anew.
"""

import ctypes
import hashlib
import importlib.util
import os
import platform
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from typing import Any, NoReturn

from elsa.errors import ConfigError

SOURCES = ("allot", "kernels")
"""The files of this folder that hold loops."""
_PATIENCE = 600
_CHECK = 16
_LOADING = threading.Lock()


@dataclass(frozen=True)
class Kind:
    """The type of an argument.

    Attributes:
        name: of its numbers, as torch and numba call them.
        axes: of a contiguous tensor; 0 for a number.
        raw: whether `bytes` are taken, not a tensor.
    """

    name: str
    axes: int = 0
    raw: bool = False


FLOAT = Kind("float64")
INTEGER = Kind("int64")
BYTES = Kind("uint8", 1, raw=True)
CODES = Kind("uint8", 1)
FLOATS = Kind("float64", 1)
SINGLES = Kind("float32", 1)
ROWS = Kind("float32", 2)
SHAPE = (Kind("int64", 2), Kind("float32", 3))
ROOM = (ROWS, CODES, CODES, SINGLES)
Kinds = Kind | tuple[Kind, ...]


class Fixed:
    """Tensors that stay where they are, looked at once: then they cost a call next to nothing."""

    def __init__(self, kinds: Sequence[Kind], tensors: Sequence[Any]) -> None:
        """Keep them.

        Args:
            kinds: what they are.
            tensors: contiguous ones.
        """
        self.kinds, self.tensors = tuple(kinds), tuple(tensors)
        self.flat: list[int] = []
        for kind, tensor in zip(kinds, tensors, strict=True):
            if str(tensor.dtype) != f"torch.{kind.name}" or tensor.dim() != kind.axes:
                raise TypeError(f"{tensor.dtype}{list(tensor.shape)} where {kind} is due")
            if not tensor.is_contiguous():
                raise TypeError("only contiguous tensors can be fixed")
            self.flat += (tensor.data_ptr(), *tensor.shape)


class Loop:
    """A compiled function of tensors, `bytes` and numbers; a tuple of kinds takes `Fixed`."""

    def __init__(self, work: Callable[..., Any], takes: Sequence[Kinds], gives: Kind | None):
        """Nothing is compiled yet.

        Args:
            work: what it does, in the part of Python that numba compiles; it makes no array.
            takes: its arguments.
            gives: the number that it returns, if any.
        """
        self.work, self.takes, self.gives = work, tuple(takes), gives
        self.name = f"{work.__module__}.{work.__name__}"
        self.__doc__ = work.__doc__
        self._caller: Callable[..., Any] | None = None

    def __call__(self, *given: Any) -> Any:
        """Run it.

        Raises:
            TypeError: an argument is of another kind, or one is missing.
            ConfigError: it cannot be compiled here.
        """
        return (self._caller or self._load())(*given)

    @property
    def kinds(self) -> list[Kind]:
        """All that it takes, in a row."""
        return [kind for it in self.takes for kind in (it if isinstance(it, tuple) else (it,))]

    def _load(self) -> Callable[..., Any]:
        types: list[Any] = []
        for kind in self.kinds:
            if kind.axes:
                types += [ctypes.c_void_p] + [ctypes.c_int64] * kind.axes
            else:
                types.append(_C[kind.name])
        gives = _C[self.gives.name] if self.gives else None
        with _LOADING:
            address = _engine().get_function_address(self.name)
        self._caller = _caller(self, ctypes.CFUNCTYPE(gives, *types)(address))
        return self._caller


def _caller(loop: Loop, native: Callable[..., Any]) -> Callable[..., Any]:
    """A function that checks its arguments and calls machine code with pointers and sizes.

    It is written out argument by argument: asking in a loop what is due of each took longer than
    most of what is called.
    """
    import torch

    names = [f"a{number}" for number in range(len(loop.takes))]
    space: dict[str, Any] = {
        "native": native,
        "refuse": partial(_refuse, loop.name),
        "Fixed": Fixed,
    }
    checks, flat = [], []
    for name, kind in zip(names, loop.takes, strict=True):
        space[f"due_{name}"] = kind
        if isinstance(kind, tuple):
            good = f"type({name}) is Fixed and {name}.kinds == due_{name}"
            flat.append(f"*{name}.flat")
        elif not kind.axes:
            flat.append(name)
            continue
        elif kind.raw:
            good = f"type({name}) is bytes"
            flat.append(f"{name}, len({name})")
        else:
            space[f"type_{name}"] = getattr(torch, kind.name)
            dtype, axes = f"{name}.dtype is type_{name}", f"{name}.dim() == {kind.axes}"
            good = f"{dtype} and {axes} and {name}.is_contiguous()"
            flat.append(f"{name}.data_ptr(), *{name}.shape")
        checks.append(f" if not ({good}): refuse({name}, due_{name})")
    lines = [f"def call({', '.join(names)}):", *checks, f" return native({', '.join(flat)})"]
    exec("\n".join(lines), space)
    made: Callable[..., Any] = space["call"]
    made.__qualname__ = loop.name  # Python says it where arguments are missing
    return made


def _refuse(loop: str, value: Any, due: Kinds) -> NoReturn:
    given = value.kinds if isinstance(value, Fixed) else getattr(value, "dtype", type(value))
    raise TypeError(f"{loop}: {given} where {due} is due")


_C: dict[str, Any] = {"float64": ctypes.c_double, "int64": ctypes.c_int64}


def compiled(*takes: Kinds, gives: Kind | None = None) -> Callable[[Callable[..., Any]], Loop]:
    """Make a function a loop."""
    return lambda work: Loop(work, takes, gives)


def inner(work: Callable[..., Any]) -> Callable[..., Any]:
    """A part of loops in the same file, compiled with each."""
    work.inner = True  # type: ignore[attr-defined]
    return work


def ready() -> bool:
    """Whether the loops need not be compiled any more."""
    return _kept() is not None


def make() -> None:
    """Compile the loops if need be; raises ConfigError if it cannot be done here."""
    with _LOADING:
        _engine()


@cache
def _engine() -> Any:
    """What holds the machine code."""
    from llvmlite import binding

    code = _kept()
    if code is None:
        with _alone():
            code = _kept()  # another process may have compiled it meanwhile
            if code is None:
                code = _build()
                _keep(code)
    binding.initialize_native_target()
    binding.initialize_native_asmprinter()
    machine = binding.Target.from_default_triple().create_target_machine()
    engine = binding.create_mcjit_compiler(binding.parse_assembly(""), machine)
    engine.add_object_file(binding.ObjectFileRef.from_data(code))
    engine.finalize_object()
    return engine


@cache
def _name() -> str:
    """The file's name: another where anything else would be compiled."""
    import llvmlite
    from llvmlite import binding

    digest = hashlib.blake2b(digest_size=12)
    for source in (*SOURCES, "building", "compiled"):
        digest.update(Path(__file__).with_name(f"{source}.py").read_bytes())
    facts = (llvmlite.__version__, platform.system(), binding.get_host_cpu_name())
    digest.update(repr((*facts, binding.get_host_cpu_features().flatten())).encode())
    return f"loops-{digest.hexdigest()}.o"


def _places() -> Iterator[Path]:
    yield Path(importlib.util.cache_from_source(__file__)).parent
    base = os.environ.get("XDG_CACHE_HOME")
    yield (Path(base) if base else Path.home() / ".cache") / "elsa" / "compiled"


def _kept() -> bytes | None:
    """The machine code, if it is somewhere and whole."""
    for place in _places():
        try:
            held = (place / _name()).read_bytes()
        except OSError:
            continue
        if held[:_CHECK] == _check(held[_CHECK:]):
            return held[_CHECK:]
    return None


def _keep(code: bytes) -> None:
    for place in _places():
        part = place / f".{_name()}.{os.getpid()}"
        try:
            place.mkdir(parents=True, exist_ok=True)
            part.write_bytes(_check(code) + code)
            part.replace(place / _name())
        except OSError:
            continue
        return


@contextmanager
def _alone() -> Iterator[None]:
    """One process compiles, others wait; all compile where no lock can be had."""
    from filelock import FileLock, Timeout

    with ExitStack() as stack:
        for place in _places():
            with suppress(OSError, Timeout):
                place.mkdir(parents=True, exist_ok=True)
                stack.enter_context(FileLock(place / f".{_name()}.lock", timeout=_PATIENCE))
                break
        yield


def _check(code: bytes) -> bytes:
    return hashlib.blake2b(code, digest_size=_CHECK).digest()


def _build() -> bytes:
    """Have a process of its own compile the loops."""
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "loops.o"
        try:
            done = subprocess.run(
                [sys.executable, "-m", "elsa.core.building", str(out)],
                env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
                capture_output=True,
                text=True,
                timeout=_PATIENCE,
                check=False,
            )
            return out.read_bytes()
        except subprocess.TimeoutExpired:
            why = f"it took more than {_PATIENCE} s"
        except OSError:
            why = (done.stderr.strip().splitlines() or ["it ended without a word"])[-1]
    raise ConfigError(
        f"the codecs fill and temporal cannot be compiled on this machine: {why}; mend it, or take "
        "wire.preset = 'exact'"
    )
