"""Whole runs with other rules: they learn, and where two must agree they do to the bit."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from elsa.engine.run import run

Traces = Callable[[Path], dict[str, Any]]
MANY = ("federation.devices=6", "federation.edges=2", "partition.min_rows=4")
RULES = {
    "median": ("aggregate.edge_rule=median", *MANY),
    "krum": ("aggregate.edge_rule=krum", "aggregate.edge_byzantine=0", *MANY),
    "cloud": (
        "aggregate.cloud_rule=trimmed-mean",
        "aggregate.trim=0.34",
        "federation.edges=3",
        "federation.trunk=shared",
    ),
    "prox": ("aggregate.mu=0.5",),
    "adam": ("aggregate.server=adam",),
    "product": ("aggregate.factors=product",),
    "ranks": ("adapter.ranks=[2, 1]",),
    "ranks-product": ("adapter.ranks=[2, 1]", "aggregate.factors=product"),
}


def weights(result: Any) -> dict[str, torch.Tensor]:
    return load_file(result.directory / "adapter" / "adapter_model.safetensors")


@pytest.mark.parametrize("rule", RULES)
def test_every_rule_trains_and_is_not_the_plain_one(
    make: Any, finished: Any, tmp_path: Path, rule: str
) -> None:
    one = run(make("federation.rounds=1", *RULES[rule]), out=tmp_path / "one")
    assert one.summary["training_loss"] > 0
    events = (one.directory / "events.jsonl").read_text(encoding="utf-8")
    assert "device_lost" not in events
    got, plain = weights(one), weights(finished)
    assert {name: value.shape for name, value in got.items()} == {
        name: value.shape for name, value in plain.items()
    }
    assert all(bool(value.isfinite().all()) for value in got.values())
    b_factors = [value for name, value in got.items() if "lora_B" in name]
    assert all(bool(value.any()) for value in b_factors)
    settings = json.loads((one.directory / "adapter" / "adapter_config.json").read_bytes())
    assert (settings["r"], settings["lora_alpha"]) == (2, 16)


def test_equal_ranks_are_the_plain_path_to_the_bit(
    make: Any, finished: Any, traces: Traces, tmp_path: Path
) -> None:
    made = run(make("adapter.ranks=[2, 2]"), out=tmp_path / "run")
    expected = traces(finished.directory)
    for what, found in traces(made.directory).items():
        assert found == expected[what], what


def test_one_device_at_one_edge_has_its_product_kept(make: Any, tmp_path: Path) -> None:
    """The mean of one product is that product: after a round the same model comes out."""
    lone = ("federation.devices=1", "federation.edges=1", "federation.rounds=1")
    once = ("federation.edge_rounds=1", *lone)
    plain = weights(run(make(*once), out=tmp_path / "plain"))
    product = weights(run(make("aggregate.factors=product", *once), out=tmp_path / "product"))
    for name, value in plain.items():
        if "lora_A" in name:
            partner = name.replace("lora_A", "lora_B")
            whole = plain[partner] @ value
            slack = 1e-5 * float(whole.abs().max())
            torch.testing.assert_close(product[partner] @ product[name], whole, rtol=0, atol=slack)
        elif "lora_B" not in name:
            assert torch.equal(product[name], value)


def test_a_small_rank_saves_bytes_to_and_from_its_device(make: Any, tmp_path: Path) -> None:
    small, plain = (
        run(make("federation.rounds=1", *words), out=tmp_path / name).summary["bytes"]
        for name, words in (("small", ("adapter.ranks=[2, 1, 1]",)), ("plain", ()))
    )
    for hop in ("device_to_edge", "edge_to_device"):
        assert small[hop] < plain[hop]
    for hop in ("edge_to_cloud", "cloud_to_edge"):
        assert small[hop] == plain[hop]
