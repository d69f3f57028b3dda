"""Autocovariances of chains by the fast Fourier transform, divided by the length (Geyer 1992)."""

from __future__ import annotations

from typing import Literal, get_args

import torch
from torch import Tensor

from fastlangevin.diagnostics.elements import Dims, by_element, centred, check_choice, check_trajectory
from fastlangevin.noise import integer

__all__ = ["autocorrelation", "autocovariance"]

Center = Literal["chain", "pooled"]


def autocorrelation(
    trajectory: Tensor,
    max_lag: int | None = None,
    *,
    keep_chains: bool = False,
    center: Center = "chain",
    dims: Dims | None = None,
) -> Tensor:
    """Autocorrelation of every element of the state, over all chains or chain by chain.

    The autocovariance at lag k is 1/F sum over t of (x_t - m)(x_{t+k} - m), of F - k terms: the normaliser is F for
    every lag, which makes it positive semidefinite and shrinks it by (F - k)/F; divide by that for an unbiased shape.
    The autocorrelation is the autocovariance over that of lag 0, both averaged over the chains first unless they are
    kept. A lag is one frame, k updates of a chain that was kept with ``trajectory=k``.

    Args:
        trajectory: ``(F, B, ...)`` in any unit, of at least 4 frames.
        max_lag: the largest lag, at most F - 1, which it is by default.
        keep_chains: give one for each chain.
        center: what m is: ``"chain"``, the mean of each chain, which takes about tau/F off every lag, tau being the
            integrated autocorrelation time; or ``"pooled"``, the mean of all, for many short chains of one law.
        dims: the dimensions of frame and chain where they are not (0, 1).

    Returns:
        fp64 ``(max_lag + 1, ...)`` or ``(max_lag + 1, B, ...)``, 1 at lag 0. NaN for what is constant or holds a NaN.

    Raises:
        TypeError, ValueError: the trajectory is no float tensor, or has too few frames; a lag is out of range.
    """
    checked = check_trajectory(trajectory, dims)
    longest = checked.shape[0] - 1
    lags = longest if max_lag is None else integer("max_lag", max_lag, 0, longest)
    check_choice("center", center, get_args(Center))

    def correlations(draws: Tensor) -> Tensor:
        if center == "pooled":
            left = centred(draws.flatten(1))[1].reshape(draws.shape)
        else:
            left = centred(draws)[1]
        covariances = autocovariance(left, lags, keep_chains=keep_chains)
        return (covariances / covariances[..., :1]).movedim((-1, 0), (0, -1))

    return by_element(checked, correlations)


def autocovariance(left: Tensor, lags: int, *, keep_chains: bool = False) -> Tensor:
    """Autocovariances of normaliser n at lags 0 to ``lags``, the mean over the chains unless they are kept.

    Args:
        left: fp64 ``(E, chains, n)`` without its mean.
        lags: the largest lag, below n.
        keep_chains: give one for each chain.

    Returns:
        ``(E, lags + 1)`` or ``(E, chains, lags + 1)``.
    """
    n = left.shape[-1]
    length = _fast_length(n + lags)  # zeros enough that no lag wraps
    spectrum = torch.fft.rfft(left, n=length)
    power = spectrum.real.square().addcmul_(spectrum.imag, spectrum.imag)
    del spectrum
    if not keep_chains:
        power = power.mean(1)  # the transform is linear: one is enough to go back
    covariances: Tensor = torch.fft.irfft(power, n=length)[..., : lags + 1] / n
    return covariances


def _fast_length(least: int) -> int:
    """The smallest product of twos, threes and fives that is not below ``least``."""
    best = 1 << (least - 1).bit_length()
    five = 1
    while five < best:
        three = five
        while three < best:
            best = min(best, three << max(0, (-(-least // three) - 1).bit_length()))
            three *= 3
        five *= 5
    return best
