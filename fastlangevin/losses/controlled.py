"""Denoising score matching with a control variate at small noise levels.

Song and Kingma (2021, arXiv:2101.03288) name control variates as the remedy for the objective's variance there; this
one is the first order of the Taylor expansion of arXiv:2408.12270.

Of the loss 1/2 ||sigma s(x + sigma z) + z||^2 the term 1/2 ||z||^2 stays as sigma goes to zero, and the gradient has a
term of order sigma without mean, while what depends on the score in expectation is of order sigma^2. To first order in
sigma the noise is known from the clean sample,

    c = sigma z . s(x) + 1/2 (||z||^2 - D),        E[c] = 0 over z,

so the loss less c has the same expectation, as has its gradient, and a variance of order sigma^4.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Unpack

import torch
from torch import Tensor

from fastlangevin.ladders import Sigmas, positive
from fastlangevin.losses.arguments import check_batch, check_returned, per_sample, reduced
from fastlangevin.losses.dsm import DenoisingScoreMatching, evaluate
from fastlangevin.losses.levels import levels_of
from fastlangevin.noise import SampleOptions
from fastlangevin.ops.arguments import compute_dtype
from fastlangevin.ops.dsm import Reduction
from fastlangevin.ops.random import random_at

__all__ = ["controlled_dsm_loss"]


def controlled_dsm_loss(
    net: Callable[[Tensor, Tensor], Tensor],
    x: Tensor,
    sigmas: Sigmas,
    *,
    below: float,
    labels: Tensor | None = None,
    step: int | Tensor = 0,
    reduction: Reduction = "mean",
    **samples: Unpack[SampleOptions],
) -> Tensor:
    """:func:`fastlangevin.dsm_loss` with less variance at small noise levels, for a second call of the network.

    Samples of levels with sigma < ``below`` go through the network again, without noise, forward and backward. The host
    waits for the device once to learn how many they are; where there are none, there is no second call.

    Args:
        net: score network, ``net(x, labels)`` gives the score ``(B, *)``. It is called at clean samples too.
        x: clean samples ``(B, *)``, any float dtype.
        sigmas: ladder ``(L,)`` in the units of ``x``.
        below: control the levels with sigma below this, in the units of ``x``. Half of the data's standard deviation s
            is a safe choice. On Gaussian data with their true score the variance of the loss falls below 0.73 s, that
            of its derivative by a factor on the score below 0.58 s, and by a shift of the score below s; above, they
            rise. Where directions differ, the narrow ones count.
        labels: int64 ``(B,)``, the level of each sample; by default drawn uniformly.
        step, reduction, samples: as for :func:`fastlangevin.dsm_loss`, which has the same levels and noise at the same
            address.

    Returns:
        As for :func:`fastlangevin.dsm_loss`: the same expectation. A sample's value may be negative.
    """
    check_batch(("net", net), x, reduction, "x, labels")
    below = positive("below", below)
    level = levels_of(x, sigmas, labels, step, samples)
    objective = DenoisingScoreMatching(sigmas, reduction="none")
    values, _ = evaluate(net, x, objective.setting, level.labels, level.address)
    (rows,) = (level.sigma.flatten() < below).nonzero(as_tuple=True)
    if len(rows):
        z = random_at(torch.empty(x.shape, dtype=compute_dtype(x), device=x.device), level.address)[rows]
        clean, sigma = x[rows], level.sigma[rows]
        score = check_returned("net", net(clean, level.labels[rows]), clean)
        control = per_sample(z * (sigma * score.to(z.dtype) + 0.5 * z)) - 0.5 * clean[0].numel()
        values = values.index_add(0, rows, control.to(values.dtype), alpha=-1)
    return reduced(values, reduction)
