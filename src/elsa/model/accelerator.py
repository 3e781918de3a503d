"""What this machine computes on: its processor, or a GPU."""

from typing import Literal

import torch

from elsa.errors import ConfigError

Accelerator = Literal["auto", "cpu", "cuda", "mps"]
CPU = torch.device("cpu")


def present() -> list[str]:
    """What this machine has that this build of PyTorch can compute on, the best first."""
    found = []
    if torch.cuda.is_available():
        found.append("cuda")
    if torch.backends.mps.is_available():
        found.append("mps")
    return [*found, "cpu"]


def chosen(accelerator: Accelerator) -> torch.device:
    """What to compute on; "auto" takes the best there is.

    Raises:
        ConfigError: it is not there.
    """
    there = present()
    if accelerator == "auto":
        return torch.device(there[0])
    if accelerator not in there:
        hint = ""
        if accelerator == "cuda" and torch.version.cuda is None:
            hint = f"; PyTorch {torch.__version__} is a build without CUDA"
        raise ConfigError(
            f"run.accelerator = '{accelerator}': not on this machine, which has "
            f"{', '.join(there)}{hint}; allowed: 'auto' or one of these"
        )
    return torch.device(accelerator)


def fast_dtype(device: torch.device = CPU) -> torch.dtype:
    """bfloat16 where the hardware multiplies it, else float32."""
    native = {"cpu": _cpu_has_it, "cuda": _cuda_has_it, "mps": _mps_has_it}[device.type]
    return torch.bfloat16 if native() else torch.float32


def _cpu_has_it() -> bool:
    return bool(torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported())


def _cuda_has_it() -> bool:
    return torch.cuda.is_bf16_supported(including_emulation=False)


def _mps_has_it() -> bool:
    return bool(torch.backends.mps.is_macos_or_newer(14, 0))


def described(device: torch.device) -> str:
    """For people and records: which one it is."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else device.type


def wait(device: torch.device) -> None:
    """Until it has done what it was asked; a processor has, when it answers."""
    if device.type != "cpu":
        torch.accelerator.synchronize()
