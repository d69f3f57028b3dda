"""Denoising score matching at one noise level (Vincent 2011), for a score that takes no level."""

from __future__ import annotations

from typing import Unpack

import torch
from torch import Tensor

from fastlangevin.ladders import positive
from fastlangevin.losses.arguments import Score, check_batch, check_returned
from fastlangevin.losses.dsm import dsm_loss
from fastlangevin.noise import SampleOptions, check_samples
from fastlangevin.ops.dsm import Reduction

__all__ = ["single_dsm_loss"]


def single_dsm_loss(
    score: Score,
    x: Tensor,
    sigma: float,
    *,
    weighted: bool = True,
    step: int | Tensor = 0,
    reduction: Reduction = "mean",
    **samples: Unpack[SampleOptions],
) -> Tensor:
    """Denoising score matching loss at one noise level: :func:`fastlangevin.dsm_loss` on a ladder of one.

    The minimiser is the score of the data blurred by N(0, sigma^2), not of the data.

    Args:
        score: ``score(x)`` gives the score ``(B, *)``.
        x: clean samples ``(B, *)``, any float dtype.
        sigma: the noise level in the units of ``x``.
        weighted: 1/2 ||sigma s + z||^2, the weight sigma^2 of :func:`fastlangevin.dsm_loss`; else
            1/2 ||s + z / sigma||^2, half the Fisher divergence of the blurred data but for a constant, whose variance
            grows as sigma^-4.
        step, reduction, samples: as for :func:`fastlangevin.dsm_loss`, which has the same noise at the same address.

    Returns:
        fp32 (fp64 for fp64 data): ``()``, or ``(B,)`` with ``reduction="none"``. Elements are summed.
    """
    check_samples(samples)
    check_batch(("score", score), x, reduction)
    sigma = positive("sigma", sigma)
    loss = dsm_loss(
        lambda state, labels: check_returned("score", score(state), state),
        x,
        [sigma],
        step=step,
        labels=torch.zeros(len(x), dtype=torch.int64, device=x.device),
        reduction=reduction,
        **samples,
    )
    return loss if weighted else loss / sigma**2
