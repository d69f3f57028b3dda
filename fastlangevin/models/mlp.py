"""A multilayer perceptron for flat data: toy densities, tables, small vectors.

Plain hidden layers h <- f(W h + b + e_i), whose term e_i belongs to the noise level: a learnt row for each level, added
in every hidden layer; or a column of the first layer times ln(sigma_i)/4. Either way a level changes only biases, so
that kernels can hold the network, and run a whole chain, in registers and caches (:mod:`fastlangevin.ops`).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

import torch
from torch import Tensor, nn

from fastlangevin.ladders import Sigmas, number
from fastlangevin.models.base import check_config
from fastlangevin.models.frame import FramedScore
from fastlangevin.models.mlp_chain import MLPKernel, log_once, reason_for_loop
from fastlangevin.reference import ACTIVATIONS
from fastlangevin.values import shown

__all__ = ["MLP", "Conditioning", "MLPConfig"]

Conditioning = Literal["label", "log_sigma"]


@dataclass(frozen=True)
class MLPConfig:
    """Sizes of an :class:`MLP`.

    Args:
        features: numbers in one sample, D.
        width: hidden features.
        depth: hidden layers.
        activation: ``"silu"``, ``"elu"``, ``"softplus"``, ``"relu"`` or ``"tanh"``, after every hidden layer.
        conditioning: ``"label"``, a learnt row for each level added before every activation; or ``"log_sigma"``,
            ln(sigma)/4 as one more input (c_noise of Karras et al. 2022, table 1).
        mean: mean of the data's values.
        std: standard deviation of the data's values.
    """

    features: int = 2
    width: int = 128
    depth: int = 3
    activation: str = "silu"
    conditioning: Conditioning = "label"
    mean: float = 0.0
    std: float = 1.0

    def __post_init__(self) -> None:
        for name in ("features", "width", "depth"):
            value = getattr(self, name)
            if type(value) is not int or not 1 <= value < 2**62:
                raise ValueError(f"{name} must be a positive integer, got {shown(value)}")
        for name in ("mean", "std"):
            object.__setattr__(self, name, number(name, getattr(self, name)))
        for name, known in (("activation", tuple(ACTIVATIONS)), ("conditioning", get_args(Conditioning))):
            value = getattr(self, name)
            if not isinstance(value, str) or value not in known:
                raise ValueError(f"{name} must be one of {', '.join(known)}, got {value!r}")


class MLP(FramedScore):
    """Score network for flat data ``(B, D)``, conditioned on the noise level.

    The samplers run its chains whole, inside a kernel, where it is in evaluation mode and has at most 32 features, 128
    hidden ones and 4 hidden layers: see ``chain=`` of :class:`fastlangevin.samplers.ChainOptions`.

    Args:
        sigmas: ladder ``(L,)`` in the units of the data, largest first.
        config: sizes.
    """

    config: MLPConfig

    def __init__(self, sigmas: Sigmas, config: MLPConfig | None = None) -> None:
        config = MLPConfig() if config is None else config
        check_config(config, MLPConfig)
        super().__init__(sigmas, config, mean=config.mean, std=config.std)
        self.activation = ACTIVATIONS[config.activation]
        by_label = config.conditioning == "label"
        inputs = [config.features + (not by_label)] + [config.width] * (config.depth - 1)
        self.layers = nn.ModuleList(nn.Linear(size, config.width) for size in inputs)
        self.levels = nn.Embedding(self.sigmas.numel(), config.depth * config.width) if by_label else None
        self.head = nn.Linear(config.width, config.features)
        if self.levels is not None:
            nn.init.zeros_(self.levels.weight)
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
        hidden = u
        if self.levels is None:
            hidden = torch.cat((u, self.sigma_of(u, labels).log() / 4), dim=1)
            shifts: tuple[Tensor | None, ...] = (None,) * len(self.layers)
        else:
            shifts = self.levels(labels).chunk(len(self.layers), dim=1)
        for layer, shift in zip(self.layers, shifts, strict=True):
            hidden = layer(hidden)
            hidden = self.activation(hidden if shift is None else hidden + shift)
        out: Tensor = self.head(hidden)
        return out

    def why_no_kernel(self, x: Tensor, impl: str) -> str | None:
        """Why chains like ``x`` are run update by update, or None where a kernel takes them."""
        return reason_for_loop(self, MLP, x, impl)

    def chain_kernel(self, x: Tensor, impl: str) -> MLPKernel | None:
        """What makes many updates of a state like ``x``, with the weights of the moment of each call.

        Raises:
            ValueError: a weight is not finite.
        """
        reason = self.why_no_kernel(x, impl)
        if reason is not None:
            log_once(reason)
            return None
        return MLPKernel(self, impl)
