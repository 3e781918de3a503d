"""What the probes see: the whole model before its head, whatever the head."""

from typing import Any

import pytest
import torch

from elsa.core.fingerprint import fingerprint, shared_basis, unpacked
from elsa.core.moves import unpacked_moves
from elsa.core.split import Split
from elsa.engine.parts import ModelParts
from elsa.engine.probes import open_probing
from elsa.engine.public import probe_text
from elsa.errors import ConfigError
from elsa.model.adapters import block_of
from elsa.model.segments import build_whole, initial_adapters

Make = Any


@pytest.fixture(scope="module")
def config(make: Make) -> Any:
    return make("cluster.probe_count=16", "cluster.dimensions=4", "cluster.strategy=behaviour")


def moved(model: ModelParts, *, heads: bool) -> dict[str, torch.Tensor]:
    """Adapters drawn by the seed, with some noise on those of blocks or on the heads."""
    draw = torch.Generator().manual_seed(0)
    start = initial_adapters(model.checkpoint, model.task, model.lora, 0)
    return {
        name: value + 0.3 * torch.randn(value.shape, generator=draw)
        if (block_of(name) is None) == heads
        else value
        for name, value in start.items()
    }


def test_a_gaussian_lies_on_the_axes_of_the_base_model(make: Make, sources: Any) -> None:
    words = ("cluster.probe_count=16", "cluster.dimensions=4", "cluster.fingerprint=gaussian")
    probing = open_probing(make(*words), {"": sources.model}, sources.tokenizer)
    split = Split.of(sources.model.checkpoint.blocks, 1, 1)
    start = initial_adapters(sources.model.checkpoint, sources.model.task, sources.model.lora, 3)
    base = probing.look("", split, start).states  # B is zero, so this is the base model
    seen = unpacked(probing.write(base, base), 4)
    torch.testing.assert_close(seen.mean, torch.zeros(4).double(), atol=1e-3, rtol=0)
    coordinates = shared_basis(base, 4).project(base)
    expected = fingerprint(coordinates).factor
    torch.testing.assert_close(seen.factor, expected, atol=2e-3, rtol=2e-3)


def test_a_move_says_which_way_adapters_went(config: Any, sources: Any) -> None:
    probing = open_probing(config, {"": sources.model}, sources.tokenizer)
    split = Split.of(sources.model.checkpoint.blocks, 1, 1)
    start = initial_adapters(sources.model.checkpoint, sources.model.task, sources.model.lora, 0)
    before, after = (
        probing.look("", split, it).states for it in (start, moved(sources.model, heads=False))
    )
    there, nowhere, back = unpacked_moves(
        [probing.write(before, after), probing.write(before, before), probing.write(after, before)],
        4,
    )
    assert float(there.norm()) == pytest.approx(1.0, abs=1e-3)
    assert not nowhere.any()
    torch.testing.assert_close(back, -there)


def test_a_head_judges_states_as_the_model_whose_head_it_is(config: Any, sources: Any) -> None:
    model = sources.model
    probing = open_probing(config, {"": model}, sources.tokenizer)
    split = Split.of(model.checkpoint.blocks, 1, 1)
    start = initial_adapters(model.checkpoint, model.task, model.lora, 0)
    heads, blocks = (moved(model, heads=heads) for heads in (True, False))
    before, headed = (probing.look("", split, it) for it in (start, heads))
    torch.testing.assert_close(headed.states, before.states, rtol=0, atol=0)
    after = probing.look("", split, blocks)
    assert float((after.states - before.states).abs().max()) > 0.1
    both = {name: (heads if block_of(name) is None else blocks)[name] for name in start}
    scores = probing.judge("", split, both, after)
    assert scores.shape == (16, 6)
    assert float((scores - probing.judge("", split, blocks, after)).abs().max()) > 0.1
    whole = build_whole(model.checkpoint, model.task, model.lora)
    whole.bind(both)
    texts = probe_text(config).texts()[:16]
    with torch.no_grad():
        for text, expected in zip(texts, scores, strict=True):
            (one,) = sources.tokenizer.encode([text], max_tokens=config.model.max_tokens)
            ids = torch.as_tensor(one.input_ids)[None]
            torch.testing.assert_close(whole(ids)[0], expected, atol=1e-5, rtol=1e-5)


def test_every_cut_sees_the_same(config: Any, sources: Any) -> None:
    probing = open_probing(config, {"": sources.model}, sources.tokenizer)
    blocks, adapters = sources.model.checkpoint.blocks, moved(sources.model, heads=False)
    splits = [Split.of(blocks, *cuts) for cuts in ((1, 1), (2, 1))]
    one, other = (probing.look("", split, adapters) for split in splits)
    torch.testing.assert_close(one.states, other.states, atol=1e-5, rtol=1e-5)
    there, here = (
        probing.judge("", split, adapters, seen)
        for split, seen in zip(splits, (one, other), strict=True)
    )
    torch.testing.assert_close(there, here, atol=1e-5, rtol=1e-5)


def test_a_file_with_too_few_texts_is_refused(make: Make, sources: Any, tmp_path: Any) -> None:
    path = tmp_path / "probes.csv"
    path.write_text("words\nwho was that\n", encoding="utf-8")
    settings = ("cluster.probe_count=16", "cluster.dimensions=4", f"cluster.probes={path}")
    config = make(*settings, "cluster.probes_text=words")
    with pytest.raises(ConfigError, match=r"has 1 texts, fewer than cluster.probe_count = 16"):
        open_probing(config, {"": sources.model}, sources.tokenizer)
