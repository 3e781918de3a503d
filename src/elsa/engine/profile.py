"""This machine as a device: its speed by a short measurement, and the memory that is free."""

import statistics
from time import perf_counter

import psutil

from elsa.config.schema import Config
from elsa.core.cost import passes_of, step_work
from elsa.core.split import Split
from elsa.engine.parts import ModelParts
from elsa.model.accelerator import wait
from elsa.model.sizes import ROWS, device_step

WIDTH = 64
"""S of the measured steps, as far as the model takes so many tokens."""
STEPS = 5
SPARED = 0.9
"""Part of the free memory that a device may take."""


def measured_gflops(model: ModelParts) -> float:
    """10^9 operations a second of a device's step at p = 1, q = 0; the median of a few steps."""
    step, _ = device_step(model.checkpoint, model.task, model.lora, (1, 0))
    width = min(WIDTH, model.checkpoint.max_tokens)
    step(width)  # the first one also compiles and warms up
    wait(model.checkpoint.device)
    seconds = []
    for _ in range(STEPS):
        began = perf_counter()
        step(width)
        wait(model.checkpoint.device)
        seconds.append(perf_counter() - began)
    shape = model.shape()
    lengths = [width] * (ROWS - 1) + [width - 1]
    work = step_work(shape, Split.of(shape.blocks, 1, 0), passes_of(shape, [lengths]))
    return work.device / statistics.median(seconds) / 1e9


def as_here(config: Config, model: ModelParts) -> Config:
    """The config with devices like this machine: its speed, its free memory, no spread."""
    free = psutil.virtual_memory().available * SPARED / 1e6
    network = config.network.model_copy(
        update={
            "device_gflops": measured_gflops(model),
            "device_memory_mb": (free,),
            "spread": 0.0,
        }
    )
    return config.model_copy(update={"network": network})
