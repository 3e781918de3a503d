"""`elsa plan`: what a run would cost each party, and why, without training anything."""

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from elsa.config.schema import Config
from elsa.config.words import Wire
from elsa.core.plan import BUSY
from elsa.engine.build import build_federation, open_sources
from elsa.engine.clock import cloud_seconds
from elsa.engine.federation import Federation
from elsa.engine.machine import prepare
from elsa.engine.planner import Lack, Planner
from elsa.engine.prices import Price
from elsa.engine.profile import as_here
from elsa.engine.schedule import Leg, finish_times


@dataclass(frozen=True)
class DevicePlan:
    """What a device would have and do.

    Attributes:
        device, edge: their names.
        bottom, trunk, top: p, o and q.
        memory: bytes it would hold.
        memory_limit: bytes it can hold; None where nothing is declared.
        flops, up, down, seconds: of a local step: operations, bytes, and time while nobody else
            asks the edge.
        round_flops, round_up, round_down, round_seconds: of a global round, waiting included.
        why: why this split, or what is lacking for any.
        fits: whether it can take part.
    """

    device: str
    edge: str
    bottom: int
    trunk: int
    top: int
    memory: float
    memory_limit: float | None
    flops: float
    up: float
    down: float
    seconds: float
    round_flops: float
    round_up: float
    round_down: float
    round_seconds: float
    why: str
    fits: bool = True


@dataclass(frozen=True)
class EdgePlan:
    """What an edge would do in a global round.

    Attributes:
        edge: its name.
        devices: how many it serves.
        flops: operations.
        up, down: bytes from and to the cloud.
        busy: part of the time that it computes.
        seconds: the round's, the way to the cloud and back included.
    """

    edge: str
    devices: int
    flops: float
    up: float
    down: float
    busy: float
    seconds: float


@dataclass(frozen=True)
class Plan:
    """A whole plan; the round is one that all devices take part in.

    Attributes:
        devices: in the order of their edges.
        edges: in their order.
        seconds: simulated, of a global round.
    """

    devices: tuple[DevicePlan, ...]
    edges: tuple[EdgePlan, ...]
    seconds: float

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON, with totals by tier."""
        return asdict(self) | {"totals": self.totals()}

    def totals(self) -> dict[str, dict[str, float]]:
        """Operations and bytes of a global round, by tier."""
        return {
            "devices": {
                "flops": sum(it.round_flops for it in self.devices),
                "up": sum(it.round_up for it in self.devices),
                "down": sum(it.round_down for it in self.devices),
            },
            "edges": {
                "flops": sum(it.flops for it in self.edges),
                "up": sum(it.up for it in self.edges),
                "down": sum(it.down for it in self.edges),
            },
        }


def make_plan(
    config: Config, say: Callable[[str], None] = lambda _: None, *, here: bool = False
) -> Plan:
    """Plan a config; reads its text and sizes, and no weights of the middle blocks.

    Args:
        config: what to plan.
        say: told what takes time.
        here: whether devices are like this machine, by a short measurement.

    Raises:
        ElsaError: text, model and config cannot be had, or do not go together.
    """
    prepare(config.run.threads)
    sources = open_sources(config, say)
    if here:
        config = as_here(config, sources.model)
    # The planner prices the config's own codecs, on any axes; to find theirs, the parties that are
    # built here would fetch public text and run the model on it.
    exact = config.model_copy(update={"wire": Wire(preset="exact")})
    federation = build_federation(exact, sources)
    return plan_of(federation, Planner(federation, sources, config))


def plan_of(federation: Federation, planner: Planner) -> Plan:
    """The plan of a federation that was built."""
    config = planner.config
    lacks = {it.device: it for it in planner.lacks()}
    rows: list[DevicePlan] = []
    edges: list[EdgePlan] = []
    for edge, names in federation.cloud.assignment.items():
        if not names:
            edges.append(EdgePlan(edge, devices=0, flops=0, up=0, down=0, busy=0.0, seconds=0.0))
            continue
        chosen = planner.choose(names)
        traces = [_edge_rounds(planner, name, chosen[name]) for name in chosen]
        lane = [leg.seconds for it in traces for own in it for leg in own if leg.place == "edge"]
        ends = [finish_times(each) for each in zip(*traces, strict=True)]
        seconds = sum(max(each) for each in ends)
        times = {name: sum(each[place] for each in ends) for place, name in enumerate(chosen)}
        for name in names:
            price = chosen.get(name)
            rows.append(
                _device(planner, edge, name, price, times[name], config)
                if price
                else _left_out(edge, lacks[name])
            )
        up, down = planner.prices[names[0]].cloud_orders()
        edges.append(
            EdgePlan(
                edge=edge,
                devices=len(chosen),
                flops=_steps(config) * sum(it.work.edge for it in chosen.values()),
                up=up,
                down=down,
                busy=sum(lane) / seconds if seconds else 0.0,
                seconds=seconds + (cloud_seconds(config.network, up, down) if chosen else 0.0),
            )
        )
    return Plan(tuple(rows), tuple(edges), max(it.seconds for it in edges))


def _steps(config: Config) -> int:
    return config.federation.edge_rounds * config.federation.steps


def _edge_rounds(planner: Planner, name: str, price: Price) -> list[list[Leg]]:
    """A device's legs in each edge round of its first global round."""
    config = planner.config.federation
    steps = config.steps
    return [
        planner.legs(name, price.split, range(number * steps, (number + 1) * steps))
        for number in range(config.edge_rounds)
    ]


def _device(
    planner: Planner, edge: str, name: str, price: Price, seconds: float, config: Config
) -> DevicePlan:
    limit = planner.memories[name]
    up, down = planner.prices[name].passed(planner.demands[name], price.split)
    return DevicePlan(
        device=name,
        edge=edge,
        bottom=price.split.bottom,
        trunk=price.split.trunk,
        top=price.split.top,
        memory=price.memory.total,
        memory_limit=limit if limit < float("inf") else None,
        flops=price.work.device,
        up=price.up,
        down=price.down,
        seconds=price.seconds,
        round_flops=_steps(config) * price.work.device,
        round_up=up,
        round_down=down,
        round_seconds=seconds,
        why=_reason(planner.price_list(name), price, limit, config),
    )


def _left_out(edge: str, lack: Lack) -> DevicePlan:
    split, need = lack.least.split, lack.least.memory.total
    return DevicePlan(
        device=lack.device,
        edge=edge,
        bottom=split.bottom,
        trunk=split.trunk,
        top=split.top,
        memory=need,
        memory_limit=lack.memory,
        flops=0.0,
        up=0.0,
        down=0.0,
        seconds=0.0,
        round_flops=0.0,
        round_up=0.0,
        round_down=0.0,
        round_seconds=0.0,
        why=f"cannot take part: lacks {lack.bytes / 1e6:.1f} MB of memory",
        fits=False,
    )


def _reason(prices: Sequence[Price], price: Price, limit: float, config: Config) -> str:
    """Why a device has this split, in a few words."""
    if config.split.mode == "fixed":
        return "as the config says"
    fitting = [it for it in prices if it.memory.total <= limit]
    quickest = min(fitting, key=lambda it: it.seconds)
    if len(fitting) == 1:
        return "all that its memory holds"
    if price.seconds <= quickest.seconds:
        return "its quickest"
    relieves = min(it.edge_seconds for it in prices if it.seconds <= price.seconds)
    what = f"relieves its edge, busy above {BUSY:.0%}"
    return f"{what}, as far as its memory goes" if relieves < price.edge_seconds else what
