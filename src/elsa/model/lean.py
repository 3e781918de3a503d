"""Transformers and peft without what no segment uses: for processes that train segments alone.

Importing their models brings in torch's compiler (and with it sympy and `torch.distributed.tensor`)
for decorators that mean something only under `torch.compile` and a mask that only flex attention
takes, and scipy's optimizers for losses of object detection: half of a device's start and a quarter
of its memory. Here stand-ins take their place. A stand-in has what is used where nothing is
compiled or symbolic; whoever asks it for more gets the real module, loaded then.
"""

import importlib
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from types import ModuleType
from typing import Any

_MODELS = "transformers.modeling_utils"


class StandIn(ModuleType):
    """Stands for a module that is not imported until something not known here is asked for."""

    def __init__(self, name: str, known: Mapping[str, Any]) -> None:
        """Set up.

        Args:
            name: of the module.
            known: what it has without being imported.
        """
        super().__init__(name)
        self.__path__: list[str] = []
        self._known = known

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        if name in self._known:
            return self._known[name]
        return getattr(self.real(), name)

    def real(self) -> ModuleType:
        """The module itself; it takes this one's place, and that of stand-ins below it."""
        for name, module in list(sys.modules.items()):
            if isinstance(module, StandIn) and f"{name}.".startswith(f"{self.__name__}."):
                del sys.modules[name]
        return importlib.import_module(self.__name__)


def import_lean() -> None:
    """Import the models so; nothing happens where they, or the compiler, are there already."""
    import torch

    known = _known()
    if _MODELS in sys.modules or any(name in sys.modules for name in known):
        return
    from transformers import utils
    from transformers.utils import import_utils

    for name, names in known.items():
        sys.modules[name] = StandIn(name, names)
    torch._dynamo = sys.modules["torch._dynamo"]
    asked = [
        (module, name)
        for module in (utils, import_utils)
        for name in ("is_scipy_available", "is_torch_distributed_available")
    ]
    with _denied([*asked, (torch.distributed, "is_available")]):
        importlib.import_module(_MODELS)
        importlib.import_module("peft")


def _known() -> dict[str, dict[str, Any]]:
    """The modules that have a stand-in, and what it has."""
    compiler = "torch._dynamo"
    masks = f"{compiler}._trace_wrapped_higher_order_op"

    class TransformGetItemToIndex:
        def __new__(cls, *args: Any, **more: Any) -> Any:
            _really(compiler)
            return importlib.import_module(masks).TransformGetItemToIndex(*args, **more)

    idle = ("disable", "assume_constant_result", "allow_in_graph", "graph_break")
    return {
        compiler: dict.fromkeys(idle, _undecorated),
        masks: {"TransformGetItemToIndex": TransformGetItemToIndex},
        "torch.fx.experimental.symbolic_shapes": {"expect_true": bool, "sym_eq": _equal},
    }


def _undecorated(function: Any = None, *args: object, **more: object) -> Any:  # noqa: ARG001
    """What the compiler's decorators do where nothing is compiled: nothing."""
    return _undecorated if function is None else function


def _really(name: str) -> None:
    standing = sys.modules.get(name)
    if isinstance(standing, StandIn):
        standing.real()


def _equal(one: object, other: object) -> bool:
    return one == other


@contextmanager
def _denied(questions: Sequence[tuple[ModuleType, str]]) -> Iterator[None]:
    """Let these functions of modules, whether something is there, say no."""
    before = [getattr(*each) for each in questions]
    for module, name in questions:
        setattr(module, name, lambda: False)
    try:
        yield
    finally:
        for (module, name), answer in zip(questions, before, strict=True):
            setattr(module, name, answer)
