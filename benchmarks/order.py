"""Would it hide the order of tokens to send them in another? What a linear map reads from states.

States of the public model at the first cut, of TREC questions. The attacker fits a ridge regression
from states to places on public questions, and gives each text's tokens the places that fit best
together (a linear assignment); the share of tokens put back in place, by depth of the cut and by
noise on the states.

    python benchmarks/order.py --out docs/results/privacy/order.json
"""

import argparse
from itertools import accumulate, pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch
from measured import machine, print_table, write_json
from scipy.optimize import linear_sum_assignment
from torch import Tensor
from torch.nn import functional

from elsa.audit.knowledge import Texts
from elsa.cli.audit import knowledge_of
from elsa.config.load import load_config
from elsa.engine.build import open_sources
from elsa.engine.machine import prepare
from elsa.engine.parts import encode
from elsa.model.segments import initial_adapters

NORM = 12.0
"""Clipping norm that noise is a part of: the default of noise.clip."""


def places(texts: Texts) -> Tensor:
    """Where each token stands in its text."""
    return torch.cat([torch.arange(size) for size in texts.lengths])


def put_back(public: Texts, secret: Texts, ratio: float, seed: int) -> float:
    """Share of tokens whose place is found."""
    drawn = torch.randn(secret.states.shape, generator=torch.Generator().manual_seed(seed))
    mean = public.states.mean(0)
    known, seen = (public.states - mean).double(), (secret.states + ratio * NORM * drawn - mean)
    target = functional.one_hot(places(public), 128).double()
    ridge = len(known) * (ratio * NORM) ** 2 + 1e-2 * float(known.square().mean())
    gram = known.T @ known + ridge * torch.eye(known.shape[1], dtype=torch.float64)
    map_ = torch.linalg.solve(gram, known.T @ (target - target.mean(0)))
    scores = seen.double() @ map_ + target.mean(0)
    right = 0
    for start, stop in pairwise(accumulate(secret.lengths, initial=0)):
        _, found = linear_sum_assignment(-scores[start:stop, : stop - start].numpy())
        right += int((found == np.arange(stop - start)).sum())
    return right / len(scores)


def rows(texts: int, seed: int) -> list[dict[str, Any]]:
    """A row for each depth and ratio."""
    found = []
    for bottom in (1, 2, 3):
        settings = [f"split.bottom={bottom}", "model.precision=float32", f"run.seed={seed}"]
        config = load_config(None, settings)
        sources = open_sources(config)
        knowledge, _ = knowledge_of(config, sources)
        model = sources.model
        adapters = initial_adapters(model.checkpoint, model.task, model.lora, seed)
        public = knowledge.see(knowledge.public.take(range(10 * texts)), adapters)
        test = encode(sources.text.test, sources.tokenizer, config)
        secret = knowledge.see(test.take(range(texts)), adapters)
        for ratio in (0.0, 0.1, 0.3):
            share = put_back(public, secret, ratio, seed)
            found.append({"p": bottom, "noise": ratio, "put back in place": share})
    return found


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--texts", type=int, default=150)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    prepare(1)
    found = rows(options.texts, options.seed)
    print_table(found)
    facts = {"machine": machine(), "texts": options.texts, "seed": options.seed}
    write_json(options.out, facts | {"rows": found})


if __name__ == "__main__":
    main()
