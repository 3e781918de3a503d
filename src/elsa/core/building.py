"""Compiles all loops (`core.compiled`) to one file of machine code, in a process that then ends.

    python -m elsa.core.building FILE

Numba makes LLVM's code of each; then the loops are all that is visible from outside, so that what
numba adds for Python's sake (exceptions, reference counts) falls away as unreachable.
"""

import importlib
import signal
import sys
from pathlib import Path
from types import FunctionType
from typing import Any

import numba
from llvmlite import binding
from numba import carray, types

from elsa.core.compiled import SOURCES, Kind, Loop

_OPTIONS = {"error_model": "numpy"}
_OUTSIDE = {"log2", "sqrt", "rint"}
"""What the loops may call: all of it is in every process."""


def code_of(modules: list[Any]) -> bytes:
    """The machine code of all loops of these modules, for this machine's processor."""
    binding.initialize_native_target()
    binding.initialize_native_asmprinter()
    machine = binding.Target.from_default_triple().create_target_machine(
        binding.get_host_cpu_name(),
        binding.get_host_cpu_features().flatten(),
        opt=3,
        reloc="pic",
        codemodel="jitdefault",
    )
    whole = binding.parse_assembly("")
    names: set[str] = set()
    for module in modules:
        for name, value in list(vars(module).items()):
            if isinstance(value, FunctionType) and hasattr(value, "inner"):
                setattr(module, name, numba.njit(**_OPTIONS)(value))
    for module in modules:
        for value in vars(module).values():
            if isinstance(value, Loop):
                whole.link_in(_translated(value))
                names.add(value.name)
    for function in whole.functions:
        if not function.is_declaration and function.name not in names:
            function.linkage = "internal"
    options = binding.create_pipeline_tuning_options(speed_level=3)
    builder = binding.create_pass_builder(machine, options)
    builder.getModulePassManager().run(whole, builder)
    outside = {it.name for it in whole.functions if it.is_declaration} - _OUTSIDE
    if foreign := [name for name in outside if not name.startswith("llvm.")]:
        raise SystemExit(f"the loops call what only numba has: {', '.join(sorted(foreign))}")
    code: bytes = machine.emit_object(whole)
    return code


def _translated(loop: Loop) -> Any:
    """A module of LLVM's with the loop as a C function of its own name."""
    takes: list[Any] = []
    for kind in loop.kinds:
        of = getattr(types, kind.name)
        takes += [types.CPointer(of), *[types.int64] * kind.axes] if kind.axes else [of]
    gives = getattr(types, loop.gives.name) if loop.gives else types.void
    made = numba.cfunc(gives(*takes), **_OPTIONS)(_entry(loop))
    module = binding.parse_assembly(made.inspect_llvm())
    module.get_function(made.native_name).name = loop.name
    return module


def _entry(loop: Loop) -> Any:
    """A function of pointers and sizes that calls the loop with arrays."""
    names: list[str] = []

    def array(kind: Kind) -> str:
        name = f"a{len(names)}"
        names.append(name)
        sizes = [f"{name}_{axis}" for axis in range(kind.axes)]
        names.extend(sizes)
        return f"carray({name}, ({', '.join(sizes)},))" if kind.axes else name

    parts = [
        f"({', '.join(map(array, kind))},)" if isinstance(kind, tuple) else array(kind)
        for kind in loop.takes
    ]
    space = {"carray": carray, "work": numba.njit(**_OPTIONS)(loop.work)}
    call = f"work({', '.join(parts)})"
    exec(f"def entry({', '.join(names)}): {'return ' if loop.gives else ''}{call}", space)
    return space["entry"]


if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent decides
    code = code_of([importlib.import_module(f"elsa.core.{name}") for name in SOURCES])
    Path(sys.argv[1]).write_bytes(code)
