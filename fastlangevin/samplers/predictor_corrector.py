"""Predictor-corrector sampling of the variance exploding process: ``predictor_corrector``."""

from __future__ import annotations

from typing import Any, Literal, Unpack, overload

from torch import Tensor

from fastlangevin import schemes
from fastlangevin.ladders import Sigmas
from fastlangevin.rules import SignalNorm
from fastlangevin.samplers.calls import Score
from fastlangevin.samplers.chain import SamplingResult
from fastlangevin.samplers.options import DEFAULTS, ChainOptions, complete, takes
from fastlangevin.samplers.sample import run
from fastlangevin.schemes.variance_exploding import Predictor

__all__ = ["predictor_corrector"]


@overload
def predictor_corrector(
    score: Score, sigmas: Sigmas, *, full_output: Literal[False] = False, **options: Any
) -> Tensor: ...
@overload
def predictor_corrector(
    score: Score, sigmas: Sigmas, *, full_output: Literal[True], **options: Any
) -> SamplingResult: ...
@takes(ChainOptions, DEFAULTS)  # type: ignore[misc]  # the overloads name only what changes the result
def predictor_corrector(
    score: Score,
    sigmas: Sigmas,
    *,
    snr: float,
    predictor: Predictor = "reverse_diffusion",
    corrector_steps: int = 1,
    norm: SignalNorm = "sample",
    denoise: bool = False,
    **options: Unpack[ChainOptions],
) -> Tensor | SamplingResult:
    """Predictor-corrector sampling (Song et al. 2021), variance exploding: at each level the corrector, then on.

    The corrector is Langevin dynamics whose step size follows from the signal-to-noise ratio; the predictor goes to the
    next level, and from the last to sigma = 0. Every corrector and predictor step has a draw number of its own.
    ``init="normal"`` is the prior of the process. ``shape`` or ``init`` must be given.

    Args:
        score: as for :func:`fastlangevin.annealed_langevin`.
        sigmas: noise levels in units of the data, largest first, such as those of
            :func:`fastlangevin.continuous_ve_sigmas`.
        snr: the signal-to-noise ratio r of the corrector, above zero, typically 0.05 to 0.2.
        predictor: ``"reverse_diffusion"``, ``"ancestral"``, ``"euler_maruyama"`` (geometric ladders),
            ``"probability_flow"`` (no noise), or ``"none"``: the corrector alone.
        corrector_steps: corrector steps at each level, from 0.
        norm: whose norms decide the corrector's step: ``"sample"``, each sample's own; ``"batch"``, their means over
            the batch, as it was published, so that a sample depends on its batch mates; ``"sqrt_d"``, each sample's
            score and sqrt(D) in place of the norm of the noise.
        denoise: end with x + sigma_L^2 score(x, L-1) in the place of the last predictor step: the same without
            its noise for ``"reverse_diffusion"`` and ``"ancestral"``, twice its size for ``"probability_flow"``.
        options: those of :class:`fastlangevin.samplers.ChainOptions`.

    Returns:
        The samples, or a :class:`SamplingResult` with ``full_output=True``.

    Raises:
        TypeError, ValueError: an argument is of the wrong kind or out of range.
        NonFiniteError: a state is not finite, with ``non_finite="raise"``.
    """
    chosen = complete(options, ChainOptions)
    scheme = schemes.predictor_corrector(
        sigmas, snr=snr, predictor=predictor, corrector_steps=corrector_steps, norm=norm, denoise=denoise
    )
    return run(score, scheme, chosen)
