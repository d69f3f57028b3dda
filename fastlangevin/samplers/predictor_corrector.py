"""Predictor-corrector sampling of the variance exploding process: ``predictor_corrector``."""

from __future__ import annotations

from typing import Any, Literal, Unpack, get_args, overload

from torch import Tensor

from fastlangevin import rules
from fastlangevin.ladders import Sigmas, check_sigmas
from fastlangevin.noise import STREAM_VERSION, integer
from fastlangevin.rules import Coefficients, SignalNorm
from fastlangevin.samplers.chain import SamplingResult
from fastlangevin.samplers.labelled import Score, check_score, run_labelled
from fastlangevin.samplers.options import DEFAULTS, ChainOptions, complete, options_record, takes
from fastlangevin.samplers.plan import Move, Plan, check_draws
from fastlangevin.samplers.signal import SignalToNoise

__all__ = ["predictor_corrector"]

Predictor = Literal["reverse_diffusion", "ancestral", "euler_maruyama", "probability_flow", "none"]
PREDICTORS = {
    "reverse_diffusion": rules.ve_reverse_diffusion,
    "ancestral": rules.ve_ancestral,
    "euler_maruyama": rules.ve_euler_maruyama,
    "probability_flow": rules.ve_probability_flow,
}


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
    check_score(score)
    ladder = check_sigmas(sigmas)
    if predictor not in get_args(Predictor):
        raise ValueError(f"predictor must be one of {', '.join(get_args(Predictor))}, got {predictor!r}")
    corrections = integer("corrector_steps", corrector_steps, 0, 2**31)
    if predictor == "none" and not corrections:
        raise ValueError("predictor='none' with corrector_steps=0 leaves nothing to do; give one of the two")
    signal = SignalToNoise(snr, norm)
    chosen = complete(options, ChainOptions)
    if chosen["order"] != "score":
        raise ValueError("predictor_corrector has order='score' alone: its step size follows from the score")
    record = {
        "sampler": "predictor_corrector",
        "stream": STREAM_VERSION,
        "sigmas": ladder,
        "snr": signal.snr,
        "predictor": predictor,
        "corrector_steps": corrections,
        "norm": norm,
        "denoise": bool(denoise),
        **options_record(chosen),
    }
    predictions = [] if predictor == "none" else PREDICTORS[predictor](ladder)
    each = corrections + (predictor != "none")
    total = check_draws(each * len(ladder))
    last = None
    if denoise:
        total -= predictor != "none"
        last = Move(rules.denoise(ladder[-1]), len(ladder) - 1)

    def move(index: int) -> Move:
        level, turn = divmod(index, each)
        rule: Coefficients | SignalToNoise = signal if turn < corrections else predictions[level]
        return Move(rule, level)

    return run_labelled(score, Plan(move, total, last, record, ladder), chosen)
