"""Made-up states whose tokens are known, and the transcript of a tiny federation."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from elsa.audit.knowledge import Texts

VOCABULARY, HIDDEN = 60, 24


@pytest.fixture(scope="session")
def points() -> torch.Tensor:
    """The states of the tokens of a made-up vocabulary [V, D]."""
    drawn = torch.randn(VOCABULARY, HIDDEN, generator=torch.Generator().manual_seed(99))
    return drawn * torch.linspace(3, 0.5, HIDDEN) + 1


@pytest.fixture(scope="session")
def texts(points: torch.Tensor) -> Callable[..., Texts]:
    """Makes texts of random tokens; a state is its token's point, scattered as by its context."""

    def make_up(count: int, seed: int, scatter: float = 0.15) -> Texts:
        generator = torch.Generator().manual_seed(seed)
        lengths = tuple(np.random.default_rng(seed).integers(3, 9, count).tolist())
        tokens = torch.randint(0, VOCABULARY, (sum(lengths),), generator=generator)
        noise = torch.randn(len(tokens), HIDDEN, generator=generator)
        return Texts(points[tokens] + scatter * noise, lengths, tokens)

    return make_up


@pytest.fixture(scope="session")
def recorded(make: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of the tiny federation, undefended, with a transcript of both its rounds."""
    from elsa.engine.run import run

    out = tmp_path_factory.mktemp("audited") / "run"
    run(make("audit.record_rounds=2", "partition.kind=iid"), out=out)
    return out
