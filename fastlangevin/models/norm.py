"""InstanceNorm++, the normalisation of the noise conditional score networks (Song and Ermon 2019, appendix A).

Its formula is in :mod:`fastlangevin.reference.norm`. Its second term keeps the differences of the channels' means,
which plain instance normalisation removes.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from fastlangevin.ops.norm import instance_norm

__all__ = ["ConditionalInstanceNormPlusPlus", "InstanceNormPlusPlus", "instance_norm_plus_plus"]


def instance_norm_plus_plus(
    x: Tensor, gamma: Tensor, alpha: Tensor, beta: Tensor, *, labels: Tensor | None = None, activation: bool = False
) -> Tensor:
    """InstanceNorm++, and ELU behind it where that is wanted: see :func:`fastlangevin.ops.instance_norm`."""
    return instance_norm(x, gamma, alpha, beta, labels=labels, activation=activation)


class InstanceNormPlusPlus(nn.Module):
    """InstanceNorm++ with one scale, weight and shift for each channel.

    Args:
        channels: C, at least 2.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.alpha = nn.Parameter(torch.empty(channels))
        self.gamma = nn.Parameter(torch.empty(channels))
        self.beta = nn.Parameter(torch.zeros(channels))
        nn.init.normal_(self.alpha, 1.0, 0.02)
        nn.init.normal_(self.gamma, 1.0, 0.02)

    def forward(self, x: Tensor, labels: Tensor, *, activation: bool = False) -> Tensor:
        """Normalises; the labels are not looked at."""
        return instance_norm_plus_plus(x, self.gamma, self.alpha, self.beta, activation=activation)


class ConditionalInstanceNormPlusPlus(nn.Module):
    """InstanceNorm++ whose scale, weight and shift are those of each sample's level.

    Args:
        channels: C, at least 2.
        levels: L; the table is ``(L, 3C)``, a row being gamma, alpha, beta.
    """

    def __init__(self, channels: int, levels: int) -> None:
        super().__init__()
        self.embed = nn.Embedding(levels, 3 * channels)
        with torch.no_grad():
            self.embed.weight[:, : 2 * channels].normal_(1.0, 0.02)
            self.embed.weight[:, 2 * channels :] = 0.0

    def forward(self, x: Tensor, labels: Tensor, *, activation: bool = False) -> Tensor:
        if torch.is_grad_enabled() and self.embed.weight.requires_grad:
            # One gradient of the table instead of three.
            gamma, alpha, beta = self.embed(labels).chunk(3, dim=1)
            return instance_norm_plus_plus(x, gamma, alpha, beta, activation=activation)
        gamma, alpha, beta = self.embed.weight.chunk(3, dim=1)
        return instance_norm_plus_plus(x, gamma, alpha, beta, labels=labels, activation=activation)
