"""Each attack reads undefended states; each defence stops those that it should, and no other."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from elsa.audit.defence import NONE, Defence, Turn
from elsa.audit.geometry import by_geometry
from elsa.audit.inverter import Training, learn
from elsa.audit.knowledge import Texts
from elsa.audit.language import Language, with_language
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


ENDS = torch.tensor([0, 1])


def framed(texts: Texts, points: Tensor) -> Texts:
    """The same texts with the first token 0 and the last token 1, in words that are unequal."""
    tokens = (texts.tokens.square() % 50) + 2
    stops = torch.tensor(texts.lengths).cumsum(0)
    tokens[stops - torch.tensor(texts.lengths)] = 0
    tokens[stops - 1] = 1
    scatter = texts.states - points[texts.tokens]
    places = torch.cat([torch.arange(size) for size in texts.lengths])
    states = points[tokens] + scatter + 0.3 * points[places]
    return Texts(states, texts.lengths, tokens)


def test_the_shape_of_rotated_states_gives_the_rotation_away(texts: Make, points: Tensor) -> None:
    public, mine = framed(texts(300, 0), points), framed(texts(200, 1), points)
    dictionary = Dictionary.of(public)
    for defence in (NONE, SOME, EVERYTHING):
        turned = seen(mine, defence)
        assert right(by_geometry(dictionary, public, turned, ENDS), mine) > 0.9
    assert right(dictionary.reader()(turned.states), mine) < 0.2
    assert right(by_geometry(dictionary, public, turned, ENDS[:0]), mine) < 0.2  # nothing to hold


def test_a_language_reads_what_states_alone_do_not_tell(texts: Make, points: Tensor) -> None:
    """In a language where each word has few that follow it, neighbours say which word it was."""
    generator = torch.Generator().manual_seed(3)
    follows = torch.randint(0, len(points), (len(points), 2), generator=generator)

    def spoken(count: int, seed: int) -> Texts:
        plain = texts(count, seed)
        choices = torch.randint(0, 2, (len(plain.tokens),), generator=generator)
        tokens, place = plain.tokens.clone(), 0
        for length in plain.lengths:
            for at in range(place + 1, place + length):
                tokens[at] = follows[tokens[at - 1], choices[at]]
            place += length
        return Texts(plain.states - points[plain.tokens] + points[tokens], plain.lengths, tokens)

    public, heard, mine = spoken(300, 0), spoken(100, 2), spoken(100, 1)
    dictionary, language = Dictionary.of(public), Language.of(public, len(points))
    assert right(with_language(dictionary, language, heard, NONE, 0)(mine), mine) > 0.97
    noise = Defence(noise=Noise(1e9, 3e-9))
    noisy = seen(mine, noise)
    without = right(adaptive(dictionary, heard, noise, 0)(noisy.states), mine)
    assert right(with_language(dictionary, language, heard, noise, 0)(noisy), mine) > without + 0.1


def test_what_follows_a_word_is_a_distribution_and_frequency_where_nothing_was_seen(
    texts: Make,
) -> None:
    public = texts(50, 0)
    language = Language.of(public, 70)
    every = torch.arange(70)
    torch.testing.assert_close(language.after(every, every).sum(1), torch.ones(70).double())
    torch.testing.assert_close(language.after(every[69:], every)[0], language.single)
    first, second = public.tokens[:1], public.tokens[1:2]
    assert language.after(first, second) > language.single[second]
