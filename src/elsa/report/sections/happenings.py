"""Events worth reading: who was lost and why, what was dropped, moved, poisoned, interrupted."""

from collections import Counter
from collections.abc import Iterator, Sequence

from elsa.record import events
from elsa.report.history import LAST, History
from elsa.report.numbers import clean
from elsa.report.parts import Part, Section, Table

SHOWN = 200
NAMED = 8


def section(runs: Sequence[History]) -> Section:
    """A table a run; the first so many lines of each."""
    parts = []
    for run in runs:
        title = run.label if len(runs) > 1 else ""
        rows = list(_rows(run))
        if not rows:
            words = ["Nothing unusual: no device was lost, dropped, moved or poisoned."]
            parts.append(Part(title, words))
            continue
        counted = Counter(row[1] for row in rows)
        words = [", ".join(f"{what}: {count}" for what, count in counted.most_common()) + "."]
        if len(rows) > SHOWN:
            words.append(f"The first {SHOWN} of {len(rows)} lines; events.jsonl has them all.")
        columns = ("Round", "What", "Who", "Details")
        table = Table("In order", columns, rows[:SHOWN], frozenset({0}), folded=len(rows) > 12)
        parts.append(Part(title, words, tables=[table]))
    return Section("events", "Events worth reading", parts)


def _rows(run: History) -> Iterator[list[str]]:
    for event in run.record.events:
        if not -1 <= event.round < LAST:
            continue
        round_ = str(event.round + 1) if event.round >= 0 else "start"
        match event:
            case events.DeviceLost():
                yield [round_, "device lost", event.device, f"{event.reason} (at {event.edge})"]
            case events.Poisoned():
                yield [round_, "poisoned by the simulator", _names(event.devices), event.attack]
            case events.DeviceJudged() if event.weight == 0:
                yield [round_, "update dropped", event.device, event.reason]
            case events.DevicePlaced() if not event.edge:
                yield [round_, "without an edge", event.device, event.why]
            case events.DevicePlaced() if event.before and event.edge != event.before:
                yield [
                    round_,
                    "device moved",
                    event.device,
                    f"{event.before} to {event.edge}: {event.why}",
                ]
            case events.SplitsChosen():
                kinds = Counter("/".join(map(str, split)) for split in event.splits.values())
                told = ", ".join(f"{kind} for {count}" for kind, count in kinds.most_common(NAMED))
                yield [round_, "new splits p/o/q", _names(tuple(event.splits)), told]
            case events.Interrupted():
                yield [round_, "interrupted", "", "stopped by the person; the checkpoint was kept"]
            case _:
                pass


def _names(names: Sequence[str]) -> str:
    more = f" and {len(names) - NAMED} more" if len(names) > NAMED else ""
    return ", ".join(clean(name, 40) for name in names[:NAMED]) + more
