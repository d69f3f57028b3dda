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
from fastlangevin.kernels.address import Term
from fastlangevin.noise import Purpose
from fastlangevin.ops import quick
from fastlangevin.samplers import stepping
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


# Mistakes: ``change(update)`` is given the update that is made, and returns the one to make.


def noise_times(factor):
    return lambda update: update._replace(b=update.b * factor)


def drift_times(factor):
    def change(update):
        state, (a, score) = update.terms
        return update._replace(terms=(state, Term(a, score * factor)))

    return change


def at(update, **changes):
    return update._replace(address=update.address._replace(**changes))


def same_noise_every_step(steps):
    return lambda update: at(update, draw=update.address.draw - update.address.draw % steps)


def same_noise_every_level(steps):
    return lambda update: at(update, draw=update.address.draw % steps)


def ids_by(number_of):
    """Sample ids that are a function of the place in the batch."""
    return lambda update: at(update, sample_ids=number_of(torch.arange(len(update.state))), sample_offset=0)


def noise_made(make):
    """Noise that is ``make(z, uniform)`` in the place of z, both at the address of the update."""

    def change(update):
        place = update.address._asdict()
        shape = update.state.shape
        z = fl.randn(shape, **place)
        return update._replace(noise=make(z, lambda: fl.rand(shape, **{**place, "purpose": Purpose.USER})))

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
    """The samplers with a mistake: in the updates, in the rules, in the state after each update."""
    real = stepping.move

    def move(update, impl, out):
        real(update if change is None else change(update), impl, out)
        return out if after is None else after(out)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(stepping, "move", move)
        patch.setattr(quick, "step", lambda *arguments, **options: None)
        if rule is not None:
            patch.setattr(rules, "annealed", lambda ladder, epsilon, *others: rule(ladder, epsilon[0]))
        yield
