"""Runs that write down what their edge servers see, as `[audit]` asks."""

from dataclasses import replace
from pathlib import Path

from elsa.engine.federation import Federation
from elsa.wire.transcript import Recorder

TRANSCRIPT = "transcript"
"""Folder of a run directory."""


def recorded(federation: Federation, run: Path) -> Federation:
    """The federation with a recorder on its links, if its config asks for one."""
    audit = federation.config.audit
    if not audit.record_rounds:
        return federation
    names = sorted(federation.devices)
    recorder = Recorder(
        run / TRANSCRIPT,
        audit.record_rounds,
        audit.megabytes * 10**6,
        names[: audit.record_devices] if audit.record_devices else names,
    )
    return replace(federation, layers=(*federation.layers, recorder))
