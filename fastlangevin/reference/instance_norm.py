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

from fastlangevin.kernels.operands import InstanceNorm, InstanceNormGradients, Statistics

__all__ = ["instance_norm", "instance_norm_backward", "statistics"]

EPSILON = 1e-5


def instance_norm(given: InstanceNorm) -> tuple[Tensor, Tensor, Statistics]:
    """The norm, what was normalised, which is x where there is no residual, and its statistics.

    ``gamma``, ``alpha`` and ``beta`` may be ``(C,)`` too. 16-bit input is normalised in fp32, since the difference of a
    pixel and the mean loses what is left of its digits. ELU is out where out > 0, exp(out) - 1 otherwise, by expm1.
    """
    x, gamma, alpha, beta, activation, residual, labels = given
    if labels is not None:
        gamma, alpha, beta = gamma[labels], alpha[labels], beta[labels]
    total = x if residual is None else x + residual
    wide = _wide(total)
    mean, rstd = found = statistics(wide)
    scale, shift = gamma * rstd, beta + gamma * alpha * _relative(mean)[0]
    # The mean is taken from x first: folded into the shift, it would cancel digits where it is large beside the spread.
    out = torch.addcmul(shift[:, :, None, None], wide - mean[:, :, None, None], scale[:, :, None, None])
    if activation:
        out = F.elu(out)
    return out.to(x.dtype), total, found


def instance_norm_backward(grad_out: Tensor, given: InstanceNorm, found: Statistics) -> InstanceNormGradients:
    """The gradients of :func:`instance_norm`, themselves differentiable where the statistics depend on ``x``.

    Args:
        grad_out: the derivative by the result, ``(B, C, H, W)``.
        given: as there, without residual and labels.
        found: the statistics.
    """
    x, gamma, alpha, beta, activation, _, _ = given
    mean, rstd = found
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
    return InstanceNormGradients(by_x.to(x.dtype), by_gamma, gamma * relative * by_shift, by_shift)


def statistics(x: Tensor) -> Statistics:
    """Those of the planes of ``x``, as its graph."""
    variance, mean = torch.var_mean(_wide(x), (2, 3), correction=0)
    return Statistics(mean, (variance + EPSILON).rsqrt())


def _wide(x: Tensor) -> Tensor:
    return x.float() if x.dtype.itemsize < 4 else x


def _relative(mean: Tensor) -> tuple[Tensor, Tensor]:
    """m of each channel ``(B, C)``, and 1 / sqrt(s + 1e-5) ``(B, 1)``."""
    spread, centre = torch.var_mean(mean, 1, correction=1, keepdim=True)
    inverse = (spread + EPSILON).rsqrt()
    return (mean - centre) * inverse, inverse
