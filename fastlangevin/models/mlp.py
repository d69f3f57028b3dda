"""A multilayer perceptron for flat data: toy densities, tables, small vectors.

Residual layers x + W2 SiLU(W1 SiLU(scale_i x + shift_i)), whose scale and shift belong to the noise level.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fastlangevin.models.base import check_config
from fastlangevin.models.frame import FramedScore
from fastlangevin.schedules import Sigmas

__all__ = ["MLP", "MLPConfig"]


@dataclass(frozen=True)
class MLPConfig:
    """Sizes of an :class:`MLP`.

    Args:
        features: numbers in one sample, D.
        width: hidden features.
        depth: residual layers.
        mean: mean of the data's values.
        std: standard deviation of the data's values.
    """

    features: int = 2
    width: int = 128
    depth: int = 3
    mean: float = 0.0
    std: float = 1.0

    def __post_init__(self) -> None:
        for name in ("features", "width", "depth"):
            value = getattr(self, name)
            if type(value) is not int or value < 1:
                raise ValueError(f"{name} must be a positive integer, got {value!r}")


class Layer(nn.Module):
    """Residual layer on ``(B, width)``."""

    def __init__(self, width: int, levels: int) -> None:
        super().__init__()
        self.affine = nn.Embedding(levels, 2 * width)
        with torch.no_grad():
            self.affine.weight[:, :width] = 1.0
            self.affine.weight[:, width:] = 0.0
        self.first = nn.Linear(width, width)
        self.second = nn.Linear(width, width)

    def forward(self, x: Tensor, labels: Tensor) -> Tensor:
        scale, shift = self.affine(labels).chunk(2, dim=-1)
        out: Tensor = self.second(F.silu(self.first(F.silu(torch.addcmul(shift, x, scale)))))
        return x + out


class MLP(FramedScore):
    """Score network for flat data ``(B, D)``, conditioned on the noise level.

    Args:
        sigmas: ladder ``(L,)`` in the units of the data, largest first.
        config: sizes.
    """

    config: MLPConfig

    def __init__(self, sigmas: Sigmas, config: MLPConfig | None = None) -> None:
        config = MLPConfig() if config is None else config
        check_config(config, MLPConfig)
        super().__init__(sigmas, config, mean=config.mean, std=config.std)
        levels = self.sigmas.numel()
        self.stem = nn.Linear(config.features, config.width)
        self.layers = nn.ModuleList(Layer(config.width, levels) for _ in range(config.depth))
        self.head = nn.Linear(config.width, config.features)
        nn.init.zeros_(self.head.weight)
        nn.init.zeros_(self.head.bias)

    def check_shape(self, x: Tensor) -> None:
        features = self.config.features
        if x.ndim != 2 or x.shape[1] != features:
            raise ValueError(
                f"x must be flat data (B, {features}), got {tuple(x.shape)}; flatten samples with x.flatten(1), "
                f"or build the network with MLPConfig(features=...)"
            )

    def features(self, u: Tensor, labels: Tensor) -> Tensor:
        hidden = self.stem(u)
        for layer in self.layers:
            hidden = layer(hidden, labels)
        out: Tensor = self.head(F.silu(hidden))
        return out
