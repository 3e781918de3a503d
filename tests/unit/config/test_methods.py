"""What a config says beside a method: refused, or known to be another's."""

import re
from pathlib import Path

import pytest

from elsa.config.load import load_config
from elsa.config.methods import METHODS, untaken_problem
from elsa.config.schema import Config
from elsa.errors import ConfigError


@pytest.mark.parametrize(
    ("setting", "methods", "says"),
    [
        ("noise.ratio=0.5", ["fedavg", "elsa"], r"noise\.ratio = 0\.5: .* none of fedavg, elsa"),
        ("noise.update_ratio=1.0", ["fedavg"], r"noise\.update_ratio = 1\.0"),
        ("aggregate.late=buffer", ["elsa"], r"aggregate\.late = 'buffer'"),
        ("wire.preset=tiny", ["elsa"], r"or compare elsa-tiny too"),
        ("aggregate.mu=0.01", ["fedavg", "elsa"], r"or compare fedprox too"),
    ],
)
def test_what_no_method_takes_is_not_left_out_in_silence(
    setting: str, methods: list[str], says: str
) -> None:
    config = load_config(None, [setting])
    problem = untaken_problem(config, methods)
    assert problem is not None
    assert re.search(says, problem)
    with pytest.raises(ConfigError, match=re.escape(setting.partition("=")[0])):
        load_config(None, [f"run.method={methods[0]}", setting])


def test_what_some_method_takes_or_none_says_is_fine() -> None:
    mixed = load_config(None, ["wire.preset=tiny", "attack.kind=random", "attack.fraction=0.2"])
    assert untaken_problem(mixed, ["fedavg", "elsa-tiny"]) is None
    assert untaken_problem(Config(), list(METHODS)) is None
    assert all(untaken_problem(Config(), [name]) is None for name in METHODS)


def test_a_file_that_buffers_late_updates_is_no_obstacle_to_a_method(tmp_path: Path) -> None:
    """Trust and whole models go with no buffer; a method's own rule wins, as all its settings."""
    path = tmp_path / "late.toml"
    path.write_text('[aggregate]\nlate = "buffer"\n', encoding="utf-8")
    for name in METHODS:
        assert load_config(path, [f"run.method={name}"]).aggregate.late == "drop"
