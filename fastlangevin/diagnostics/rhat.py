"""Agreement of chains: split R-hat."""

from __future__ import annotations

import torch
from torch import Tensor

from fastlangevin.diagnostics.elements import Dims, by_element, centred, check_trajectory, split, variance
from fastlangevin.diagnostics.ranks import median, normal_scores

__all__ = ["split_rhat"]


def split_rhat(trajectory: Tensor, *, rank: bool = True, dims: Dims | None = None) -> Tensor:
    """Split R-hat of every element of the state: near 1 where the halves of all chains have one law.

    With W the mean variance within the 2 B halves of n frames and B/n the variance of their means, R-hat is
    sqrt((n - 1)/n + B/(n W)): Gelman, Carlin, Stern, Dunson, Vehtari and Rubin, "Bayesian Data Analysis", 3rd edition
    2013, section 11.4. With ``rank`` it is that of the normal scores of the ranks, which needs no finite variance, or
    that of the folded draws, abs(x - median), where it is larger, which sees chains of one mean and different widths:
    Vehtari et al. 2021. 1.01 is their limit. ArviZ gives the same numbers, but NaN for a single chain, whose halves
    are compared here.

    Beside trajectory and result it holds tensors of at most 256 MiB, or 80 bytes for each of the F*B draws of one
    element where that is more.

    Args:
        trajectory: ``(F, B, ...)`` in any unit, of at least 4 frames; the first dimension is the frame, the second the
            chain. The middle frame is left out where F is odd.
        rank: the rank-normalised, folded version; False for the plain one of 2013.
        dims: the dimensions of frame and chain where they are not (0, 1); ArviZ's layout is (1, 0).

    Returns:
        fp64 ``(...)``, one number for each element. NaN for an element that is constant or holds a NaN, infinity where
        every half of a chain is constant but not all are equal.

    Raises:
        TypeError, ValueError: the trajectory is no float tensor, or has too few frames, or not these dimensions.
    """
    return by_element(check_trajectory(trajectory, dims), _ranked if rank else lambda draws: _rhat(split(draws)))


def _ranked(draws: Tensor) -> Tensor:
    halves = split(draws)
    bulk = _rhat(normal_scores(halves))
    halves -= median(halves)
    # Two values of one share are constant once folded: then the folded R-hat is NaN and the other stands.
    return torch.fmax(bulk, _rhat(normal_scores(halves.abs_())))


def _rhat(chains: Tensor) -> Tensor:
    n = chains.shape[-1]
    means, left = centred(chains)
    within = left.square().sum(-1).mean(-1) / (n - 1)
    return ((n * variance(means) / within + n - 1) / n).sqrt()
