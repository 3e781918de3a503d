"""What a run cannot have whose edges are in other processes."""

from pathlib import Path

from elsa.config.schema import Config
from elsa.errors import ConfigError


def check_spreadable(config: Config, trace: Path | None) -> None:
    """See that edges in processes of their own can do what is asked for.

    Raises:
        ConfigError: they cannot.
    """
    if trace is not None:
        raise ConfigError(
            f"--trace {trace} goes with --engine embedded, where one process sees all links; its "
            "simulated time is the same"
        )
    if config.audit.record_rounds:
        raise ConfigError(
            f"audit.record_rounds = {config.audit.record_rounds} goes with --engine embedded: "
            "transcripts are written into the run's folder, where edges in other processes may not "
            "write; allowed: 0"
        )
    if config.wire.folder:
        raise ConfigError(
            f"wire.folder = '{config.wire.folder}' goes with --engine embedded: what codecs "
            "remember must come with a device to another process; allowed: '', which keeps it in "
            "memory and in checkpoints"
        )
