"""InstanceNorm++ and its gradients in plain PyTorch: the one place of its arithmetic, which the kernels follow.

With mu_k and v_k the mean and the biased variance of channel k over the pixels of one sample, and mbar and s the mean
and the unbiased variance of the mu_k over its C channels,

    n_k = (x_k - mu_k) / sqrt(v_k + 1e-5)     m_k = (mu_k - mbar) / sqrt(s + 1e-5)
    out_k = gamma_k (n_k + alpha_k m_k) + beta_k

(Song and Ermon 2019, appendix A). Kernels differ from it, and from each other, by a few roundings.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

__all__ = ["instance_norm", "instance_norm_backward", "statistics"]

EPSILON = 1e-5


def instance_norm(
    x: Tensor,
    gamma: Tensor,
    alpha: Tensor,
    beta: Tensor,
    *,
    activation: bool = False,
) -> tuple[Tensor, Tensor, Tensor]:
    """The norm, and ELU behind it where that is wanted.

    Args:
        x: ``(B, C, H, W)`` with C > 1. 16-bit input is normalised in fp32, since the difference of a pixel and the mean
            loses what is left of its digits.
        gamma: scale, ``(C,)`` or ``(B, C)``, of the computing dtype: fp64 for an fp64 input and fp32 otherwise.
        alpha: weight of the channels' means, likewise.
        beta: shift, likewise.
        activation: whether ELU follows: out where out > 0, exp(out) - 1 otherwise, by expm1.

    Returns:
        The result, of the shape, dtype and memory format of ``x``; the means mu and the factors 1 / sqrt(v + 1e-5),
        ``(B, C)`` of the computing dtype.
    """
    wide = _wide(x)
    mean, rstd = statistics(wide)
    scale, shift = gamma * rstd, beta + gamma * alpha * _relative(mean)[0]
    # The mean is taken from x first: folded into the shift, it would cancel digits where it is large beside the spread.
    out = torch.addcmul(shift[:, :, None, None], wide - mean[:, :, None, None], scale[:, :, None, None])
    if activation:
        out = F.elu(out)
    return out.to(x.dtype), mean, rstd


def instance_norm_backward(
    grad_out: Tensor,
    x: Tensor,
    gamma: Tensor,
    alpha: Tensor,
    beta: Tensor,
    mean: Tensor,
    rstd: Tensor,
    *,
    activation: bool = False,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """The gradients of :func:`instance_norm`, themselves differentiable where mean and factors depend on ``x``.

    Args:
        grad_out: the derivative by the result, ``(B, C, H, W)``.
        x, gamma, alpha, beta, activation: as there.
        mean, rstd: what it returned.

    Returns:
        The gradient by ``x``, and those by gamma, alpha and beta of each sample, ``(B, C)`` of the computing dtype.
    """
    pixels = x.shape[2] * x.shape[3]
    relative, inverse = _relative(mean)
    n = (_wide(x) - mean[:, :, None, None]) * rstd[:, :, None, None]
    dy = _wide(grad_out)
    if activation:
        shift = beta + gamma * alpha * relative
        y = torch.addcmul(shift[:, :, None, None], n, gamma.expand_as(mean)[:, :, None, None])
        # The clamp keeps an infinite exponential, which is not used, out of the second derivative.
        dy = torch.where(y > 0, dy, dy * y.clamp(max=0).exp())
    by_shift, by_scale = dy.sum((2, 3)), (dy * n).sum((2, 3))
    by_relative = gamma * alpha * by_shift
    along = (by_relative * relative).sum(1, keepdim=True) / (x.shape[1] - 1)
    by_mean = inverse * (by_relative - by_relative.mean(1, keepdim=True) - relative * along)
    rest = by_mean / pixels - gamma * rstd * by_shift / pixels
    centred = dy - n * (by_scale / pixels)[:, :, None, None]
    by_x = torch.addcmul(rest[:, :, None, None], centred, (gamma * rstd)[:, :, None, None])
    by_gamma = by_scale + alpha * relative * by_shift
    return by_x.to(x.dtype), by_gamma, gamma * relative * by_shift, by_shift


def statistics(x: Tensor) -> tuple[Tensor, Tensor]:
    """The means and the factors 1 / sqrt(v + 1e-5) of the planes, ``(B, C)``, as a graph of ``x``."""
    variance, mean = torch.var_mean(_wide(x), (2, 3), correction=0)
    return mean, (variance + EPSILON).rsqrt()


def _wide(x: Tensor) -> Tensor:
    return x.float() if x.dtype.itemsize < 4 else x


def _relative(mean: Tensor) -> tuple[Tensor, Tensor]:
    """m of each channel ``(B, C)``, and 1 / sqrt(s + 1e-5) ``(B, 1)``."""
    spread, centre = torch.var_mean(mean, 1, correction=1, keepdim=True)
    inverse = (spread + EPSILON).rsqrt()
    return (mean - centre) * inverse, inverse
