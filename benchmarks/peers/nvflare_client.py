"""The client script of the NVFlare simulation; each client is a process of its own."""

import argparse
from pathlib import Path

import nvflare.client as flare
import torch
from learning import learner_of
from nvflare.apis.fl_constant import FLMetaKey


def main() -> None:
    """Train whenever the server asks."""
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path)
    parser.add_argument("precision")
    options = parser.parse_args()
    flare.init()
    device = int(flare.get_site_name().removeprefix("site-")) - 1
    learner = learner_of(options.folder, options.precision)
    while flare.is_running():
        model = flare.receive()
        if model is None:
            break
        given = {name: torch.from_numpy(value) for name, value in model.params.items()}
        adapters, rows, loss = learner.train(given, device, model.current_round)
        flare.send(
            flare.FLModel(
                params={name: value.numpy() for name, value in adapters.items()},
                metrics={"loss": loss},
                meta={FLMetaKey.NUM_STEPS_CURRENT_ROUND: rows},
            )
        )


if __name__ == "__main__":
    main()
