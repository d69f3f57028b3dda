"""Langevin dynamics as a table: at one level, and annealed over a ladder."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from fastlangevin import rules
from fastlangevin.ladders import Sigmas, check_sigmas, per_level
from fastlangevin.noise import MAX_DRAW, STREAM_VERSION, integer
from fastlangevin.rules import Corrector
from fastlangevin.schemes.by_level import ByLevel, denoising, exploding
from fastlangevin.schemes.scheme import Scheme, check_draws
from fastlangevin.schemes.table import Evaluate

__all__ = ["annealed_langevin", "langevin"]

Number = float | Sequence[float]


def langevin(
    *, steps: int, epsilon: float | None = None, step_lr: float | None = None, temperature: float = 1.0
) -> Scheme:
    """Unadjusted Langevin dynamics (Song and Ermon 2019, equation 4): x + epsilon/2 score(x) + sqrt(epsilon) z.

    On a Gaussian of variance v it converges to the variance v / (1 - epsilon/(4v)), for epsilon < 4v.

    Args:
        steps: updates.
        epsilon: the paper's step size.
        step_lr: the published code's, x + step_lr score + sqrt(2 step_lr) z. Exactly one of the two must be given.
        temperature: factor on the variance of the noise.

    Returns:
        A scheme whose score is called with the state alone.

    Raises:
        TypeError, ValueError: an argument is of the wrong kind or out of range.
    """
    size = rules.step_size(epsilon, step_lr)
    total = integer("steps", steps, 0, MAX_DRAW + 1)
    make = ByLevel([rules.langevin(size, temperature)], [Evaluate()], max(total, 1))
    record: dict[str, Any] = {"sampler": "langevin", "stream": STREAM_VERSION, "epsilon": size, "steps": total}
    if temperature != 1.0:
        record["temperature"] = float(temperature)
    return Scheme("langevin", make, total, [], record, takes="nothing", spread=0.0)


def annealed_langevin(
    sigmas: Sigmas,
    *,
    epsilon: Number | None = None,
    step_lr: Number | None = None,
    steps_per_level: int | Sequence[int] = 100,
    corrector: Corrector = "langevin",
    temperature: Number = 1.0,
    first_level: int = 0,
    denoise: bool = False,
) -> Scheme:
    """Annealed Langevin dynamics (Song and Ermon 2019, Algorithm 1).

    For each noise level in turn, updates x + alpha_i/2 score(x, i) + sqrt(alpha_i) z with
    alpha_i = epsilon sigma_i^2 / sigma_L^2.

    Args:
        sigmas: noise levels in units of the data, largest first.
        epsilon: the paper's step size at the last level; or one number for each level.
        step_lr: the published code's, equal to epsilon/2. Exactly one of the two must be given.
        steps_per_level: updates for each noise level, T; or a number of updates for each level.
        corrector: ``"langevin"`` or ``"ou"``, see :func:`fastlangevin.rules.annealed`.
        temperature: factor on the variance of the noise; or one number for each level.
        first_level: the level that the chain begins at; those above it are left out.
        denoise: end with x + sigma_L^2 score(x, L-1), the step to the posterior mean.

    Returns:
        The scheme. Its score is called with the labels of the whole ladder.

    Raises:
        TypeError, ValueError: an argument is of the wrong kind or out of range, or a list has not one entry for each
            level.
    """
    ladder = check_sigmas(sigmas)
    count = len(ladder)
    first = integer("first_level", first_level, 0, count - 1)
    repeats = [
        integer("steps_per_level", each, 1, 2**31) for each in per_level("steps_per_level", steps_per_level, count)
    ]
    pairs = zip(per_level("epsilon", epsilon, count), per_level("step_lr", step_lr, count), strict=True)
    sizes = [rules.step_size(*pair) for pair in pairs]
    heats = per_level("temperature", temperature, count)
    made = rules.annealed(ladder, sizes, corrector, heats)
    same = len(set(repeats)) == 1  # then a step's level is a division
    make = ByLevel(made[first:], exploding(ladder)[first:], repeats[0] if same else repeats[first:])
    record = {
        "sampler": "annealed_langevin",
        "stream": STREAM_VERSION,
        "sigmas": ladder,
        "epsilon": _one_or_all(sizes),
        "steps_per_level": _one_or_all(repeats),
        "corrector": corrector,
        "denoise": bool(denoise),
    }
    if any(heat != 1.0 for heat in heats):
        record["temperature"] = _one_or_all(list(map(float, heats)))
    if first:
        record["first_level"] = first
    last = denoising(ladder) if denoise else None
    total = check_draws(make.total)
    return Scheme("annealed_langevin", make, total, ladder, record, spread=ladder[first], denoise=last)


def _one_or_all(entries: list[Any]) -> Any:
    """The entries of all levels, or the one that they all are."""
    return entries[0] if len(set(entries)) == 1 else entries
