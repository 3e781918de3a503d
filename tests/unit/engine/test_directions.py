"""Public directions: the model's own, the same for both ends, of hidden states alone."""

from pathlib import Path

import pytest
import torch

from elsa.config.load import load_config
from elsa.engine.build import open_sources
from elsa.engine.directions import public_directions
from elsa.errors import ConfigError


def test_directions_are_orthonormal_and_differ_by_cut(bert: Path, questions: Path) -> None:
    public = [f"wire.public={questions}", "wire.public_text=question"]
    settings = [f"model.path={bert}", f"data.path={questions}", "data.text=question"]
    config = load_config(None, [*settings, *public, "data.label=kind", "model.max_tokens=32"])
    sources = open_sources(config)
    one, other = (public_directions(config, sources.model, sources.tokenizer) for _ in range(2))
    for hop in ("h1", "h2"):
        found = one.first(hop, 4)
        torch.testing.assert_close(found.T @ found, torch.eye(4), atol=1e-5, rtol=0)
        assert torch.equal(found, other.first(hop, 4))
        assert torch.equal(found[:, :2], one.first(hop, 2))
    assert one.bands("h1", 8) is one.bands("h1", 8)  # a thousand devices hold them once
    assert one.bands("h1", 8).name == other.bands("h1", 8).name
    assert not torch.equal(one.first("h1", 4), one.first("h2", 4))
    with pytest.raises(ConfigError, match="g2 has no public directions"):
        one.first("g2", 4)
    with pytest.raises(ConfigError, match="0 public directions; allowed: 1 to"):
        one.first("h1", 0)
