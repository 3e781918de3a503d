"""`elsa`: the commands, their options and what they print; the work is done in `elsa.engine`."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from elsa.cli import deploy
from elsa.cli.compare import Several, compare
from elsa.cli.progress import Progress
from elsa.cli.stopping import say, stoppable
from elsa.config.load import load_config
from elsa.config.printing import default_toml
from elsa.errors import ConfigError, ElsaError, Interrupted
from elsa.model.lean import import_lean

if TYPE_CHECKING:
    from elsa.engine.playing import Engine
    from elsa.engine.run import Result

app = typer.Typer(
    help="Fine-tune language models on text that may not leave small devices.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
app.add_typer(deploy.commands)
app.command(cls=Several)(compare)

RunPath = Annotated[Path, typer.Argument(help="Folder of a run, such as runs/quickstart.")]
Trace = Annotated[
    Path | None,
    typer.Option(metavar="FILE", help="Write a Chrome trace of the rounds, in simulated time."),
]
EngineName = Annotated[
    Literal["embedded", "ray"],
    typer.Option(help="What plays the rounds: this process, or one an edge on a Ray cluster."),
]
Address = Annotated[
    str,
    typer.Option(
        "--ray-address",
        metavar="HOST:PORT",
        help="Of a Ray cluster that runs; one is started here if left out.",
    ),
]
Json = Annotated[bool, typer.Option("--json", help="Print the summary alone, as JSON.")]


@app.command()
def run(
    config: Annotated[
        Path | None, typer.Argument(help="TOML file or preset; the quick start if left out.")
    ] = None,
    set_: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="Change a setting; may be repeated."),
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="New folder for the run; runs/NAME if left out.")
    ] = None,
    trace: Trace = None,
    engine: EngineName = "embedded",
    ray_address: Address = "",
    json_: Json = False,
    print_config: Annotated[
        bool, typer.Option("--print-config", help="Print the default config, commented.")
    ] = False,
) -> None:
    """Train a federation of devices, edge servers and a cloud on this machine."""
    if print_config:
        sys.stdout.write(default_toml())
        return
    settings = load_config(config, set_ or [])
    # Imported late, like everything that brings torch along: help and config errors come at once.
    import_lean()
    from elsa.engine import run as engine_run

    with Progress() as progress, stoppable() as stopped:
        result = engine_run.run(
            settings,
            out=out,
            listen=progress.event,
            say=progress.say,
            stop=lambda: bool(stopped),
            trace=trace,
            engine=_engine(engine, ray_address),
        )
    _finish(result, json_)


@app.command()
def resume(
    path: RunPath,
    trace: Trace = None,
    engine: EngineName = "embedded",
    ray_address: Address = "",
    json_: Json = False,
) -> None:
    """Go on with a run from its last checkpoint; the result is that of an uninterrupted run."""
    import_lean()
    from elsa.engine import run as engine_run

    with Progress() as progress, stoppable() as stopped:
        result = engine_run.resume(
            path,
            listen=progress.event,
            say=progress.say,
            stop=lambda: bool(stopped),
            trace=trace,
            engine=_engine(engine, ray_address),
        )
    _finish(result, json_)


@app.command()
def plan(
    config: Annotated[
        Path | None, typer.Argument(help="TOML file or preset; the quick start if left out.")
    ] = None,
    set_: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="Change a setting; may be repeated."),
    ] = None,
    json_: Annotated[bool, typer.Option("--json", help="Print the plan as JSON.")] = False,
    here: Annotated[
        bool, typer.Option("--here", help="Devices like this machine, measured now.")
    ] = False,
) -> None:
    """Say what a run would cost each device, edge and link, and why; nothing is trained."""
    settings = load_config(config, set_ or [])
    from elsa.cli.planned import show, to_json
    from elsa.engine.plan import make_plan

    made = make_plan(settings, say, here=here)
    if json_:
        sys.stdout.write(to_json(made))
    else:
        show(made)


@app.command()
def export(
    path: RunPath,
    out: Annotated[
        Path | None, typer.Option(help="New folder to write; RUN/export if left out.")
    ] = None,
    merge: Annotated[
        bool, typer.Option("--merge", help="Write a whole model with the adapter merged in.")
    ] = False,
) -> None:
    """Write the adapter as plain PEFT, or merged into a whole model."""
    from elsa.engine.export import export_run

    written = export_run(path, out, merge=merge, say=say)
    sys.stdout.write(f"{written}\n")


@app.command()
def audit(
    source: Annotated[
        Path | None,
        typer.Argument(metavar="[RUN|CONFIG]", help="Run folder, TOML file or preset."),
    ] = None,
    set_: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="Change a setting of a config."),
    ] = None,
    out: Annotated[Path | None, typer.Option(help="New folder for what it writes.")] = None,
    texts: Annotated[int, typer.Option(min=8, help="Texts to attack.")] = 120,
    seed: Annotated[int, typer.Option(min=0, help="Of the attacks.")] = 0,
    json_: Json = False,
) -> None:
    """Attack what the edge servers of a run see; show how well that does, and without defence."""
    from elsa.audit.audit import Settings
    from elsa.cli import audit as auditing

    settings = Settings(texts=texts, seed=seed)
    with Progress() as progress, stoppable() as stopped:
        path = auditing.audit(
            source,
            set_ or [],
            out,
            settings,
            progress.say,
            progress.event,
            lambda: bool(stopped),
        )
    if source is not None and out is None and (source / "manifest.json").is_file():
        from elsa.cli.outcome import report

        report(source)  # its page shows the audit now
    if json_:
        sys.stdout.write(path.read_text(encoding="utf-8"))
    else:
        auditing.show(path)


@app.command("report")
def report_(
    runs: Annotated[
        list[Path], typer.Argument(metavar="RUN...", help="Folders of runs, beside each other.")
    ],
    out: Annotated[
        Path | None,
        typer.Option(help="File to write; RUN/report.html of one run, else report.html here."),
    ] = None,
) -> None:
    """Write one HTML page of a run, or of several side by side; it opens without a network."""
    from elsa.report.page import write_report

    sys.stdout.write(f"{write_report(runs, out)}\n")


@app.command()
def doctor() -> None:
    """Check what a run needs; say what is missing and how to get it."""
    from elsa.cli.doctor import examine

    raise typer.Exit(examine())


def main() -> None:
    """Run the command line; errors of elsa become a message and an exit status.

    Status 1: elsa refused or failed, 2: the command line cannot be read, 130: interrupted.
    """
    try:
        app()
    except Interrupted as error:
        say(str(error))
        sys.exit(130)
    except ElsaError as error:
        say(f"{type(error).__name__}: {error}")
        sys.exit(1)


def _engine(name: str, address: str) -> "Engine":
    if name == "ray":
        from elsa.engine.ray.engine import OnRay

        return OnRay(address)
    if address:
        raise ConfigError(f"--ray-address {address} goes with --engine ray")
    from elsa.engine.playing import EMBEDDED

    return EMBEDDED


def _finish(result: "Result", as_json: bool) -> None:
    from elsa.cli.outcome import report, show

    report(result.directory)
    if as_json:
        # The file's own text: in it a number that is not finite is null, as JSON wants.
        sys.stdout.write((result.directory / "summary.json").read_text(encoding="utf-8"))
        return
    show(result.directory, result.summary)


if __name__ == "__main__":
    main()
