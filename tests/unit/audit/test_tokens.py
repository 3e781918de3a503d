"""Each attack reads undefended states; each defence stops those that it should, and no other."""

from collections.abc import Callable

import pytest
import torch

from elsa.audit.defence import NONE, Defence, Turn
from elsa.audit.inverter import Training, learn
from elsa.audit.knowledge import Texts
from elsa.audit.tokens import Dictionary, adaptive, known
from elsa.core.noise import Noise

Make = Callable[..., Texts]
EVERYTHING = Defence(turn=Turn(24, 1.0, "mean"))
SOME = Defence(turn=Turn(8, 1.0, "mean"))


@pytest.fixture(scope="module")
def public(texts: Make) -> Texts:
    return texts(300, 0)


@pytest.fixture(scope="module")
def dictionary(public: Texts) -> Dictionary:
    return Dictionary.of(public)


@pytest.fixture(scope="module")
def secret(texts: Make) -> Texts:
    return texts(60, 1)


def right(guess: torch.Tensor, texts: Texts) -> float:
    return float((guess == texts.tokens).float().mean())


def seen(texts: Texts, defence: Defence, seed: int = 5) -> Texts:
    return Texts(defence.imitate(texts.states, texts.lengths, seed), texts.lengths, texts.tokens)


def test_every_reader_reads_undefended_states(dictionary: Dictionary, secret: Texts) -> None:
    for reader in (
        dictionary.reader(),
        dictionary.reader(width=0.1),
        adaptive(dictionary, secret, NONE, 0),
        known(dictionary, secret.take(range(20)), secret.take(range(20))),
    ):
        assert right(reader(secret.states), secret) > 0.97


def test_a_rotation_of_some_directions_stops_matching_but_not_who_looks_outside(
    dictionary: Dictionary, secret: Texts, texts: Make
) -> None:
    turned = seen(secret, SOME)
    plain = right(dictionary.reader()(turned.states), secret)
    reader = adaptive(dictionary, texts(60, 2), SOME, 0)
    assert plain < 0.5
    assert right(reader(turned.states), secret) > max(0.6, plain + 0.3)


def test_a_rotation_of_everything_stops_all_but_known_texts(
    dictionary: Dictionary, secret: Texts, texts: Make
) -> None:
    turned = seen(secret, EVERYTHING)
    assert right(dictionary.reader()(turned.states), secret) < 0.2
    assert right(adaptive(dictionary, texts(60, 2), EVERYTHING, 0)(turned.states), secret) < 0.2
    reader = known(dictionary, secret.take(range(20)), turned.take(range(20)))
    rest = range(20, 60)
    assert right(reader(turned.take(rest).states), secret.take(rest)) > 0.9


def test_against_noise_the_posterior_beats_the_nearest(
    dictionary: Dictionary, secret: Texts, texts: Make
) -> None:
    noise = Defence(noise=Noise(1e9, 3e-9))
    noisy = seen(secret, noise)
    reader = adaptive(dictionary, texts(200, 2), noise, 0)
    adapted, plain = (
        right(reader(noisy.states), secret),
        right(dictionary.reader()(noisy.states), secret),
    )
    assert plain < adapted < 0.97


def test_an_imitated_secret_differs_by_its_seed_alone(secret: Texts) -> None:
    one, again, other = (seen(secret, SOME, seed).states for seed in (3, 3, 4))
    assert torch.equal(one, again)
    assert not torch.allclose(one, other, atol=0.1)


SHORT = Training(steps=150, batch=24, width=32, rivals=30)


def test_a_learned_inverter_reads_undefended_states_and_learns_the_same_again(
    points: torch.Tensor, public: Texts, secret: Texts
) -> None:
    inverter = learn(points, public, NONE, SHORT, 0)
    guess = inverter.read(secret)
    assert right(guess, secret) > 0.95
    assert torch.equal(guess, learn(points, public, NONE, SHORT, 0).read(secret))


def test_an_adaptive_inverter_reads_what_a_blind_one_cannot(
    points: torch.Tensor, public: Texts, secret: Texts
) -> None:
    turned = seen(secret, SOME)
    blind, knowing = (
        right(learn(points, public, defence, SHORT, 0).read(turned), secret)
        for defence in (NONE, SOME)
    )
    assert knowing > blind + 0.1
