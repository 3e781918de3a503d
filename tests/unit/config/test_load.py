import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from elsa.config.keys import all_keys
from elsa.config.load import load_config
from elsa.config.printing import toml_value
from elsa.config.schema import Config
from elsa.errors import ConfigError

VALUES = {
    path: key
    for path, key in all_keys().items()
    if not key.children and not path.startswith("task.")
}
"""All but those of [[task]], which repeats."""
LITERALS = {path: key for path, key in VALUES.items() if key.choices}
BOUNDED = {path: key for path, key in VALUES.items() if "at least" in key.allowed}
JARGON = ("pydantic", "http", "Input should", "Value error", "validation", "Extra inputs")


def refused(source: Path | str | None = None, *overrides: str) -> str:
    with pytest.raises(ConfigError) as caught:
        load_config(source, overrides)
    text = str(caught.value)
    assert not [word for word in JARGON if word in text]
    return text


@pytest.mark.parametrize(
    ("second", "message"),
    [
        ('name = "sms"\nshare = 0', "task[1].share = 0: must be a number, above 0"),
        ('name = "a.b"', 'task[1].name = "a.b": must be text, matching'),
        ('name = "sms"\npaht = "sms"', 'task[1].paht = "sms": there is no such key (did you mean'),
        ('name = "trec"', "each must be another"),
    ],
)
def test_what_is_wrong_with_a_task_is_said_with_its_number(
    second: str, message: str, tmp_path: Path
) -> None:
    file = tmp_path / "my.toml"
    file.write_text(f'[[task]]\nname = "trec"\n[[task]]\n{second}\n')
    assert message in refused(file)


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("federation.devices=1", "each task needs a device"),
        ("model.task=causal-lm", "'causal-lm' has not"),
        ("partition.small_devices=1", "not with [[task]]"),
        ("partition.kind=group", "needs data.group"),
    ],
)
def test_tasks_that_do_not_go_with_the_rest_are_refused(
    override: str, message: str, tmp_path: Path
) -> None:
    file = tmp_path / "my.toml"
    file.write_text('[[task]]\nname = "trec"\ngroup = "x"\n[[task]]\nname = "sms"\n')
    overrides = [override, "federation.edges=1"]
    if "causal" in override:
        overrides.append("partition.kind=iid")
    assert message in refused(file, *overrides)


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("split.top=0", "set split.top to 1"),
        ("split.mode=fitted", "goes with split.mode = 'fixed'"),
        ("federation.trunk=shared", "leave federation.trunk at 'per-device'"),
    ],
)
def test_what_does_not_go_with_a_frozen_trunk_is_refused(override: str, message: str) -> None:
    assert message in refused(None, "split.freeze=trunk", override)


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("train.batch_size=3", "cuts a batch of train.batch_size = 3 rows"),
        ("split.layout=whole", "overlaps the hops of three parts"),
        ("split.freeze=trunk", "a text is sent once"),
        ("federation.trunk=shared", "allowed: 1, or 'per-device'"),
    ],
)
def test_what_does_not_go_with_several_in_flight_is_refused(override: str, message: str) -> None:
    assert message in refused(None, "train.in_flight=4", override)


def test_nothing_means_the_quick_start() -> None:
    assert load_config() == load_config("quickstart") == Config()


@pytest.mark.parametrize("path", LITERALS)
def test_every_choice_is_taken_and_another_is_refused_with_the_list(path: str) -> None:
    text = refused(None, f"{path}=nonsense")
    assert f'{path} = "nonsense" (from --set)' in text
    for choice in LITERALS[path].choices:
        assert f'"{choice}"' in text
        assert "must be" not in _any_error(f"{path}={choice}")


@pytest.mark.parametrize("path", BOUNDED)
def test_a_number_below_its_bound_is_refused_with_the_bound(path: str) -> None:
    assert f"{path} = -1 (from --set): must be {BOUNDED[path].allowed}" in refused(
        None, f"{path}=-1"
    )


@pytest.mark.parametrize("path", VALUES)
def test_every_key_refuses_a_table(path: str, tmp_path: Path) -> None:
    file = tmp_path / "my.toml"
    file.write_text(f"[{path}]\n")
    assert f"{path}: must be {VALUES[path].allowed}" in refused(file)


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ("federation.edge", "federation.edges"),
        ("federation.Rounds", "federation.rounds"),
        ("federation.batch_size", "train.batch_size"),
        ("rounds", "federation.rounds"),
        ("round", "federation.rounds"),
        ("federaton.rounds", "federation"),
        ("network.device_edge.latncy_ms", "network.device_edge.latency_ms"),
        ("netwrk", "network"),
    ],
)
def test_an_unknown_key_is_refused_with_the_nearest_spelling(written: str, meant: str) -> None:
    assert f"(did you mean {meant}?)" in refused(None, f"{written}=3")


def test_an_unknown_key_like_no_other_lists_the_keys_of_its_table() -> None:
    text = refused(None, "split.zzz=3")
    assert "did you mean" not in text
    assert "keys of [split]: bottom, top" in text


def test_a_wrong_choice_is_refused_with_the_nearest_spelling() -> None:
    assert '(did you mean "causal-lm"?)' in refused(None, "model.task=causal_lm")


def test_all_problems_are_reported_at_once_a_line_each(tmp_path: Path) -> None:
    path = tmp_path / "my.toml"
    path.write_text("[federation]\ndevises = 3\nrounds = 0\n[train]\nbatch_size = 1.5\n")
    lines = refused(path, "junk", "run.seed=-1").splitlines()
    assert lines[0] == f"{path}: 5 settings cannot be used"
    starts = ("--set junk", "federation.devises = 3:", "federation.rounds = 0:")
    starts = (*starts, "train.batch_size = 1.5:", "run.seed = -1 (from --set):")
    for start in starts:
        assert sum(line.strip().startswith(start) for line in lines) == 1
    assert len(lines) == 6


def test_an_impossible_combination_says_what_is_impossible() -> None:
    text = refused(None, "federation.edges=20")
    assert "federation.edges = 20 is more than federation.devices = 10" in text


@pytest.mark.parametrize(
    ("override", "value"),
    [
        ("data.path=my.csv", "my.csv"),
        ("data.path='my.csv'", "my.csv"),
        ("data.path=12", "12"),
        ("data.path=true", "true"),
        ("data.path=2024-01-01", "2024-01-01"),
        ("data.path=a=b", "a=b"),
        ("data.path=", ""),
        ("data.path = my.csv ", "my.csv"),
        ("train.learning_rate=3e-4", 3e-4),
        ("train.learning_rate=1", 1.0),
        ("train.bucketing=false", False),
        ("federation.rounds=5", 5),
        ('adapter.targets=["query", "value"]', ("query", "value")),
        ("network.device_edge.latency_ms=3", 3.0),
        ("network.device_edge={latency_ms = 3}", {"latency_ms": 3.0, "up_mbps": 20.0}),
    ],
)
def test_an_override_is_read_as_toml_or_else_as_text(override: str, value: object) -> None:
    found: object = load_config(None, [override])
    for name in override.partition("=")[0].strip().split("."):
        found = getattr(found, name)
    if isinstance(value, dict):
        found = {name: getattr(found, name) for name in value}
    assert found == value
    assert type(found) is type(value)


def test_an_override_wins_over_the_file_and_the_last_over_the_first(tmp_path: Path) -> None:
    path = tmp_path / "my.toml"
    path.write_text("[federation]\nrounds = 3\nedges = 5\n")
    config = load_config(path, ["federation.rounds=7", "federation.rounds=8"])
    assert (config.federation.rounds, config.federation.edges) == (8, 5)


def test_a_part_of_a_table_keeps_the_other_defaults(tmp_path: Path) -> None:
    path = tmp_path / "my.toml"
    path.write_text("[network.device_edge]\nlatency_ms = 3\n")
    expected = Config().network.device_edge.model_copy(update={"latency_ms": 3.0})
    assert load_config(path).network.device_edge == expected


@pytest.mark.parametrize("override", ["rounds", "=3", "federation..rounds=3", ".=1", ""])
def test_an_override_that_is_no_setting_says_how_to_write_one(override: str) -> None:
    assert f"--set {override}: must be KEY=VALUE" in refused(None, override)


def test_broken_toml_is_refused_with_file_and_line(tmp_path: Path) -> None:
    path = tmp_path / "my.toml"
    path.write_text("[run]\nseed = 1\nname =\n")
    text = refused(path)
    assert str(path) in text
    assert "line 3" in text


def test_files_that_cannot_be_read_are_config_errors(tmp_path: Path) -> None:
    assert "presets: private, quickstart" in refused(tmp_path / "absent.toml")
    assert "cannot be read" in refused(tmp_path)
    path = tmp_path / "latin.toml"
    path.write_bytes(b'[run]\nname = "caf\xe9"\n')
    assert "is not UTF-8" in refused(path)


def test_a_file_from_a_windows_editor_is_read(tmp_path: Path) -> None:
    path = tmp_path / "my.toml"
    path.write_bytes(b"\xef\xbb\xbf[run]\r\nseed = 4\r\n")
    assert load_config(path).run.seed == 4


scalars = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=100)
anything = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=5,
)


@settings(deadline=None)
@given(path=st.sampled_from(sorted(VALUES)) | st.text(), value=anything)
def test_whatever_is_set_the_config_is_good_or_the_error_is_ours(path: str, value: object) -> None:
    _any_error(f"{path}={toml_value(value)}")


def test_reading_a_config_needs_no_torch() -> None:
    code = (
        "import sys; from elsa.config.load import load_config; load_config();"
        "sys.exit(bool({'torch', 'transformers', 'numpy'} & set(sys.modules)))"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


def _any_error(override: str) -> str:
    try:
        load_config(None, [override])
    except ConfigError as error:
        text = str(error)
        assert not [word for word in JARGON if word in text]
        return text
    return ""


@pytest.mark.parametrize(
    ("settings", "reason"),
    [
        (["data.answer=a"], r"data.answer = 'a' needs model.task = 'causal-lm'"),
        (["data.messages=m"], r"data.messages = 'm' needs model.task = 'causal-lm'"),
        (
            ["model.task=causal-lm", "data.answer=a", "data.messages=m"],
            "data.answer and data.messages exclude each other",
        ),
        (["model.task=causal-lm", "data.pair=b"], "data.pair = 'b' needs model.task"),
    ],
)
def test_answers_are_for_language_models_and_pairs_for_classifiers(
    settings: list[str], reason: str
) -> None:
    assert reason in refused(None, *settings)
