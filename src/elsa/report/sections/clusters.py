"""Who is like whom and who goes where; and how much each device was trusted."""

from collections.abc import Mapping, Sequence

from markupsafe import Markup

from elsa.record.behaviour import Clustering
from elsa.record.events import DeviceJudged, DevicePlaced
from elsa.report.grids import LEVELS, Dot, half_width, heat, plane
from elsa.report.history import LAST, History
from elsa.report.numbers import NOTHING, clean, fixed, number
from elsa.report.parts import Figure, Part, Section, Table
from elsa.report.svg import patch, point

MAPS = 6
ROWS = 40
POISONED = "▲ marks devices that the simulator poisoned in some round."
Moment = tuple[int, int]


def section(runs: Sequence[History]) -> Section:
    """Maps of the clusterings, then trust by device and edge round; of the runs that have them."""
    parts = []
    for run in runs:
        several = f", {run.label}" if len(runs) > 1 else ""
        if run.record.clusterings:
            parts.append(_maps(run, f"Cluster map{several}"))
        if judged := _judged(run):
            parts.append(_trust(run, judged, f"Trust{several}"))
    return Section("clusters", "Clusters and trust", parts)


def _maps(run: History, title: str) -> Part:
    shown = run.record.clusterings[-MAPS:]
    edges = sorted({it for each in shown for it in _edges_after(run, each.round).values() if it})
    numbers = {edge: place for place, edge in enumerate(edges)}
    reach = max(half_width(it.plane) for it in shown)
    figures = [Figure(f"After round {it.round + 1}", _map(run, it, numbers, reach)) for it in shown]
    words = [
        "Devices whose adapters make alike of the probes lie close together: distances are like "
        "square roots of how far apart they are, as far as a plane can hold. Colour and mark are "
        "the edge server that a device was given; directions mean nothing."
    ]
    if len(run.record.clusterings) > MAPS:
        words.append(f"The last {MAPS} of {len(run.record.clusterings)} clusterings are drawn.")
    if run.poisoned:
        words.append(POISONED)
    key = [(point(place), edge) for edge, place in numbers.items()]
    if any("" in _edges_after(run, it.round).values() for it in shown):
        key.append((point(len(numbers)), "no edge"))
    return Part(title, words, key, figures, [_places(run, shown[-1])])


def _edges_after(run: History, round_: int) -> dict[str, str]:
    """The edge of each device once the placements after a round were made."""
    found: dict[str, str] = {}
    for event in run.record.events:
        if isinstance(event, DevicePlaced) and event.round <= round_:
            found[event.device] = event.edge
    return found


def _map(run: History, made: Clustering, numbers: Mapping[str, int], reach: float) -> Markup:
    edges = _edges_after(run, made.round)
    dots = []
    for name, label, (x, y) in zip(made.devices, made.labels, made.plane, strict=True):
        edge = edges.get(name, "")
        poisoned = ", poisoned" if name in run.poisoned else ""
        hint = f"{name}: cluster {label}, {edge or 'no edge'}{poisoned}"
        shown = ("▲" if poisoned else "") + short(name)
        dots.append(Dot(x, y, numbers.get(edge, len(numbers)), shown, hint))
    groups = len(set(made.labels))
    said = f"{len(dots)} devices in {groups} clusters after round {made.round + 1}; see the table"
    return plane(said, dots, reach)


def short(name: str) -> str:
    """A device's number where its name is of the usual kind, else the name."""
    number_ = name.removeprefix("device-")
    return number_ if number_.isdigit() else clean(name, 10)


def _places(run: History, made: Clustering) -> Table:
    edges = _edges_after(run, made.round)
    why = {
        it.device: it.why
        for it in run.record.events
        if isinstance(it, DevicePlaced) and it.round <= made.round
    }
    rows = [
        [name, str(label), edges.get(name, "") or "none", why.get(name, ""), _mark(run, name)]
        for name, label in zip(made.devices, made.labels, strict=True)
    ]
    columns = ("Device", "Cluster", "Edge", "Why", "Poisoned")
    return Table(f"After round {made.round + 1}", columns, rows, frozenset({1}), folded=True)


def _mark(run: History, device: str) -> str:
    return "yes" if device in run.poisoned else ""


def _judged(run: History) -> dict[str, dict[Moment, DeviceJudged]]:
    found: dict[str, dict[Moment, DeviceJudged]] = {}
    for it in run.record.events:
        if not isinstance(it, DeviceJudged) or number(it.trust) is None:
            continue
        if 0 <= it.round < LAST and 0 <= it.edge_round < LAST:
            found.setdefault(it.device, {})[it.round, it.edge_round] = it
    return found


def _trust(run: History, judged: Mapping[str, Mapping[Moment, DeviceJudged]], title: str) -> Part:
    moments = sorted({moment for each in judged.values() for moment in each})
    places = {moment: place for place, moment in enumerate(moments)}

    def last(name: str) -> float:
        return judged[name][max(judged[name])].trust

    names = sorted(judged, key=lambda name: (last(name), name))
    rows = []
    for name in names[:ROWS]:
        cells = {}
        for moment, it in judged[name].items():
            hint = f"{name}, round {moment[0] + 1}.{moment[1] + 1}: trust {it.trust:.2f}"
            hint += f"; {it.reason}" if it.reason else ""
            cells[places[moment]] = (it.trust, it.weight == 0, hint)
        rows.append((("▲ " if name in run.poisoned else "") + name, cells))
    columns = [str(round_ + 1) if not edge_round else "·" for round_, edge_round in moments]
    words = [
        "How far each device was trusted after each edge round that was watched, least trusted "
        "first; a cross where its update was dropped."
    ]
    if run.poisoned:
        words.append(POISONED)
    if len(names) > ROWS:
        words.append(f"The {ROWS} least trusted of {len(names)} devices are drawn.")
    dropped = [f"{name} {_cut(judged[name])} times" for name in names if _cut(judged[name])]
    said = f"Trust of {len(names)} devices. Dropped: {', '.join(dropped) or 'nobody'}."
    figure = Figure("Trust by device and round", heat(said, columns, rows, "round"))
    key = [
        (patch(f"h{level}"), f"{level / LEVELS:.1f} to {(level + 1) / LEVELS:.1f}")
        for level in range(LEVELS)
    ]
    return Part(title, words, key, [figure], [_judgements(run, judged, names)])


def _cut(rounds: Mapping[Moment, DeviceJudged]) -> int:
    return sum(it.weight == 0 for it in rounds.values())


def _judgements(
    run: History, judged: Mapping[str, Mapping[Moment, DeviceJudged]], names: Sequence[str]
) -> Table:
    columns = ("Device", "Edge", "Trust at the end", "Least", "Dropped", "Last reason", "Poisoned")
    rows = []
    for name in names:
        rounds = [it for _, it in sorted(judged[name].items())]
        reasons = [it.reason for it in rounds if it.reason]
        rows.append(
            [
                name,
                run.edges.get(name, ""),
                fixed(number(rounds[-1].trust), 2),
                fixed(number(min(it.trust for it in rounds)), 2),
                str(_cut(judged[name])),
                reasons[-1] if reasons else NOTHING,
                _mark(run, name),
            ]
        )
    return Table("Every device that was judged", columns, rows, frozenset({2, 3, 4}), folded=True)
