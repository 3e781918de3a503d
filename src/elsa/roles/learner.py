"""A party's trainable copy of some adapters, with its optimizer."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from elsa.model.accelerator import CPU

_MOMENTS = ("exp_avg", "exp_avg_sq", "step")


@dataclass(frozen=True)
class OptimizerSettings:
    """AdamW (Loshchilov and Hutter, arXiv 1711.05101), alike on devices and edges.

    Attributes:
        learning_rate: step size, constant.
        weight_decay: decoupled decay.
        keep_moments: whether a party goes on with its own moments when a new round replaces the
            adapters they belong to; otherwise they start from zero.
        proximal: mu of FedProx (Li et al. 2020, arXiv 1812.06127): the loss gains
            mu / 2 |w - w0|^2, where w0 are the adapters that the edge round began with.
        device: where the parameters lie; what goes in and out lies with the processor.
    """

    learning_rate: float
    weight_decay: float
    keep_moments: bool
    proximal: float = 0.0
    device: torch.device = CPU


class Learner:
    """Parameters under global adapter names, and AdamW over them."""

    def __init__(
        self,
        adapters: Mapping[str, Tensor],
        settings: OptimizerSettings,
        moments: Mapping[str, Tensor] | None = None,
    ) -> None:
        """Copy `adapters`, if any; go on from `moments`, as `moments()` gave, if names fit."""
        self.parameters = {
            name: nn.Parameter(value.detach().to(settings.device, copy=True))
            for name, value in adapters.items()
        }
        self._proximal = settings.proximal
        self._start = (
            {name: value.detach().to(settings.device) for name, value in adapters.items()}
            if settings.proximal
            else {}
        )
        # Without adapters there is one group without parameters: an empty list would be refused.
        self._optimizer = torch.optim.AdamW(
            [{"params": list(self.parameters.values())}],
            lr=settings.learning_rate,
            weight_decay=settings.weight_decay,
            fused=True,
        )
        for name, parameter in self.parameters.items():
            if moments and f"step/{name}" in moments:
                self._optimizer.state[parameter] = {
                    kind: moments[f"{kind}/{name}"].to(settings.device, copy=True)
                    for kind in _MOMENTS
                }

    def step(self) -> None:
        """Take one optimizer step on the gradients gathered, and clear them.

        The proximal term's gradient, mu (w - w0), is added here, once a step however many
        gradients were gathered.
        """
        if self._proximal:
            for name, parameter in self.parameters.items():
                if parameter.grad is not None:
                    away = parameter.detach() - self._start[name]
                    parameter.grad = parameter.grad + self._proximal * away
        self._optimizer.step()
        self._optimizer.zero_grad(set_to_none=True)

    def gather(self, gradients: Mapping[str, Tensor | None], weight: float = 1.0) -> None:
        """Add `weight` times these gradients to those already gathered."""
        for name, gradient in gradients.items():
            if gradient is None:
                continue
            parameter = self.parameters[name]
            if parameter.grad is None:
                parameter.grad = gradient if weight == 1.0 else gradient * weight
            else:
                parameter.grad = parameter.grad + gradient * weight

    def tensors(self, names: Iterable[str] | None = None) -> dict[str, Tensor]:
        """The adapters as they are now, detached; copied only from a GPU."""
        chosen = self.parameters if names is None else names
        return {name: self.parameters[name].detach().cpu() for name in chosen}

    def moments(self) -> dict[str, Tensor]:
        """AdamW's state, under "exp_avg/<name>", "exp_avg_sq/<name>" and "step/<name>"."""
        return {
            f"{kind}/{name}": state[kind].cpu()
            for name, parameter in self.parameters.items()
            if (state := self._optimizer.state.get(parameter))
            for kind in _MOMENTS
        }
