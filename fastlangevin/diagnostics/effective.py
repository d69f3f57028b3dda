"""Effective sample size, and the standard errors that follow from it (Vehtari et al. 2021)."""

from __future__ import annotations

import math
from typing import Literal, get_args

import torch
from torch import Tensor

from fastlangevin.diagnostics.autocorrelation import autocovariance
from fastlangevin.diagnostics.elements import Dims, by_element, centred, check_choice, check_trajectory, split, variance
from fastlangevin.diagnostics.ranks import normal_scores, order_statistic

__all__ = ["ess", "integrated_autocorrelation_time", "mcse"]

Kind = Literal["bulk", "tail", "mean"]
Of = Literal["mean", "sd"]
TAILS = (5, 95)  # per cent


def ess(trajectory: Tensor, *, kind: Kind = "bulk", dims: Dims | None = None) -> Tensor:
    """Effective sample size of every element of the state, over all chains.

    S / tau with S = 2 B (F // 2) draws and tau = 1 + 2 (sum of autocorrelations): those of the split chains, with the
    variance between them added to that within, summed over Geyer's initial monotone sequence (Geyer 1992, section
    3.3) as Stan and ArviZ do. It is more than S where draws are antithetic, at most S log10(S). Source: Vehtari et al.
    2021, section 3.2, where 400 is enough.

    Memory as for :func:`split_rhat`.

    Args:
        trajectory: ``(F, B, ...)`` in any unit, of at least 4 frames.
        kind: ``"bulk"``, of the normal scores of the ranks; ``"tail"``, the smaller of those of the 5 % and the 95 %
            quantile; ``"mean"``, of the draws as they are, which is what the error of a mean needs.
        dims: the dimensions of frame and chain where they are not (0, 1).

    Returns:
        fp64 ``(...)``. NaN for an element that holds a NaN. S for a constant one, as ArviZ has it, which
        takes a range below 1e-15 for none: ask R-hat, NaN there, whether a chain moves at all.

    Raises:
        TypeError, ValueError: the trajectory is no float tensor, or has too few frames; the kind is unknown.
    """
    checked = check_trajectory(trajectory, dims)
    check_choice("kind", kind, get_args(Kind))
    return by_element(checked, {"bulk": _bulk, "tail": _tail, "mean": _mean}[kind])


def mcse(trajectory: Tensor, *, kind: Of = "mean", dims: Dims | None = None) -> Tensor:
    """Monte Carlo standard error of the mean, or of the standard deviation, of every element of the state.

    The mean's is sd / sqrt(ESS). The standard deviation's is that of the squared distances from the mean, of their own
    ESS, by the delta method: sqrt(var(d^2) / ESS(d^2)) / (2 sd).

    Args:
        trajectory: ``(F, B, ...)`` of at least 4 frames.
        kind: ``"mean"`` or ``"sd"``.
        dims: the dimensions of frame and chain where they are not (0, 1).

    Returns:
        fp64 ``(...)``, in the unit of the state. It is the error of a chain that has forgotten its start, about the
        mean of the law that it samples, which for an unadjusted chain is not quite the law that was asked for.

    Raises:
        TypeError, ValueError: the trajectory is no float tensor, or has too few frames; the kind is unknown.
    """
    checked = check_trajectory(trajectory, dims)
    check_choice("kind", kind, get_args(Of))
    return by_element(checked, _error_of_mean if kind == "mean" else _error_of_sd)


def integrated_autocorrelation_time(trajectory: Tensor, *, dims: Dims | None = None) -> Tensor:
    """Frames for one independent draw, tau = 1 + 2 (sum of autocorrelations), of every element of the state.

    It is S / ``ess(trajectory, kind="mean")``; below 1 where draws are antithetic, at least 1 / log10(S).

    Args:
        trajectory: ``(F, B, ...)`` of at least 4 frames.
        dims: the dimensions of frame and chain where they are not (0, 1).

    Returns:
        fp64 ``(...)``, in frames: times k for updates, where the chain was kept with ``trajectory=k``. NaN for an
        element that holds a NaN, 1 for a constant one.

    Raises:
        TypeError, ValueError: the trajectory is no float tensor, or has too few frames.
    """
    return by_element(check_trajectory(trajectory, dims), lambda draws: _time(split(draws)))


def _size(halves: Tensor) -> Tensor:
    return halves[0].numel() / _time(halves)


def _mean(draws: Tensor) -> Tensor:
    return _size(split(draws))


def _bulk(draws: Tensor) -> Tensor:
    return _size(normal_scores(split(draws)))


def _tail(draws: Tensor) -> Tensor:
    # A draw is at most the quantile between two order statistics where it is at most the lower one: no interpolation,
    # and whole numbers say which that is, where rounding 0.95 could take the next.
    quantiles = [order_statistic(draws, share * (draws[0].numel() - 1) // 100) for share in TAILS]
    missing = draws.isnan()
    sizes = [_mean((draws <= quantile).double().masked_fill_(missing, torch.nan)) for quantile in quantiles]
    return torch.minimum(*sizes)


def _error_of_mean(draws: Tensor) -> Tensor:
    return (variance(draws.flatten(1)) / _mean(draws)).sqrt()


def _error_of_sd(draws: Tensor) -> Tensor:
    squares = centred(draws.flatten(1))[1].square_()
    mean = squares.mean(1)
    spread = squares.square().mean(1) - mean**2
    return (spread / _mean(squares.reshape(draws.shape)) / mean).sqrt() / 2


def _time(chains: Tensor) -> Tensor:
    """tau of ``(E, chains, n)`` as ``(E,)``, with two chains or more."""
    n = chains.shape[-1]
    constant = chains.amax((1, 2)) - chains.amin((1, 2)) == 0
    means, left = centred(chains)
    # Autocorrelations of lags 2k and 2k + 1 make pair k. The last lag is not used, as in ArviZ.
    last = max(0, (n - 3) // 2)
    covariances = autocovariance(left, 2 * last + 1)
    del left
    within = covariances[:, :1] * (n / (n - 1))
    correlations = 1 - (within - covariances) / (covariances[:, :1] + variance(means)[:, None])
    correlations[:, 0] = 1
    tau = monotone_sum(correlations).clamp_min(1 / math.log10(chains[0].numel()))
    tau = tau.masked_fill(correlations.isnan().any(1), torch.nan)
    return tau.masked_fill(constant, 1.0)


def monotone_sum(correlations: Tensor) -> Tensor:
    """1 + 2 (sum of autocorrelations) over Geyer's initial monotone sequence, before any bound.

    Sums of neighbours are positive and fall for a reversible chain: the sequence ends before the first that is not
    positive, and none is taken as larger than one before it. Of the pair after the end the even lag is taken once
    where it is positive, an improvement of Stan's for antithetic chains.
    """
    pairs = correlations.unflatten(1, (-1, 2)).sum(-1)
    last = pairs.shape[1] - 1
    end = (pairs > 0).long().cumprod(1).sum(1).clamp_max(last)[:, None]
    before = torch.arange(last + 1, dtype=torch.int64, device=pairs.device) < end
    total = torch.where(before, pairs.cummin(1).values, 0.0).sum(1)
    even, pair = correlations.gather(1, 2 * end)[:, 0], pairs.gather(1, end)[:, 0]
    return 2 * total - 1 + torch.where((even > 0) | (pair >= 0), even, 0.0)
