"""`elsa certs`, `elsa cloud`, `elsa edge` and `elsa device`: one role a process; `elsa health`."""

import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from elsa.cli.logs import Style, set_up, tell
from elsa.cli.progress import Progress
from elsa.cli.stopping import stoppable
from elsa.config.load import load_config
from elsa.config.names import numbered
from elsa.errors import ConfigError
from elsa.model.lean import import_lean

if TYPE_CHECKING:
    from elsa.config.schema import Config
    from elsa.engine.deploy.supervision import Supervision
    from elsa.wire.rpc.security import Security

commands = typer.Typer()

ConfigPath = Annotated[
    Path | None, typer.Argument(help="TOML file or preset, alike at all parties.")
]
Set = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="Change a setting; may be repeated."),
]
Certs = Annotated[
    Path | None, typer.Option(help="Folder with ca.pem, and NAME.pem and NAME.key of this party.")
]
State = Annotated[
    Path | None,
    typer.Option(help="Folder where optimizer state is kept, to go on with when started again."),
]
Plain = Annotated[
    bool,
    typer.Option("--insecure-loopback", help="No TLS; for addresses of this machine only."),
]
Health = Annotated[
    str,
    typer.Option(metavar="[HOST:]PORT", help="Answer the gRPC health service here, without TLS."),
]
Metrics = Annotated[
    str, typer.Option(metavar="[HOST:]PORT", help="Let Prometheus scrape here, over HTTP.")
]
Log = Annotated[Style, typer.Option(help="How to log: for people, or a JSON object a line.")]


@commands.command()
def certs(
    folder: Annotated[Path, typer.Argument(help="Folder to write to; kept if it is there.")],
    config: ConfigPath = None,
    set_: Set = None,
    host: Annotated[
        list[str] | None,
        typer.Option(
            metavar="EDGE=HOST",
            help="Name or address of an edge, with Flower of the cloud too; may be repeated.",
        ),
    ] = None,
    days: Annotated[int, typer.Option(min=1, help="How long certificates are valid.")] = 365,
    renew: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME", help="Replace the certificate of this party; may be repeated"),
    ] = None,
) -> None:
    """Make an authority and a certificate for the cloud, each edge and each device."""
    from elsa.wire.rpc.authority import Party, issue, make_authority

    settings = load_config(config, set_ or [])
    federation = settings.federation
    edges = numbered("edge", federation.edges)
    servers = [*edges, "cloud"] if settings.deploy.link == "flower" else edges
    hosts: dict[str, list[str]] = {"cloud": []}
    hosts |= {server: ["localhost", "127.0.0.1", "::1"] for server in servers}
    for server, address in _pairs(host or [], "--host", servers):
        hosts[server].append(address)
    parties = [
        Party("cloud", "cloud", tuple(hosts["cloud"])),
        *(Party(edge, "edge", tuple(hosts[edge])) for edge in edges),
        *(Party(name, "device") for name in numbered("device", federation.devices)),
    ]
    unknown = sorted(set(renew or []) - {party.name for party in parties})
    if unknown:
        raise ConfigError(f"--renew {unknown[0]}: is no party of this config")
    make_authority(folder)
    written = [
        party.name
        for party in parties
        if issue(folder, party, days, renew=party.name in (renew or []))
    ]
    sys.stdout.write(f"{folder}: {', '.join(written) or 'nothing new'}\n")


@commands.command()
def edge(
    listen: Annotated[str, typer.Option(help="HOST:PORT to listen at.")],
    config: ConfigPath = None,
    name: Annotated[str, typer.Option(help="Which edge this is.")] = "edge-0",
    cloud: Annotated[
        str, typer.Option(help="HOST:PORT of the cloud, with deploy.link = 'flower'.")
    ] = "",
    certs: Certs = None,
    plain: Plain = False,
    health: Health = "",
    metrics: Metrics = "",
    log: Log = "human",
    state: State = None,
    set_: Set = None,
) -> None:
    """Be an edge server: hold the middle blocks for its devices, and obey the cloud."""
    say = set_up(log, name)
    settings, security = _begin(config, set_, name, certs, plain)
    _check_link(settings, "--cloud HOST:PORT", bool(cloud))
    with (
        stoppable("the cloud keeps finished rounds", say) as stopped,
        _watched(health, metrics, say) as watched,
    ):
        import_lean()
        from elsa.engine.deploy.edge import run_edge

        run_edge(
            settings,
            listen,
            security,
            cloud=cloud,
            state=state,
            watched=watched,
            say=say,
            stop=lambda: bool(stopped),
        )


@commands.command()
def device(
    edge: Annotated[
        list[str],
        typer.Option(
            metavar="[EDGE=]HOST:PORT",
            help="Where an edge is that it may go to; one option for each. Without a name, its own",
        ),
    ],
    data: Annotated[Path, typer.Option(help="Its rows: a CSV, JSONL or Parquet file.")],
    name: Annotated[str, typer.Option(help="Which device this is, as in device-3.")],
    config: ConfigPath = None,
    certs: Certs = None,
    plain: Plain = False,
    log: Log = "human",
    state: State = None,
    set_: Set = None,
) -> None:
    """Be a device: train on the rows of a file, which do not leave it."""
    say = set_up(log, name)
    settings, security = _begin(config, set_, name, certs, plain)
    with stoppable("the rows stay where they are", say) as stopped:
        import_lean()
        from elsa.engine.deploy.device import home_of, run_device

        own = home_of(settings, name)
        named = [each if "=" in each else f"{own}={each}" for each in edge]
        edges = dict(_pairs(named, "--edge", numbered("edge", settings.federation.edges)))
        run_device(
            settings, edges, data, security, state=state, say=say, stop=lambda: bool(stopped)
        )


@commands.command()
def cloud(
    config: ConfigPath = None,
    edge: Annotated[
        list[str] | None,
        typer.Option(metavar="EDGE=HOST:PORT", help="Where an edge is; one option for each."),
    ] = None,
    listen: Annotated[
        str, typer.Option(help="HOST:PORT for the edges, with deploy.link = 'flower'.")
    ] = "",
    certs: Certs = None,
    plain: Plain = False,
    out: Annotated[
        Path | None,
        typer.Option(help="Folder of the run; one that was stopped goes on. runs/NAME if left out"),
    ] = None,
    health: Health = "",
    metrics: Metrics = "",
    log: Log = "human",
    set_: Set = None,
) -> None:
    """Be the cloud: drive the rounds of the edges, average what they send, keep the result."""
    say = set_up(log, "cloud")
    settings, security = _begin(config, set_, "cloud", certs, plain)
    addresses = dict(_pairs(edge or [], "--edge", numbered("edge", settings.federation.edges)))
    _check_link(settings, "--listen HOST:PORT and no --edge", bool(listen) and not edge)
    from elsa.cli.outcome import report, show

    with (
        Progress() as progress,
        _watched(health, metrics, say) as watched,
        stoppable(say=say) as stopped,
    ):
        from elsa.engine.deploy.cloud import run_cloud

        result = run_cloud(
            settings,
            listen or addresses,
            security,
            out=out,
            watched=watched,
            listen=tell if log == "json" else progress.event,
            say=say if log == "json" else progress.say,
            stop=lambda: bool(stopped),
        )
    report(result.directory)
    show(result.directory, result.summary)


@commands.command()
def health(
    address: Annotated[str, typer.Argument(metavar="[HOST:]PORT", help="As given to --health.")],
    alive: Annotated[
        bool, typer.Option("--alive", help="Ask whether it lives, not whether it is ready.")
    ] = False,
) -> None:
    """Ask an edge or the cloud whether it is ready; status 0 if it is, 1 if not or no answer."""
    from elsa.wire.rpc.health import READY, ask_health

    state = ask_health(address, "" if alive else READY)
    sys.stdout.write(f"{state}\n")
    raise typer.Exit(state != "serving")


@contextmanager
def _watched(health: str, metrics: str, say: Callable[[str], None]) -> "Iterator[Supervision]":
    """Answer health questions within, where asked for."""
    from elsa.engine.deploy.supervision import Supervision

    if not health:
        yield Supervision(metrics)
        return
    from elsa.wire.rpc.health import HealthServer

    server = HealthServer(health)
    say(f"health at {server.address}")
    try:
        yield Supervision(metrics, server.set_ready)
    finally:
        server.close()


def _begin(
    config: Path | None, set_: list[str] | None, name: str, certs: Path | None, plain: bool
) -> "tuple[Config, Security]":
    settings = load_config(config, set_ or [])
    from elsa.wire.rpc.security import Loopback, Tls

    if (certs is None) == (not plain):
        raise ConfigError(
            "give --certs FOLDER (see `elsa certs`), or --insecure-loopback to try things out on "
            "one machine"
        )
    if certs is None:
        return settings, Loopback(name)
    security = Tls(certs, name)
    security.check()
    return settings, security


def _check_link(settings: "Config", wanted: str, given: bool) -> None:
    """See that where the cloud and edges meet is told as `deploy.link` needs it."""
    if given != (settings.deploy.link == "flower"):
        raise ConfigError(
            f"deploy.link = '{settings.deploy.link}': give {wanted} with 'flower', and only then"
        )


def _pairs(given: Sequence[str], option: str, names: Sequence[str]) -> list[tuple[str, str]]:
    pairs = []
    for each in given:
        name, _, value = each.partition("=")
        if name not in names or not value:
            raise ConfigError(f"{option} {each}: allowed: NAME=..., NAME one of {', '.join(names)}")
        pairs.append((name, value))
    return pairs
