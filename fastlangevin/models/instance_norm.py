"""InstanceNorm++, the normalisation of the noise conditional score networks (Song and Ermon 2019, appendix A).

Its formula is in :mod:`fastlangevin.reference.instance_norm`. Its second term keeps the differences of the channels'
means, which plain instance normalisation removes.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from fastlangevin.ops.instance_norm import add_instance_norm, instance_norm

__all__ = ["ConditionalInstanceNormPlusPlus", "InstanceNormPlusPlus", "of_sum"]


class _Norm(nn.Module):
    def parameters_of(self, labels: Tensor) -> tuple[tuple[Tensor, Tensor, Tensor], Tensor | None]:
        """Gamma, alpha and beta, and the labels where those are tables."""
        raise NotImplementedError

    def forward(self, x: Tensor, labels: Tensor, *, activation: bool = False) -> Tensor:
        """Normalises, with ELU behind it where that is wanted: see :func:`fastlangevin.ops.instance_norm`."""
        parameters, labels_of_tables = self.parameters_of(labels)
        return instance_norm(x, *parameters, labels=labels_of_tables, activation=activation)


def of_sum(
    norm: nn.Module, terms: tuple[Tensor, ...], labels: Tensor, *, activation: bool = False
) -> tuple[Tensor, Tensor]:
    """The norm of the sum of the terms, and the sum; any other norm than those here is given the sum."""
    *first, last = terms
    if isinstance(norm, _Norm) and first:
        parameters, labels_of_tables = norm.parameters_of(labels)
        x = sum(first[1:], first[0])
        return add_instance_norm(x, last, *parameters, labels=labels_of_tables, activation=activation)
    total = sum(terms[1:], terms[0])
    return norm(total, labels, activation=activation), total


class InstanceNormPlusPlus(_Norm):
    """InstanceNorm++ with one scale, weight and shift for each channel; the labels are not looked at.

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

    def parameters_of(self, labels: Tensor) -> tuple[tuple[Tensor, Tensor, Tensor], None]:
        return (self.gamma, self.alpha, self.beta), None


class ConditionalInstanceNormPlusPlus(_Norm):
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

    def parameters_of(self, labels: Tensor) -> tuple[tuple[Tensor, Tensor, Tensor], Tensor | None]:
        if torch.is_grad_enabled() and self.embed.weight.requires_grad:
            # One gradient of the table instead of three.
            gamma, alpha, beta = self.embed(labels).chunk(3, dim=1)
            return (gamma, alpha, beta), None
        gamma, alpha, beta = self.embed.weight.chunk(3, dim=1)
        return (gamma, alpha, beta), labels
