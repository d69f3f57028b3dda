"""A multilayer perceptron for flat data: toy densities, tables, small vectors.

Plain hidden layers h <- f(W h + b + e_i), whose term e_i belongs to the noise level: a learnt row for each level, added
in every hidden layer; or a column of the first layer times ln(sigma_i)/4. Either way a level changes only biases, so
that kernels can hold the network, and run a whole chain, in registers and caches (:mod:`fastlangevin.ops`).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, get_args

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.modules import module as everywhere

from fastlangevin.ladders import Sigmas, number
from fastlangevin.models.base import check_config
from fastlangevin.models.frame import FramedScore
from fastlangevin.models.mlp_chain import MLPKernel, log_once, reason_for_loop
from fastlangevin.models.mlp_level import of_level
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


def _is_called(layer: nn.Module, kind: type[nn.Module]) -> bool:
    """Returns whether a layer must be called: it has hooks, or is something else than it was made as.

    A call of a small layer takes longer than its arithmetic.
    """
    return bool(
        type(layer) is not kind
        or layer._forward_hooks
        or layer._forward_pre_hooks
        or layer._backward_hooks
        or layer._backward_pre_hooks
        or everywhere._global_forward_hooks
        or everywhere._global_forward_pre_hooks
        or everywhere._global_backward_hooks
        or everywhere._global_backward_pre_hooks
    )


def _multiplied(layer: nn.Module, hidden: Tensor) -> Tensor:
    """A layer's products."""
    if _is_called(layer, nn.Linear):
        out: Tensor = layer(hidden)
        return out
    products: Any = layer
    return F.linear(hidden, products.weight, products.bias)


def _looked_up(table: nn.Module, labels: Tensor) -> Tensor:
    """The rows of an embedding."""
    rows: Any = table
    unusual = rows.max_norm is not None or rows.padding_idx is not None or rows.sparse or rows.scale_grad_by_freq
    if unusual or _is_called(table, nn.Embedding):
        out: Tensor = table(labels)
        return out
    return torch.embedding(rows.weight, labels)


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
            shifts = _looked_up(self.levels, labels).chunk(self.config.depth, dim=1)
        # Looked up in a dictionary, since each module that is asked for by its name takes a call of PyTorch's.
        parts: Any = self._modules
        activation = self.activation
        for layer, shift in zip(parts["layers"], shifts, strict=True):
            hidden = _multiplied(layer, hidden)
            hidden = activation(hidden if shift is None else hidden + shift)
        return _multiplied(parts["head"], hidden)

    def at_level(self, x: Tensor, level: int) -> Callable[[Tensor], Tensor] | None:
        """The score at a noise level as a function of states like ``x``, with the weights of this moment.

        It differs from the module's by roundings. None where the module is to be called.
        """
        return of_level(self, MLP, x, level)

    def why_no_kernel(self, x: Tensor, impl: str) -> str | None:
        """Returns why chains like ``x`` are run update by update, or None where a kernel takes them."""
        return reason_for_loop(self, MLP, x, impl)

    def chain_kernel(self, x: Tensor, impl: str) -> MLPKernel | None:
        """Returns the kernel that makes many updates of a state like ``x``, with the weights at the time of each call.

        Raises:
            ValueError: a weight is not finite.
        """
        reason = self.why_no_kernel(x, impl)
        if reason is not None:
            log_once(reason)
            return None
        return MLPKernel(self, impl)
