"""Embeddings in few bits: what they stand for, and that everything goes through them."""

from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from elsa.core.split import Split
from elsa.errors import MissingTensorError
from elsa.model import tables
from elsa.model.checkpoint import open_checkpoint
from elsa.model.segments import (
    build_bottom,
    build_top,
    build_trunk,
    build_whole,
    initial_adapters,
    join,
)
from elsa.model.tables import Store, Table, TableEmbedding, TableOutput, stored
from elsa.model.tasks import CausalLM, Classification, LoraSpec

LORA = LoraSpec(rank=2, alpha=4)
IDS = torch.arange(3, 15).view(2, 6)


def table_of(matrix: Tensor, store: Store, step: int = 3) -> Table:
    return stored(tuple(matrix.shape), lambda: iter(matrix.split(step)), store)


@settings(deadline=None, max_examples=40)
@given(st.integers(0, 2**31), st.sampled_from([1e-3, 1.0, 1e3]), st.integers(1, 9))
def test_int8_is_off_by_half_a_step_of_each_row(seed: int, size: float, step: int) -> None:
    matrix = size * torch.randn(9, 5, generator=torch.Generator().manual_seed(seed))
    matrix[4] = 0
    held = table_of(matrix, "int8", step)
    assert held.scales is not None
    rows = held.rows(torch.arange(9), torch.float32)
    assert ((rows - matrix).abs() <= held.scales * 0.5001).all()
    assert torch.equal(rows[4], matrix[4])
    assert held.scales.squeeze(1).allclose(matrix.abs().amax(1) / 127, atol=1e-12)


@pytest.mark.parametrize("store", ["bfloat16", "int8"])
def test_output_and_its_gradient_are_those_of_the_rows(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tables, "BLOCK", 20)  # 4 rows of 5
    generator = torch.Generator().manual_seed(0)
    held = table_of(torch.randn(9, 5, generator=generator), store)
    rows = TableEmbedding(held, torch.float32)(torch.arange(9))
    hidden = torch.randn(2, 3, 5, generator=generator)
    mine, plain = (hidden.clone().requires_grad_() for _ in range(2))
    logits, expected = TableOutput(held, torch.float32)(mine), plain @ rows.T
    torch.testing.assert_close(logits, expected)
    slope = torch.randn(logits.shape, generator=generator)
    logits.backward(slope)
    expected.backward(slope)
    torch.testing.assert_close(mine.grad, plain.grad)


@pytest.mark.parametrize("precision", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("store", ["bfloat16", "int8"])
def test_tied_matrices_are_one_table_and_the_model_hardly_changes(
    llama_dir: Path, store: Store, precision: torch.dtype
) -> None:
    split, task = Split(1, 1, 1), CausalLM()
    exact = build_whole(open_checkpoint(llama_dir), task, LORA)
    adapters = initial_adapters(exact.checkpoint, task, LORA, 0)
    exact.bind(adapters)
    checkpoint = open_checkpoint(llama_dir, precision, store)
    parts = [make(checkpoint, split, task, LORA) for make in (build_bottom, build_trunk, build_top)]
    bottom, top = parts[0].frozen(), parts[2].frozen()
    name = "embed_tokens.weight"
    assert bottom[name].data_ptr() == top[name].data_ptr()
    assert bottom[name].dtype == (torch.int8 if store == "int8" else torch.bfloat16)
    assert checkpoint.weights.names_read.count("model.embed_tokens.weight") == 1
    assert name not in parts[1].frozen()
    whole = join(*parts)
    whole.bind(adapters)
    logits, expected = whole(IDS), exact(IDS)
    assert logits.dtype == torch.float32
    error = float((logits - expected).norm() / expected.norm())
    assert 1e-4 < error < (0.03 if precision == torch.float32 else 0.06)
    assert set(whole.frozen()) - {f"{name}.scales"} == set(exact.frozen())


def test_an_encoder_looks_its_words_up_in_a_table(bert_dir: Path) -> None:
    task = Classification(2, "mean")
    exact = build_whole(open_checkpoint(bert_dir), task, LORA)
    few = build_whole(open_checkpoint(bert_dir, None, "int8"), task, LORA)
    for model in (exact, few):
        model.bind(initial_adapters(exact.checkpoint, task, LORA, 0))
    name = "embeddings.word_embeddings.weight"
    assert few.frozen()[name].dtype == torch.int8
    error = (few(IDS) - exact(IDS)).norm() / exact(IDS).norm()
    assert 0 < float(error) < 0.05


def test_a_table_of_another_shape_is_named(llama_dir: Path) -> None:
    weights = open_checkpoint(llama_dir).weights
    with pytest.raises(MissingTensorError, match=r"embed_tokens.*\[40, 16\] where.*\[41, 16\]"):
        weights.table("embed_tokens.weight", (41, 16), "int8")
    with pytest.raises(MissingTensorError, match=r"no tensor 'else'"):
        weights.table("else", (41, 16), "int8")
