"""GroupNorm and its gradients in plain PyTorch: the one place of its arithmetic, which the kernels follow.

The C channels lie in G groups of C/G neighbours. With mu_j and v_j the mean and the biased variance of group j over its
channels and their pixels in one sample, for a channel k of the group j

    n = (x_k - mu_j) / sqrt(v_j + eps)     y = weight_k n + bias_k     out = y, or SiLU(y) = y / (1 + exp(-y))

(Wu and He 2018; SiLU behind it in the networks of Ho et al. 2020 and Song et al. 2021). With g the derivative by out
and mean_j the mean over all that mu_j is taken of,

    dy = g, or g s (1 + y (1 - s)), s = 1 / (1 + exp(-y))     dbias = sum dy     dweight = sum dy n
    dx = (weight dy - mean_j(weight dy) - n mean_j(weight dy n)) / sqrt(v_j + eps)

Kernels differ from it, and from each other, by a few roundings.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from fastlangevin.kernels.operands import GroupNorm, GroupNormGradients, Statistics

__all__ = ["group_norm", "group_norm_backward", "group_statistics"]


def group_norm(given: GroupNorm, eps: float) -> tuple[Tensor, Statistics]:
    """The norm of x, which may be ``(B, C, ...)``, and its statistics; ``eps`` is added to the variance.

    16-bit input is normalised in fp32, since the difference of a pixel and the mean loses what is left of its digits.
    """
    x, weight, bias, groups, activation = given
    wide = _wide(x)
    mean, rstd = found = group_statistics(wide, groups, eps)
    # The mean is taken from x first: folded into the shift, it would cancel digits where it is large beside the spread.
    away = wide - _meet(_spread(mean, x), x)
    out = torch.addcmul(_meet(bias[None], x), away, _meet(weight * _spread(rstd, x), x))
    return (F.silu(out) if activation else out).to(x.dtype), found


def group_norm_backward(grad_out: Tensor, given: GroupNorm, found: Statistics) -> GroupNormGradients:
    """The gradients of :func:`group_norm`, themselves differentiable where the statistics depend on ``x``.

    Args:
        grad_out: the derivative by the result, ``(B, C, ...)``.
        given: as there.
        found: the statistics.
    """
    x, weight, bias, groups, activation = given
    mean, rstd = found
    n = (_wide(x) - _meet(_spread(mean, x), x)) * _meet(_spread(rstd, x), x)
    dy = _wide(grad_out)
    if activation:
        y = torch.addcmul(_meet(bias[None], x), n, _meet(weight[None], x))
        # sigmoid(-y), not 1 - sigmoid(y): that cancels, and y magnifies what it loses.
        dy = dy * torch.sigmoid(y) * (1 + y * torch.sigmoid(-y))
    by_bias, by_weight = _over_pixels(dy), _over_pixels(dy * n)
    share = groups / math.prod(x.shape[1:])
    constant, slope = (_spread(_grouped(weight * sums, groups).sum(2) * share, x) for sums in (by_bias, by_weight))
    centred = dy * _meet(weight[None], x) - _meet(constant, x) - n * _meet(slope, x)
    return GroupNormGradients((centred * _meet(_spread(rstd, x), x)).to(x.dtype), by_weight, by_bias)


def group_statistics(x: Tensor, groups: int, eps: float) -> Statistics:
    """Those of the groups of ``x``, as its graph."""
    members = _grouped(_wide(x), groups)
    variance, mean = torch.var_mean(members, tuple(range(2, members.ndim)), correction=0)
    return Statistics(mean, (variance + eps).rsqrt())


def _wide(x: Tensor) -> Tensor:
    return x.float() if x.dtype.itemsize < 4 else x


def _grouped(values: Tensor, groups: int) -> Tensor:
    """(B, C, ...) as (B, G, C/G, ...)."""
    return values.reshape(values.shape[0], groups, values.shape[1] // groups, *values.shape[2:])


def _spread(values: Tensor, x: Tensor) -> Tensor:
    """Numbers of the groups (B, G), each for all channels of its group, ``(B, C)``."""
    return values[:, :, None].expand(-1, -1, x.shape[1] // values.shape[1]).reshape(x.shape[:2])


def _meet(values: Tensor, x: Tensor) -> Tensor:
    """Numbers of the channels (B, C) or (1, C), to meet ``x``."""
    return values[(..., *(None,) * (x.ndim - 2))]


def _over_pixels(values: Tensor) -> Tensor:
    """The sums (B, C) over all dimensions behind the channels, of which there may be none."""
    return values.sum(tuple(range(2, values.ndim))) if values.ndim > 2 else values
