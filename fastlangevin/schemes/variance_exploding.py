"""Predictors of variance exploding noise as tables, alone and with a corrector."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, get_args

from fastlangevin import rules
from fastlangevin.ladders import Sigmas, check_sigmas
from fastlangevin.noise import STREAM_VERSION, integer
from fastlangevin.rules import Coefficients, SignalNorm
from fastlangevin.rules.variance_exploding import without_zero
from fastlangevin.schemes.by_level import ByLevel, denoising, exploding
from fastlangevin.schemes.scheme import Scheme, check_draws
from fastlangevin.schemes.table import Evaluate, Measure, Step, step_of

__all__ = [
    "Predictor",
    "ancestral",
    "euler_ancestral",
    "euler_maruyama",
    "predictor_corrector",
    "probability_flow",
    "reverse_diffusion",
]

Predictor = Literal["reverse_diffusion", "ancestral", "euler_maruyama", "probability_flow", "none"]
PREDICTORS = {
    "reverse_diffusion": rules.ve_reverse_diffusion,
    "ancestral": rules.ve_ancestral,
    "euler_maruyama": rules.ve_euler_maruyama,
    "probability_flow": rules.ve_probability_flow,
}


def _predicted(name: str, ladder: list[float], made: list[Coefficients], denoise: bool, **record: Any) -> Scheme:
    """One update a level; the denoise step takes the place of the last."""
    make = ByLevel(made, exploding(ladder), 1)
    record = {"sampler": name, "stream": STREAM_VERSION, "sigmas": ladder, **record, "denoise": bool(denoise)}
    last = denoising(ladder) if denoise else None
    return Scheme(name, make, make.total - bool(denoise), ladder, record, spread=ladder[0], denoise=last)


def reverse_diffusion(sigmas: Sigmas, *, denoise: bool = False) -> Scheme:
    """Reverse diffusion, variance exploding (Song et al. 2021, appendix E).

    The coefficients are those of :func:`fastlangevin.rules.ve_reverse_diffusion`.

    Args:
        sigmas: noise levels in units of the data, largest first.
        denoise: end with the step to the posterior mean in place of the last update, which is the same without its
            noise.

    Returns:
        The scheme.

    Raises:
        TypeError, ValueError: ``sigmas`` does not descend.
    """
    ladder = check_sigmas(sigmas)
    return _predicted("reverse_diffusion", ladder, rules.ve_reverse_diffusion(ladder), denoise)


def ancestral(sigmas: Sigmas, *, denoise: bool = False) -> Scheme:
    """Ancestral sampling, variance exploding (Song et al. 2021, appendix F): :func:`fastlangevin.rules.ve_ancestral`.

    Args:
        sigmas: noise levels in units of the data, largest first.
        denoise: as for :func:`reverse_diffusion`; the last update has no noise either way.

    Returns:
        The scheme.

    Raises:
        TypeError, ValueError: ``sigmas`` does not descend.
    """
    ladder = check_sigmas(sigmas)
    return _predicted("ancestral", ladder, rules.ve_ancestral(ladder), denoise)


def euler_maruyama(sigmas: Sigmas, *, denoise: bool = False) -> Scheme:
    """Euler-Maruyama, variance exploding (Song et al. 2021): :func:`fastlangevin.rules.ve_euler_maruyama`.

    Args:
        sigmas: a geometric ladder in units of the data, largest first.
        denoise: end with the step to the posterior mean in place of the last update.

    Returns:
        The scheme.

    Raises:
        TypeError, ValueError: ``sigmas`` does not descend or is not geometric.
    """
    ladder = check_sigmas(sigmas)
    return _predicted("euler_maruyama", ladder, rules.ve_euler_maruyama(ladder), denoise)


def probability_flow(sigmas: Sigmas, *, denoise: bool = False) -> Scheme:
    """Probability flow, variance exploding, by Euler steps in sigma^2: :func:`fastlangevin.rules.ve_probability_flow`.

    Args:
        sigmas: noise levels in units of the data, largest first.
        denoise: end with the step to the posterior mean in place of the last update, which is half of it.

    Returns:
        The scheme.

    Raises:
        TypeError, ValueError: ``sigmas`` does not descend.
    """
    ladder = check_sigmas(sigmas)
    return _predicted("probability_flow", ladder, rules.ve_probability_flow(ladder), denoise)


def euler_ancestral(sigmas: Sigmas, *, eta: float = 1.0, s_noise: float = 1.0) -> Scheme:
    """k-diffusion's ``sample_euler_ancestral``: :func:`fastlangevin.rules.euler_ancestral`.

    Args:
        sigmas: noise levels in units of the data, largest first.
        eta: share of the ancestral noise, zero or above; 0 is the Euler step of the probability flow in sigma.
        s_noise: factor of the noise, zero or above.

    Returns:
        The scheme.

    Raises:
        TypeError, ValueError: ``sigmas`` does not descend, or ``eta`` or ``s_noise`` is negative.
    """
    ladder = without_zero(sigmas, "sigmas")
    made = rules.euler_ancestral(ladder, eta, s_noise)
    return _predicted("euler_ancestral", ladder, made, False, eta=float(eta), s_noise=float(s_noise))


class _Turns:
    """At each level the corrector's steps, then the predictor's."""

    def __init__(
        self, signal: Measure, corrections: int, predictions: Sequence[Coefficients], evaluations: Sequence[Evaluate]
    ) -> None:
        self.signal = signal
        self.corrections = corrections
        self.predictions = predictions
        self.evaluations = evaluations
        self.each = corrections + bool(predictions)
        self.kept: tuple[int, Step] | None = None

    def __call__(self, number: int) -> Step:
        level, turn = divmod(number, self.each)
        evaluate = self.evaluations[level]
        if turn == self.corrections:
            return step_of(self.predictions[level], evaluate)
        if self.kept is not None:
            last, step = self.kept
            if last == level:
                return step
        row = Measure(self.signal.snr, self.signal.norm, self.signal.alpha, evaluate)
        self.kept = level, Step((row,), level)
        return self.kept[1]


def predictor_corrector(
    sigmas: Sigmas,
    *,
    snr: float,
    predictor: Predictor = "reverse_diffusion",
    corrector_steps: int = 1,
    norm: SignalNorm = "sample",
    denoise: bool = False,
) -> Scheme:
    """Predictor-corrector sampling (Song et al. 2021), variance exploding: at each level the corrector, then on.

    The corrector is Langevin dynamics whose step size follows from the signal-to-noise ratio; the predictor goes to the
    next level, and from the last to sigma = 0. Every corrector and predictor step has a draw number of its own.

    Args:
        sigmas: noise levels in units of the data, largest first.
        snr: the signal-to-noise ratio r of the corrector, above zero, typically 0.05 to 0.2.
        predictor: ``"reverse_diffusion"``, ``"ancestral"``, ``"euler_maruyama"`` (geometric ladders),
            ``"probability_flow"`` (no noise), or ``"none"``: the corrector alone.
        corrector_steps: corrector steps at each level, from 0.
        norm: whose norms decide the corrector's step: see :class:`Measure`.
        denoise: end with x + sigma_L^2 score(x, L-1) in the place of the last predictor step.

    Returns:
        The scheme.

    Raises:
        TypeError, ValueError: an argument is of the wrong kind or out of range.
    """
    ladder = check_sigmas(sigmas)
    if predictor not in get_args(Predictor):
        raise ValueError(f"predictor must be one of {', '.join(get_args(Predictor))}, got {predictor!r}")
    corrections = integer("corrector_steps", corrector_steps, 0, 2**31)
    if predictor == "none" and not corrections:
        raise ValueError("predictor='none' with corrector_steps=0 leaves nothing to do; give one of the two")
    signal = Measure(snr, norm)
    record = {
        "sampler": "predictor_corrector",
        "stream": STREAM_VERSION,
        "sigmas": ladder,
        "snr": signal.snr,
        "predictor": predictor,
        "corrector_steps": corrections,
        "norm": norm,
        "denoise": bool(denoise),
    }
    predictions = [] if predictor == "none" else PREDICTORS[predictor](ladder)
    make = _Turns(signal, corrections, predictions, exploding(ladder))
    total = check_draws(make.each * len(ladder)) - (bool(denoise) and predictor != "none")
    last = denoising(ladder) if denoise else None
    return Scheme("predictor_corrector", make, total, ladder, record, spread=ladder[0], denoise=last)
