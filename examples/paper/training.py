"""Training as in the paper's toy experiments: an MLP of softplus units, Adam."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from tqdm import tqdm


def softplus_network(features: int, width: int) -> nn.Sequential:
    """Three layers, ``width`` hidden units, softplus (the paper, appendix B.1). Weights by PyTorch's default."""
    return nn.Sequential(
        nn.Linear(features, width),
        nn.Softplus(),
        nn.Linear(width, width),
        nn.Softplus(),
        nn.Linear(width, features),
    )


def fit(
    net: nn.Module,
    loss: Callable[[int], Tensor],
    steps: int,
    *,
    lr: float = 1e-3,
    progress: bool = False,
    name: str = "",
) -> Tensor:
    """Minimise ``loss(step)`` by Adam; returns the loss of every step, fp32 ``(steps,)``."""
    optimiser = torch.optim.Adam(net.parameters(), lr=lr)
    losses = torch.empty(steps)
    for step in tqdm(range(steps), desc=name, disable=not progress, unit="step"):
        value = loss(step)
        optimiser.zero_grad()
        value.backward()
        optimiser.step()
        losses[step] = value.detach()
    return losses
