"""Consistent annealed sampling as a table."""

from __future__ import annotations

from fastlangevin import rules
from fastlangevin.ladders import Sigmas, check_sigmas
from fastlangevin.noise import STREAM_VERSION
from fastlangevin.schemes.by_level import ByLevel, denoising, exploding
from fastlangevin.schemes.scheme import Scheme

__all__ = ["consistent_annealed"]


def consistent_annealed(
    sigmas: Sigmas, *, epsilon: float | None = None, step_lr: float | None = None, denoise: bool = False
) -> Scheme:
    """Consistent annealed sampling (Jolicoeur-Martineau et al. 2021): one update for each level.

    x + eta sigma_i^2 score(x, i) + b_i z with eta = epsilon / (2 sigma_L^2) and b_i such that the noise left in x has
    exactly the variance sigma_{i+1}^2 of the next level; none is added at the last.

    Args:
        sigmas: noise levels in units of the data, largest first.
        epsilon: the paper's step size at the last level; ``step_lr`` = epsilon/2. Exactly one must be given.
        step_lr: likewise.
        denoise: end with the step to the posterior mean.

    Returns:
        The scheme. Its exact law is that of ``init="normal"``.

    Raises:
        TypeError, ValueError: an argument is of the wrong kind or out of range, or the step is too small or too large
            for the ladder.
    """
    ladder = check_sigmas(sigmas)
    size = rules.step_size(epsilon, step_lr)
    make = ByLevel(rules.consistent(ladder, size), exploding(ladder), 1)
    record = {
        "sampler": "consistent_annealed",
        "stream": STREAM_VERSION,
        "sigmas": ladder,
        "epsilon": size,
        "denoise": bool(denoise),
    }
    last = denoising(ladder) if denoise else None
    return Scheme("consistent_annealed", make, make.total, ladder, record, spread=ladder[0], denoise=last)
