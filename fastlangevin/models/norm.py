"""InstanceNorm++, the normalisation of the noise conditional score networks (Song and Ermon 2019, appendix A).

With mu_k and v_k the mean and the biased variance of channel k over the pixels of one sample, and mbar and s the mean
and the unbiased variance of the mu_k over its C channels,

    out_k = gamma_k ((x_k - mu_k) / sqrt(v_k + 1e-5) + alpha_k (mu_k - mbar) / sqrt(s + 1e-5)) + beta_k

The second term keeps the differences of the channels' means, which plain instance normalisation removes.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

__all__ = ["ConditionalInstanceNormPlusPlus", "InstanceNormPlusPlus", "instance_norm_plus_plus"]

EPSILON = 1e-5


def instance_norm_plus_plus(
    x: Tensor, gamma: Tensor, alpha: Tensor, beta: Tensor, *, activation: bool = False
) -> Tensor:
    """InstanceNorm++, and ELU behind it where that is wanted: the one place to fuse them.

    Args:
        x: ``(B, C, H, W)`` with C > 1, in any memory format. 16-bit input is normalised in fp32, since the difference
            of a pixel and the mean loses what is left of its digits.
        gamma: scale, ``(C,)`` or ``(B, C)``.
        alpha: weight of the channels' means, likewise.
        beta: shift, likewise.
        activation: whether ELU(out) is returned: out where out > 0, exp(out) - 1 otherwise, by expm1.

    Returns:
        Same shape, dtype and memory format as ``x``.
    """
    wide = x.float() if x.dtype.itemsize < 4 else x
    variance, mean = torch.var_mean(wide, (2, 3), correction=0)
    spread, centre = torch.var_mean(mean, 1, correction=1, keepdim=True)
    scale = gamma * (variance + EPSILON).rsqrt()
    shift = beta + gamma * alpha * ((mean - centre) * (spread + EPSILON).rsqrt())
    # The mean is taken from x first: folded into the shift, it would cancel digits where it is large beside the spread.
    out = torch.addcmul(shift[:, :, None, None], wide - mean[:, :, None, None], scale[:, :, None, None])
    return (F.elu(out) if activation else out).to(x.dtype)


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
        gamma, alpha, beta = self.embed(labels).chunk(3, dim=-1)
        return instance_norm_plus_plus(x, gamma, alpha, beta, activation=activation)
