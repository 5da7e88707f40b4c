"""How a network's weights are changed: Muon for its kernels, Adam for the rest.

Muon (Jordan et al. 2024) steps along orthogonal matrices. Training takes fewer steps with it than
with Adam alone, and leaves less of a pattern in the pictures.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor

from nstlab.feedforward.network import TransformNetwork

MUON_MOMENTUM = 0.95
ADAM_BETAS = 0.9, 0.99
ADAM_RATE = 0.2  # relative to Muon's
WARMUP = 30  # steps of rising learning rates
LEAST_RATE = 0.01  # of the learning rate, at the end


def rate_factor(done: int, steps: int) -> float:
    """The factor of the learning rates: rising at first, then half a period of a cosine.

    Args:
        done: steps that were made, from 0 to `steps`.
        steps: how many are made in all.

    Returns:
        A number in (0, 1].
    """
    cosine = (1 + math.cos(math.pi * (done / steps))) / 2
    return min(1.0, (done + 1) / WARMUP) * (LEAST_RATE + (1 - LEAST_RATE) * cosine)


class Optimizers:
    """Muon and Adam for one network.

    Args:
        network: whose parameters are changed.
        rate: Muon's learning rate, before it is multiplied by the factor of a step.
    """

    def __init__(self, network: TransformNetwork, rate: float):
        parameters = dict(network.named_parameters())
        kernels = [p for name, p in parameters.items() if name.endswith("kernel")]
        remaining = [p for name, p in parameters.items() if not name.endswith("kernel")]
        muon = torch.optim.Muon(
            kernels, rate, momentum=MUON_MOMENTUM, weight_decay=0, adjust_lr_fn="original"
        )
        adam = torch.optim.Adam(remaining, ADAM_RATE * rate, ADAM_BETAS)
        self.rates = {muon: rate, adam: ADAM_RATE * rate}

    def zero_grad(self) -> None:
        """Forget the gradients of the last step."""
        for optimizer in self.rates:
            optimizer.zero_grad()

    def step(self, factor: float) -> None:
        """Change the weights, with learning rates multiplied by `factor`."""
        for optimizer, rate in self.rates.items():
            optimizer.param_groups[0]["lr"] = rate * factor
            optimizer.step()

    def state(self) -> dict[str, Tensor]:
        """What they remember: {"0.3.momentum_buffer": …} of optimizer 0 for its parameter 3."""
        tensors = {}
        for k, optimizer in enumerate(self.rates):
            for i, values in optimizer.state_dict()["state"].items():
                for name, value in values.items():
                    tensors[f"{k}.{i}.{name}"] = torch.as_tensor(value)
        return tensors

    def restore(self, state: Mapping[str, Tensor]) -> None:
        """Set what `state` returned.

        Raises:
            LookupError, ValueError: for anything else.
        """
        for k, optimizer in enumerate(self.rates):
            prefix = f"{k}."
            tensors = {
                key.removeprefix(prefix): value
                for key, value in state.items()
                if key.startswith(prefix)
            }
            _restore(optimizer, tensors)


def _restore(optimizer: torch.optim.Optimizer, state: Mapping[str, Tensor]) -> None:
    """Set what one optimizer remembers, {"3.exp_avg": …}."""
    parameters = optimizer.param_groups[0]["params"]
    names = {key.partition(".")[2] for key in state}
    if not state or len(state) != len(parameters) * len(names):
        raise ValueError("some of what an optimizer remembers is missing")
    state_dict = optimizer.state_dict()
    for key, value in state.items():
        i, _, name = key.partition(".")
        if value.shape not in (parameters[int(i)].shape, ()):
            raise ValueError(f"{key} has another shape")
        state_dict["state"].setdefault(int(i), {})[name] = value
    optimizer.load_state_dict(state_dict)
