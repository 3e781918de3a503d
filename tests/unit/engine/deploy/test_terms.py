import re
from typing import Any

import pytest
import torch

from elsa.engine.deploy.terms import check_deployable, check_terms, frame_limit, terms_of
from elsa.engine.parts import load_model
from elsa.errors import ConfigError

DIFFERENT = {
    "adapter.rank=3": "adapter.rank",
    "adapter.alpha=9.0": "adapter.alpha",
    'adapter.targets=["query"]': "adapter.targets",
    "model.precision=bfloat16": "model.precision",
    "model.pooling=cls": "model.pooling",
    "model.max_tokens=16": "model.max_tokens",
    "split.freeze=bottom": "split.freeze",
    "split.layout=two-part": "split.layout",
    "train.learning_rate=0.5": "train.learning_rate",
    "train.weight_decay=0.5": "train.weight_decay",
    "train.optimizer_state=reset": "train.optimizer_state",
    "aggregate.mu=0.5": "aggregate.mu",
    "wire.g1=bfloat16": "wire.g1",
    "wire.adapters=bfloat16": "wire.adapters",
    "noise.update_ratio=1.0": "noise.update_ratio",
}


def terms(make: Any, sources: Any, *overrides: str, labels: tuple[str, ...] = ("a", "b")) -> Any:
    config = make(*overrides)
    model = load_model(config, len(labels), sources.model.checkpoint.directory)
    return terms_of(config, model, labels)


@pytest.mark.parametrize("override", DIFFERENT)
def test_what_must_be_alike_is_named_where_it_differs(
    make: Any, sources: Any, override: str
) -> None:
    here, there = terms(make, sources), terms(make, sources, override)
    name = DIFFERENT[override]
    assert {key for key in here if here[key] != there[key]} == {name}
    with pytest.raises(ConfigError, match=re.escape(f"{name} is {there[name]} at device-0 and")):
        check_terms(here, there, "edge-0", "device-0")


def test_classes_in_another_order_are_others(make: Any, sources: Any) -> None:
    here = terms(make, sources)
    assert here["data.labels"] != terms(make, sources, labels=("b", "a"))["data.labels"]
    check_terms(here, terms(make, sources), "edge-0", "device-0")


def test_what_may_differ_is_no_term(make: Any, sources: Any) -> None:
    others = ("run.seed=7", "run.threads=3", "data.holdout_fraction=0.3", "ssop.rank=4")
    check_terms(terms(make, sources), terms(make, sources, *others), "edge-0", "device-0")


def test_term_that_one_end_lacks_is_told(make: Any, sources: Any) -> None:
    here = terms(make, sources)
    with pytest.raises(ConfigError, match=r"model.new is unset at device-0 and 1 at edge-0"):
        check_terms(here | {"model.new": "1"}, here, "edge-0", "device-0")


def test_shared_trunk_and_unnamed_classes_are_for_simulation(make: Any) -> None:
    with pytest.raises(ConfigError, match=r"federation\.trunk = 'shared'"):
        check_deployable(make("federation.trunk=shared", "data.labels=['a', 'b']"))
    with pytest.raises(ConfigError, match=r"attack\.kind = 'random'"):
        check_deployable(
            make("attack.kind=random", "attack.fraction=0.4", "data.labels=['a', 'b']")
        )
    with pytest.raises(ConfigError, match=r"split\.mode = 'fitted'.*'fixed'"):
        check_deployable(make("split.mode=fitted", "data.labels=['a', 'b']"))
    with pytest.raises(ConfigError, match=r"federation\.pooled = true"):
        pooled = ("federation.pooled=true", "split.layout=whole", "federation.edges=1")
        check_deployable(make(*pooled, "data.labels=['a', 'b']"))
    with pytest.raises(ConfigError, match=r"data\.labels is empty"):
        check_deployable(make())
    check_deployable(make("data.labels=['a', 'b']"))


def test_largest_batch_and_adapters_fit_the_limit(make: Any) -> None:
    config = make("evaluate.batch_size=7")
    assert frame_limit(config, 32, 0) > 7 * 32 * 32 * torch.float32.itemsize
    assert frame_limit(config, 4096, 0, 4096) > 2 * 4096**2 * torch.float32.itemsize
    assert frame_limit(config, 32, 10**7) > 10**7
