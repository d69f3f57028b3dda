"""The formulas of the fused operations: where each finds its numbers in a module, and how it rounds.

A formula is a plain, frozen record: it is part of the fused module, which is copied, pickled and compiled with it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from fastlangevin import reference
from fastlangevin.ops.group_norm import group_norm
from fastlangevin.ops.instance_norm import instance_norm
from fastlangevin.reference.instance_norm import EPSILON

__all__ = ["Formula", "Groups", "Table", "Vectors"]


@dataclass(frozen=True)
class Formula:
    """A fused operation, and which of a module's parameters it takes.

    Attributes:
        kind: its name.
        follows: the activation that it can put behind the norm.
        arguments: how many a call of the module has.
    """

    kind: ClassVar[str]
    follows: ClassVar[type[nn.Module]]
    arguments: ClassVar[int] = 1

    def takes(self, x: Tensor) -> bool:
        """Returns whether the operation is defined on an input of this shape."""
        raise NotImplementedError

    def apply(self, module: Any, *inputs: Tensor, activation: bool, impl: str) -> Tensor:
        """The operation with the module's parameters."""
        raise NotImplementedError

    def roundings(self, module: Any, *inputs: Tensor) -> Tensor:
        """Bound of the error of one channel of one sample, ``(B, C)``, in units of the arithmetic's epsilon.

        A mean of N numbers up to a in magnitude, summed in pairs or in vectors, is off by less than log2(N) + 4
        roundings of a; a deviation by as many of itself; then there are at most four products and sums. The means enter
        the result divided by a deviation, which is what magnifies their error.
        """
        raise NotImplementedError


def _count(elements: int) -> float:
    return 8 + math.log2(max(elements, 1))


class _InstanceNorm(Formula):
    kind = "InstanceNorm++"
    follows = nn.ELU

    def numbers(self, module: Any, *inputs: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Gamma, alpha and beta, ``(C,)`` or ``(B, C)``."""
        raise NotImplementedError

    def takes(self, x: Tensor) -> bool:
        return x.ndim == 4 and x.shape[1] > 1

    def apply(self, module: Any, *inputs: Tensor, activation: bool, impl: str) -> Tensor:
        gamma, alpha, beta = self.numbers(module, *inputs)
        return instance_norm(inputs[0], gamma, alpha, beta, activation=activation, impl=impl)

    def roundings(self, module: Any, *inputs: Tensor) -> Tensor:
        x = inputs[0]
        gamma, alpha, beta = (number.to(x.dtype).abs() for number in self.numbers(module, *inputs))
        mean, rstd = reference.statistics(x)
        size = x.abs().amax((2, 3))
        inverse = (mean.var(1, correction=1, keepdim=True) + EPSILON).rsqrt()
        relative = ((mean - mean.mean(1, keepdim=True)) * inverse).abs()
        of_planes = gamma * 2 * size * rstd
        of_means = gamma * alpha * (2 * (1 + relative) * size.amax(1, keepdim=True) * inverse + relative)
        return _count(x[0, 0].numel()) * (of_planes + of_means + beta)


@dataclass(frozen=True)
class Vectors(_InstanceNorm):
    """InstanceNorm++ whose gamma, alpha and beta are parameters ``(C,)`` of these names; without beta it is 0."""

    gamma: str
    alpha: str
    beta: str | None

    def numbers(self, module: Any, *inputs: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        gamma: Tensor = getattr(module, self.gamma)
        alpha: Tensor = getattr(module, self.alpha)
        beta: Tensor = torch.zeros_like(gamma) if self.beta is None else getattr(module, self.beta)
        return gamma, alpha, beta


@dataclass(frozen=True)
class Table(_InstanceNorm):
    """InstanceNorm++ whose gamma, alpha and beta are those of each sample's level, called with ``(x, labels)``.

    Attributes:
        embedding: name of the ``nn.Embedding`` whose rows hold them side by side.
        order: which part of a row is gamma, alpha, beta; without beta it is 0.
    """

    kind = "conditional InstanceNorm++"
    arguments = 2
    embedding: str
    order: tuple[int, ...]

    def numbers(self, module: Any, *inputs: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        x, labels = inputs
        # One label for the whole batch is taken, too, as the broadcasts of plain PyTorch take it.
        rows = getattr(module, self.embedding)(labels).expand(x.shape[0], -1)
        parts = rows.chunk(len(self.order), dim=-1)
        gamma = parts[self.order[0]]
        beta = parts[self.order[2]] if len(self.order) == 3 else torch.zeros_like(gamma)
        return gamma, parts[self.order[1]], beta


@dataclass(frozen=True)
class Groups(Formula):
    """GroupNorm by the attributes of ``nn.GroupNorm``."""

    kind = "GroupNorm"
    follows = nn.SiLU

    def takes(self, x: Tensor) -> bool:
        return x.ndim >= 2

    def apply(self, module: Any, *inputs: Tensor, activation: bool, impl: str) -> Tensor:
        return group_norm(
            inputs[0],
            module.num_groups,
            module.weight,
            module.bias,
            eps=module.eps,
            activation=activation,
            impl=impl,
        )

    def roundings(self, module: Any, *inputs: Tensor) -> Tensor:
        x = inputs[0]
        groups = x.reshape(x.shape[0], module.num_groups, -1)
        rstd = (groups.var(2, correction=0) + module.eps).rsqrt()
        of_groups = (2 * groups.abs().amax(2) * rstd).repeat_interleave(x.shape[1] // module.num_groups, 1)
        if module.weight is not None:
            of_groups = of_groups * module.weight.to(x.dtype).abs()
        if module.bias is not None:
            of_groups = of_groups + module.bias.to(x.dtype).abs()
        bound: Tensor = _count(groups.shape[2]) * of_groups
        return bound
