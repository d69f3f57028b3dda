"""Annealed Langevin dynamics on a Gaussian, whose law is known after every step, and wrong versions of it.

On N(MU, S^2) with the exact perturbed score -(x - MU)/(S^2 + sigma_i^2) every update is affine, so mean and variance of
every step are known in closed form. Statistics are given in standard errors; one is accepted below ``LIMIT``.
"""

import contextlib
import math

import pytest
import torch

import fastlangevin as fl
from fastlangevin import rules
from fastlangevin.noise import Purpose
from fastlangevin.samplers import one_by_one
from tests.long.law import EPSILON, LADDER, LIMIT, MU, STEPS, VARIANCES, exact_law, score

__all__ = ["EPSILON", "LADDER", "LIMIT", "MU", "STEPS", "VARIANCES", "exact_law", "score"]


def next_level_score(x, labels):
    return score(x, (labels + 1).clamp_max(len(LADDER) - 1))


def law_scores(x, mean, variance):
    """Of a state: its mean, its variance, the correlation of neighbouring samples, in standard errors."""
    x = x.double() - mean
    n = x.numel()
    pairs = x[::2] * x[1::2]
    return {
        "mean": float(x.mean() / math.sqrt(variance / n)),
        # The initial state is uniform, of less kurtosis than a Gaussian: the standard error is an upper bound.
        "variance": float(((x**2).mean() / variance - 1) / math.sqrt(2 / n)),
        "neighbours": float(pairs.mean() / variance * math.sqrt(pairs.numel())),
    }


# Mistakes: ``change(x, score, options)`` is given what an update is called with, may change the options, and returns
# the score to use.


def noise_times(factor):
    def change(x, value, options):
        options["b"] *= factor
        return value

    return change


def drift_times(factor):
    def change(x, value, options):
        return value * factor

    return change


def same_noise_every_step(steps):
    def change(x, value, options):
        options["draw"] -= options["draw"] % steps
        return value

    return change


def same_noise_every_level(steps):
    def change(x, value, options):
        options["draw"] %= steps
        return value

    return change


def ids_by(number_of):
    """Sample ids that are a function of the place in the batch."""

    def change(x, value, options):
        options["sample_ids"] = number_of(torch.arange(len(x)))
        options["sample_offset"] = 0
        return value

    return change


def noise_made(make):
    """Noise that is ``make(z, uniform)`` in the place of z, both at the address of the update."""

    def change(x, value, options):
        place = {name: options[name] for name in ("seed", "draw", "sample_ids", "sample_offset")}
        z = fl.randn(x.shape, purpose=Purpose.LANGEVIN, **place)
        options["noise"] = make(z, lambda: fl.rand(x.shape, purpose=Purpose.USER, **place))
        options["seed"] = None
        return value

    return change


def a_quarter_used_again():
    """A quarter of the elements take the noise that others had in the step before, kept in a buffer."""
    buffer = None

    def make(z, uniform):
        nonlocal buffer
        quarter = z.shape[1] // 4
        used = z.clone()
        if buffer is not None:
            used[:, :quarter] = buffer[:, quarter : 2 * quarter]
        buffer = z
        return used

    return noise_made(make)


def scaled_uniform(z, uniform):
    return (uniform() - 0.5) * math.sqrt(12)


def clipped(z, uniform):
    return z.clamp(-3.5, 3.5)


def linear_in_sigma(ladder, epsilon):
    return [rules.langevin(epsilon * sigma / ladder[-1]) for sigma in ladder]


def half_the_step(ladder, epsilon):
    return [rules.langevin(epsilon / 2 * (sigma / ladder[-1]) ** 2) for sigma in ladder]


def twice_the_step(ladder, epsilon):
    """The paper's rule with the published code's number."""
    return [rules.langevin(2 * epsilon * (sigma / ladder[-1]) ** 2) for sigma in ladder]


def reversed_levels(ladder, epsilon):
    return [rules.langevin(epsilon * (sigma / ladder[-1]) ** 2) for sigma in ladder[::-1]]


def to_bfloat16(x):
    return x.copy_(x.bfloat16())


@contextlib.contextmanager
def mistaken(change=None, rule=None, after=None):
    """The samplers with a mistake: in what updates are called with, in the rules, in the state after each update."""
    real = one_by_one.step_

    def update(x, value, **options):
        if change is not None:
            value = change(x, value, options)
        real(x, value, **options)
        return x if after is None else after(x)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(one_by_one, "step_", update)
        if rule is not None:
            patch.setattr(rules, "annealed", lambda ladder, epsilon, corrector, temperature: rule(ladder, epsilon))
        yield
