"""The loss of a language model in chunks, against the plain one."""

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from elsa.core.score import IGNORED, tally
from elsa.model.heads import chunked_loss, chunked_tally, next_token_loss, predicting

HIDDEN, WORDS = 6, 37


def case(seed: int, lengths: list[int], share: float) -> tuple[Tensor, Tensor, Tensor]:
    """Hidden states, labels of which about a share counts, and the output matrix."""
    generator = torch.Generator().manual_seed(seed)
    shape = (len(lengths), max(lengths))
    hidden = torch.randn(*shape, HIDDEN, generator=generator)
    labels = torch.randint(WORDS, shape, generator=generator)
    labels[torch.rand(shape, generator=generator) > share] = IGNORED
    for row, length in enumerate(lengths):
        labels[row, length:] = IGNORED
    return hidden, labels, 3 * torch.randn(WORDS, HIDDEN, generator=generator)


def capped(matrix: Tensor, states: Tensor) -> Tensor:
    """As Gemma caps its logits: not linear."""
    return 5 * torch.tanh(states @ matrix.T / 5)


@settings(deadline=None, max_examples=60)
@given(
    st.integers(0, 2**31),
    st.lists(st.integers(1, 7), min_size=1, max_size=4),
    st.sampled_from([0.0, 0.3, 1.0]),
    st.integers(1, 30),
    st.booleans(),
)
def test_loss_gradient_and_tally_are_those_of_all_logits(
    seed: int, lengths: list[int], share: float, rows: int, cap: bool
) -> None:
    hidden, labels, matrix = case(seed, lengths, share)

    def scores(states: Tensor) -> Tensor:
        return capped(matrix, states) if cap else states @ matrix.T

    plain = hidden.clone().requires_grad_()
    expected = next_token_loss(scores(plain), labels)
    (7 * expected).backward()
    got_from = hidden.clone().requires_grad_()
    states, targets, texts = predicting(got_from, labels)
    got = chunked_loss(states, targets, scores, rows)
    (7 * got).backward()
    torch.testing.assert_close(got, expected, rtol=2e-6, atol=1e-6)
    # Relative to the largest: sums of 37 words in another order.
    largest = max(float(plain.grad.abs().max()), 1.0)
    torch.testing.assert_close(got_from.grad, plain.grad, rtol=0, atol=2e-6 * largest)

    counted, known = (
        chunked_tally(states.detach(), targets, texts, scores, rows),
        tally(scores(hidden), labels),
    )
    assert (counted.items, counted.correct) == (known.items, known.correct)
    assert counted.loss == pytest.approx(known.loss, rel=1e-5, abs=1e-5)


class Largest(TorchDispatchMode):
    """Bytes of the largest tensor that any operation gave."""

    bytes = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        for leaf in tree_leaves(out):
            if isinstance(leaf, Tensor):
                self.bytes = max(self.bytes, leaf.nbytes)
        return out


def test_no_tensor_is_larger_than_a_chunk_of_logits() -> None:
    hidden, labels, matrix = case(0, [50, 50], 1.0)
    hidden.requires_grad_()

    def scores(states: Tensor) -> Tensor:
        return states @ matrix.T

    with Largest() as chunked:
        chunked_loss(*predicting(hidden, labels)[:2], scores, 16).backward()
    with Largest() as plain:
        next_token_loss(scores(hidden), labels).backward()
    assert plain.bytes == 2 * 50 * WORDS * 4
    # The states themselves, 100 tokens of 6, are as large as 16 of 37.
    assert chunked.bytes == max(16 * WORDS * 4, 2 * 50 * HIDDEN * 4)


def test_without_gradients_none_are_taken() -> None:
    hidden, labels, matrix = case(1, [5], 1.0)
    states, targets, _ = predicting(hidden, labels)
    loss = chunked_loss(states, targets, lambda it: it @ matrix.T, 2)
    assert not loss.requires_grad
    assert loss == pytest.approx(float(next_token_loss(hidden @ matrix.T, labels)), rel=1e-6)
