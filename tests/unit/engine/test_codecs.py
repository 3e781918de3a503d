"""The words of [wire] become the codecs that they name, or a message for a person."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from elsa.config.words import HOPS, PRESETS, Wire, read_words, words_of
from elsa.core import compiled
from elsa.core.codec import Frame, frame_of
from elsa.engine.codecs import Place, hop_codecs, parse, prepare_codecs
from elsa.engine.directions import Directions
from elsa.engine.run import run
from elsa.errors import ConfigError

HIDDEN = 96
LENGTHS = (5, 3)
PLACE = Place("h1", HIDDEN, Directions(lambda hop: torch.eye(HIDDEN), HIDDEN))
STAGES = (
    "exact",
    "fill:0.2",
    "temporal:0.2:8",
    "feedback",
    "subspace:4",
    "float32",
    "quantize:4",
    "top:3",
    "rotate",
    "center:token",
    "sketch:2",
)
VALUES = torch.randn(8, HIDDEN, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize(
    ("words", "size"),
    [
        ("exact", 4 * HIDDEN),
        ("float32", 4 * HIDDEN),
        ("bfloat16", 2 * HIDDEN),
        ("quantize:4", 2 + HIDDEN // 2),
        ("quantize:3:32:uniform:stochastic", 2 * 3 + HIDDEN * 3 // 8),
        ("top:4+bfloat16", None),
        ("sketch:2", 4 * HIDDEN // 2),
        ("sketch:3x8", 4 * 24),
        ("center:token+sketch:4", 2 + 4 * HIDDEN // 4),
        ("feedback+quantize:4", 2 + HIDDEN // 2),
        ("subspace:8+quantize:4", 2 + 8 + 2 + HIDDEN // 2),
        ("feedback+subspace:8+quantize:4", 2 + 8 + 2 + HIDDEN // 2),
    ],
)
def test_words_give_a_codec_of_the_size_they_promise(words: str, size: int | None) -> None:
    if size is None:
        with pytest.raises(ConfigError, match="must come last"):
            parse(words, PLACE)
        return
    packet = parse(words, PLACE).encode(VALUES, Frame(LENGTHS, seed=3))
    tag = 4 if "sketch" in words else 0
    assert len(packet.payload) == size * len(VALUES) + tag


def test_a_name_on_the_wire_reads_as_it_was_written() -> None:
    words = "rotate+quantize:4:token:gauss:nearest"
    assert parse(words, PLACE).name == words


@pytest.mark.parametrize(
    ("words", "why"),
    [
        ("quantise:4", "'quantise' is no stage; allowed: exact, fill, temporal alone"),
        ("quantize:5", "bits = 5; allowed: 2, 3, 4, 8"),
        ("quantize:x", "cannot be read"),
        ("quantize", "cannot be read"),
        ("quantize:4:7", "block"),
        ("quantize:4:token:gauss:nearest:more", "at most 4"),
        ("rotate:1", "cannot be read"),
        ("sketch:0", "ratio = 0.0; allowed: above 0"),
        ("sketch:3x0", "allowed: 1 or more"),
        ("sketch:1000", "no bucket of hidden size 96; allowed: a ratio up to 32"),
        (f"top:{HIDDEN + 1}", "k"),
        ("exact+rotate", "'exact' stands alone"),
        ("", "is no stage"),
        ("fill:0", "allowed: 0.1 to below 1"),
        ("fill", "cannot be read"),
        ("temporal:0.2:1:2:3", "at most 3"),
        ("fill:0.2:-1", "-1 axes; allowed: 0"),
        ("temporal:0.2:x", "cannot be read"),
        ("feedback+fill:0.2", "goes before stages, not before 'fill:0.2'"),
        ("subspace:8", "is no stage"),
        ("subspace:0+quantize:4", "0 directions; allowed: 1 to the hidden size"),
        ("subspace:97+quantize:4", "97 public directions; allowed: 1 to 96, the hidden size"),
        ("fill:0.2:97", "97 public directions; allowed: 1 to 96, the hidden size"),
        ("temporal:0.2:97", "97 public directions; allowed: 1 to 96, the hidden size"),
    ],
)
def test_an_impossible_codec_is_refused_with_its_hop(words: str, why: str) -> None:
    with pytest.raises(ConfigError, match=r".*") as caught:
        parse(words, PLACE)
    assert why in str(caught.value)


@settings(max_examples=150, deadline=None)
@given(st.lists(st.sampled_from(STAGES), min_size=1, max_size=4).map("+".join))
def test_what_is_accepted_before_there_is_a_model_works_with_one(words: str) -> None:
    try:
        read_words(words, "h1")
    except ConfigError:
        with pytest.raises(ConfigError):
            parse(words, PLACE)
        return
    frame = Frame(LENGTHS, 5, (1, 2))
    packet = parse(words, PLACE).encode(VALUES, frame)
    assert parse(words, PLACE).decode(packet, frame).shape == VALUES.shape


def test_a_hop_of_its_own_wins_over_the_preset() -> None:
    codecs = hop_codecs(Wire(preset="tiny", g1="bfloat16"), HIDDEN, PLACE.directions)
    assert codecs.g1.name == "bfloat16"
    assert codecs.h1.name == parse("temporal:0.3:64", PLACE).name
    with pytest.raises(ConfigError, match=r"wire\.h2 = 'top:97': .* k up to the hidden size"):
        hop_codecs(Wire(preset="exact", h2="top:97"), HIDDEN)


@pytest.mark.parametrize("hidden", [2, 63, 64, 65, 384])
def test_a_preset_takes_as_many_axes_as_there_are_dimensions(hidden: int) -> None:
    for preset in PRESETS:
        words = words_of(Wire.model_validate({"preset": preset}), hidden)
        axes = {int(it.split(":")[2]) for it in words.values() if it.startswith("temporal")}
        assert axes <= {min(64, hidden)}


def test_each_end_remembers_in_a_folder_of_its_own(tmp_path: Path) -> None:
    wire = Wire(preset="exact", h1="temporal:0.2", g2="feedback+quantize:4", folder=str(tmp_path))
    frame = Frame(LENGTHS, 0, (1, 2))
    for owner in ("device-0", "edge-0/device-0"):
        codecs = hop_codecs(wire, HIDDEN, owner=owner)
        codecs.h1.encode(VALUES, frame)
        codecs.g2.encode(VALUES, frame)
    found = {str(path.parent.relative_to(tmp_path)) for path in tmp_path.rglob("*.sample")}
    assert found == {
        f"{it}/{hop}" for it in ("device-0", "edge-0/device-0") for hop in ("h1", "g2")
    }


@pytest.mark.parametrize("axes", [1, 40, 96])
def test_a_codec_has_the_axes_that_were_asked_for(axes: int) -> None:
    assert parse(f"fill:0.2:{axes}", PLACE).name.startswith(f"fill:0.2:{axes}:")
    assert parse("fill:0.2:0", PLACE).name == "fill:0.2"


def test_axes_are_public_directions() -> None:
    with pytest.raises(ConfigError, match="none are known here"):
        parse("fill:0.2:32", Place("h1", HIDDEN))
    with pytest.raises(ConfigError, match="g2 has no public directions"):
        parse("fill:0.2:32", Place("g2", HIDDEN, PLACE.directions))


def test_exact_wire_compiles_nothing() -> None:
    # llvmlite and scikit-learn take 50 and 109 MB of a device that has no use for them.
    code = (
        "import sys; from elsa.config.words import Wire; import elsa.engine.deploy.device;"
        "from elsa.engine.codecs import hop_codecs;"
        "hop_codecs(Wire(preset='exact'), 96);"
        "assert not {'llvmlite', 'sklearn'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize(
    ("wire", "ready", "said"),
    [
        (Wire(preset="exact"), False, []),
        (Wire(preset="paper", g1="feedback+quantize:4"), False, []),
        (Wire(preset="exact", g2="fill:0.3"), True, []),
        (Wire(preset="exact", h2="temporal:0.3:8"), False, ["compiling the codecs"]),
    ],
)
def test_people_are_told_before_codecs_are_compiled(
    wire: Wire, ready: bool, said: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    lines: list[str] = []
    monkeypatch.setattr(compiled, "ready", lambda: ready)
    monkeypatch.setattr(compiled, "make", lambda: lines.append("made"))
    prepare_codecs(wire, lines.append)
    light = wire.g2.startswith("fill") or wire.h2.startswith("temporal")
    assert [line.partition(" for")[0] for line in lines] == [*said, *["made"] * light]


def test_frames_differ_by_session_step_hop_and_micro_batch() -> None:
    seeds = {
        frame_of(LENGTHS, seed, step, hop, (), part).seed
        for seed in (0, 1)
        for step in (0, 1)
        for hop in HOPS
        for part in (0, 1)
    }
    assert len(seeds) == 2 * 2 * 4 * 2
    assert frame_of(LENGTHS, 1, 2, "h1") == frame_of(LENGTHS, 1, 2, "h1")


def test_presets_run_and_the_smaller_sends_less(make: Any, questions: Path, tmp_path: Path) -> None:
    # What the axes are found from need not be downloaded here.
    public = (f"wire.public={questions}", "wire.public_text=question")
    sent, adapters = {}, {}
    for preset in PRESETS:
        result = run(make(f"wire.preset={preset}", *public), out=tmp_path / preset)
        sent[preset] = result.summary["bytes"]["device_to_edge"]
        adapters[preset] = (result.directory / "adapter/adapter_model.safetensors").read_bytes()
    assert sent["exact"] > sent["paper"] > sent["balanced"] > sent["tiny"]
    assert len(set(adapters.values())) == len(PRESETS)  # each codec was really on
