"""elsa: split, hierarchical, federated fine-tuning of language models (arXiv 2601.13824).

    import elsa

    config = elsa.load_config(overrides=["federation.rounds=3"])
    result = elsa.run(config)
    print(result.summary["accuracy"], result.directory)

The parts stand alone: `elsa.core` (codecs, averages, costs), `elsa.model` (splitting a Hugging
Face model, adapters), `elsa.wire` (messages and transports), `elsa.roles` (device, edge, cloud).
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from elsa.config.load import load_config
    from elsa.config.schema import Config
    from elsa.engine.export import export_run
    from elsa.engine.run import Result, resume, run
    from elsa.errors import ElsaError, Interrupted
    from elsa.report.page import write_report

__version__ = "0.1.0"
__all__ = [
    "Config",
    "ElsaError",
    "Interrupted",
    "Result",
    "export_run",
    "load_config",
    "resume",
    "run",
    "write_report",
]

_HOMES = {
    "Config": "elsa.config.schema",
    "ElsaError": "elsa.errors",
    "Interrupted": "elsa.errors",
    "Result": "elsa.engine.run",
    "export_run": "elsa.engine.export",
    "load_config": "elsa.config.load",
    "resume": "elsa.engine.run",
    "run": "elsa.engine.run",
    "write_report": "elsa.report.page",
}


def __getattr__(name: str) -> Any:
    """Find a public name where it lives; torch is imported only once it is needed."""
    if name in _HOMES:
        return getattr(import_module(_HOMES[name]), name)
    raise AttributeError(f"module 'elsa' has no attribute '{name}'")
