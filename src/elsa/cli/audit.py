"""`elsa audit`: records what edge servers see, attacks it, and shows how well that does.

Attacks live in `elsa.audit` and know no engine; what they attack is made by the engine, which knows
no attack. The two meet here.
"""

import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table
from torch import Tensor

from elsa.audit.audit import Candidates, Settings, attack
from elsa.audit.defence import Defence, Turn
from elsa.audit.front import Point, best_reader, draw_front
from elsa.audit.knowledge import Knowledge
from elsa.audit.row import Row
from elsa.audit.transcript import Session, read_sessions
from elsa.config.load import load_config
from elsa.config.privacy import Noise, SsOp
from elsa.config.schema import Config
from elsa.config.words import Wire
from elsa.core.codec import HopCodecs
from elsa.core.split import Split
from elsa.data.batches import Batch, Examples
from elsa.data.sources import load_table
from elsa.data.table import Columns
from elsa.engine import run as engine
from elsa.engine.answers import batches_of, honest
from elsa.engine.build import Sources, build_federation, open_sources
from elsa.engine.codecs import hop_codecs
from elsa.engine.directions import public_directions
from elsa.engine.federation import Federation
from elsa.engine.parts import encode
from elsa.engine.perturbation import gradient_noise_of, noise_of
from elsa.engine.recording import TRANSCRIPT
from elsa.engine.runner import Listener
from elsa.errors import ConfigError
from elsa.model.segments import initial_adapters
from elsa.record.atomic import write_atomically
from elsa.record.checkpoint import load_checkpoint
from elsa.record.manifest import read_manifest

ROUNDS = 2
"""Global rounds of a run that is made to be recorded: two, so that rounds can be linked."""
FRONT = "front.svg"
PUBLIC = "nq-open"
"""The text that an attacker has, whatever gives a run its axes."""
PLAIN, OWN = "no defence", "this run"
Say = Callable[[str], None]


def audit(
    source: Path | None,
    overrides: Sequence[str],
    out: Path | None,
    settings: Settings,
    say: Say = lambda _: None,
    listen: Listener = lambda _: None,
    stop: Callable[[], bool] = lambda: False,
) -> Path:
    """Attack a run, or a short run of a config, and the same without any defence.

    Args:
        source: a run directory, or a config as `elsa run` takes it.
        overrides: settings of a config.
        out: an empty or new folder; None takes RUN/audit, or runs/NAME-audit.
        settings: of the attacks.
        say: told what takes time.
        listen: told the events of the runs that it makes.
        stop: asked during these runs; true ends the audit.

    Returns:
        audit.json, which it wrote; where accuracies can be compared there is front.svg beside it.

    Raises:
        ElsaError: it cannot be run, recorded or attacked.
    """
    is_run = source is not None and (source / "manifest.json").is_file()
    run = source if is_run else None
    config = _config_of(run) if run else load_config(source, overrides)
    folder = out or (run / "audit" if run else engine.RUNS / f"{config.run.name}-audit")
    if len(config.task) > 1:
        raise ConfigError(
            f"elsa audit attacks one task, and this config has {len(config.task)}: "
            "audit a config with one of them"
        )
    plain = undefended(config)
    found: dict[str, list[Row]] = {}
    accuracy: dict[str, float] = {}

    def record(config: Config, name: str, arm: str) -> list[Row]:
        made = folder / name
        say(f"recording {ROUNDS} rounds in {made}")
        done = engine.run(shortened(config), out=made, listen=listen, stop=stop)
        if "accuracy" in done.summary:
            accuracy[arm] = done.summary["accuracy"]
        return attack_run(made, run if run and name == "recorded" else made, settings, say)

    own = PLAIN if config == plain else OWN
    if run is not None and (run / TRANSCRIPT).is_dir():
        found[own] = attack_run(run, run, settings, say)
    else:
        found[own] = record(config, "recorded", own)
    if own != PLAIN:
        found[PLAIN] = record(plain, "undefended", PLAIN)
    rows = {name: [asdict(row) for row in each] for name, each in found.items()}
    if accuracy.keys() == {OWN, PLAIN}:
        draw_front(folder / FRONT, front_of(found, accuracy), f"{config.run.name}, {ROUNDS} rounds")
    report = {
        "config": config.model_dump(mode="json"),
        "settings": asdict(settings),
        "accuracy": accuracy,
        "attacks": rows,
    }
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "audit.json"
    write_atomically(path, json.dumps(report, indent=1, default=str).encode() + b"\n")
    return path


def front_of(found: Mapping[str, Sequence[Row]], accuracy: Mapping[str, float]) -> list[Point]:
    """Each arm's accuracy lost against no defence, and its tokens read by the best attack."""
    points = []
    for name, rows in found.items():
        if best := best_reader(rows):
            score, lost = best.score, 100 * (accuracy[PLAIN] - accuracy[name])
            points.append(Point(name, score.value, score.low, score.high, lost))
    return points


def undefended(config: Config) -> Config:
    """The config with nothing between a device's states, its gradients, and its edge."""
    split = config.split.model_copy(update={"freeze": "none"})
    plain = {"ssop": SsOp(), "noise": Noise(), "wire": Wire(preset="exact"), "split": split}
    return config.model_copy(update=plain)


def shortened(config: Config) -> Config:
    """The config with as many rounds as are recorded, and those recorded."""
    rounds = min(ROUNDS, config.federation.rounds)
    federation = config.federation.model_copy(update={"rounds": rounds})
    recording = config.audit.model_copy(update={"record_rounds": rounds})
    return config.model_copy(update={"federation": federation, "audit": recording})


def attack_run(recording: Path, trained: Path, settings: Settings, say: Say) -> list[Row]:
    """The rows of a run with a transcript.

    Args:
        recording: the run directory with the transcript.
        trained: the run directory whose last adapters are asked about their members.
        settings: of the attacks.
        say: told what takes time.
    """
    config = _config_of(recording)
    # Attacks work on tensors of the transcript, which lie with the processor.
    here = config.run.model_copy(update={"accelerator": "cpu"})
    sources = open_sources(config.model_copy(update={"run": here}), say)
    federation = build_federation(config, sources)
    knowledge, codecs_of = knowledge_of(config, sources, say)
    say("decoding the transcript")
    sessions = read_sessions(recording / TRANSCRIPT, codecs_of)

    def answers(session: Session) -> Sequence[Batch] | None:
        lengths = [step.lengths for step in session.steps]
        return batches_of(federation, session.device, session.round, session.edge_round, lengths)

    return attack(
        sessions,
        answers,
        knowledge,
        _candidates(config, sources, federation, trained),
        settings,
        say,
    )


def knowledge_of(
    config: Config, sources: Sources, say: Say = lambda _: None
) -> tuple[Knowledge, Callable[[], HopCodecs]]:
    """What an edge knows of a config besides its transcript; and the codecs of one end."""
    model = sources.model
    split = Split.of(model.checkpoint.blocks, config.split.bottom, config.split.top)
    held = model.segments(split)
    assert held.top is not None
    directions = public_directions(config, model, sources.tokenizer)
    wire = config.wire.model_copy(update={"folder": ""})
    codecs_of = partial(hop_codecs, wire, model.checkpoint.hidden_size, directions)
    ssop = config.ssop
    turn = Turn(ssop.rank, ssop.angle, ssop.about) if ssop.rank else None
    table = load_table(PUBLIC, Columns(label=""), say=say)
    encoded = sources.tokenizer.encode(table.text, max_tokens=config.model.max_tokens)
    public = Examples([it.input_ids for it in encoded if len(it.input_ids)])
    noise, gradients = noise_of(config.noise), gradient_noise_of(config.noise)
    defence = Defence(lambda: codecs_of().h1, turn, noise, ssop.fresh, gradients)
    pad = sources.tokenizer.pad_id
    return Knowledge(held.bottom, model.trunk(split), held.top, public, pad, defence), codecs_of


def show(path: Path, console: Console | None = None) -> None:
    """Print an audit as a table on standard output."""
    console = console or Console()
    whole = json.loads(path.read_text("utf-8"))
    report = whole["attacks"]
    columns = [name for name in (PLAIN, OWN) if name in report]
    table = Table("about", "attack", "score", *columns, "chance", "attacker knows", box=None)
    rows = {(row["about"], row["attack"], row["measure"]): row for row in report[columns[-1]]}
    for key, row in rows.items():
        cells = [_cell(report[name], key) for name in columns]
        table.add_row(*key, *cells, f"{row['score']['chance']:.3f}", row["knows"])
    console.print(table)
    if shown := whole["accuracy"]:
        said = ", ".join(f"{name} {value:.3f}" for name, value in shown.items())
        console.print(f"accuracy after {ROUNDS} rounds: {said}", highlight=False)
    if (front := path.with_name(FRONT)).is_file():
        console.print(f"front    {front}", highlight=False, markup=False, soft_wrap=True)
    console.print(f"audit    {path}", highlight=False, markup=False, soft_wrap=True)


def _cell(rows: Sequence[Mapping[str, Any]], key: tuple[str, str, str]) -> str:
    for row in rows:
        if (row["about"], row["attack"], row["measure"]) == key:
            score = row["score"]
            return f"{score['value']:.3f} ({score['low']:.3f} to {score['high']:.3f})"
    return "-"


def _config_of(run: Path) -> Config:
    return Config.model_validate_json(json.dumps(read_manifest(run).config))


def _candidates(
    config: Config, sources: Sources, federation: Federation, trained: Path
) -> Candidates:
    model = sources.model
    generator = np.random.default_rng(config.run.seed)
    parts = [device.training for device in honest(federation).values()]
    each = math.ceil(1000 / len(parts))
    chosen = [part.take(generator.permutation(len(part))[:each]) for part in parts]
    return Candidates(
        _joined(chosen),
        encode(sources.text.test, sources.tokenizer, config),
        initial_adapters(model.checkpoint, model.task, model.lora, config.run.seed),
        _adapters_of(trained),
    )


def _adapters_of(run: Path) -> dict[str, Tensor]:
    held = load_checkpoint(run).tensors
    return {
        name.removeprefix("global/"): value
        for name, value in held.items()
        if name.startswith("global/")
    }


def _joined(parts: Sequence[Examples]) -> Examples:
    types = [part.token_types for part in parts if part.token_types is not None]
    labels = [part.labels for part in parts if part.labels is not None]
    return Examples(
        [ids for part in parts for ids in part.input_ids],
        [it for each in types for it in each] if types else None,
        np.concatenate(labels) if labels else None,
    )
