"""Averaged weights."""

from __future__ import annotations

import torch
from torch import Tensor, nn

__all__ = ["Average"]


class Average:
    """Exponential moving average of a network's weights (Song and Ermon 2020, technique 5).

    The decay of update n is min(decay, (1 + n) / (10 + n)), so that the random start is forgotten early.

    Args:
        net: the network that is trained; its weights are read at each update.
        decay: limit of the decay, in [0, 1).
    """

    def __init__(self, net: nn.Module, decay: float) -> None:
        self.decay = decay
        self.updates = 0
        self.source = {name: parameter.detach() for name, parameter in net.named_parameters()}
        self.weights = {name: parameter.clone() for name, parameter in self.source.items()}

    @torch.no_grad()
    def update(self) -> None:
        """Moves the average towards the network's present weights."""
        decay = min(self.decay, (1 + self.updates) / (10 + self.updates))
        self.updates += 1
        torch._foreach_lerp_(list(self.weights.values()), list(self.source.values()), 1 - decay)

    @torch.no_grad()
    def copy_to(self, net: nn.Module) -> None:
        """Overwrites a network's weights with the average."""
        for name, parameter in net.named_parameters():
            parameter.copy_(self.weights[name])

    @torch.no_grad()
    def restore(self, weights: dict[str, Tensor], updates: int) -> None:
        """Goes back to a saved average."""
        for name, weight in self.weights.items():
            weight.copy_(weights[name])
        self.updates = updates
