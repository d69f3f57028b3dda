"""The exact law of a table on Gaussian data: its mean and variance, step by step.

The score of N(m, v) perturbed to alpha x_0 + sigma z is -(x - alpha m)/(alpha^2 v + sigma^2), so every row is affine
in what the slots hold and in the step's draws. A step maps the carried slots u and its draws d to A u + B d + k. The
mean M and the covariance C of u become A M + k and A C A^T + B B^T.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np

from fastlangevin.schemes.table import Apply, Clamp, Evaluate, Measure, Step
from fastlangevin.values import shown

__all__ = ["Affine", "Law", "affine", "follow"]

Array = np.ndarray


class Law(NamedTuple):
    """The law of the elements of a state, which are independent.

    Attributes:
        mean: in units of the data, of the shape that was given.
        variance: in units of the data squared, likewise.
    """

    mean: float | Array
    variance: float | Array


class Affine(NamedTuple):
    """A step as a map of n carried slots, whose elements have the shape ``*E``.

    Attributes:
        matrix: A, ``(n, n, *E)``.
        noise: B B^T, ``(n, n, *E)``.
        constant: k, ``(n, *E)``.
    """

    matrix: Array
    noise: Array
    constant: Array


class _Held(NamedTuple):
    """A slot as an affine map: weights of the carried slots and of the step's draws, and a constant."""

    carried: Array
    draws: Array
    constant: Array


def affine(step: Step, carries: Sequence[str], draws: int, data: Law) -> Affine:
    """A step on data N(mean, variance).

    Args:
        step: the step.
        carries: names of the slots that are kept between steps.
        draws: how many draws a step has.
        data: the law of the data, float64 arrays of one shape.

    Raises:
        ValueError: a row is not linear, or the score does not exist.
    """
    mean, variance = map(np.asarray, data)
    shape = mean.shape
    count = len(carries)
    held = {}
    for place, name in enumerate(carries):
        carried = np.zeros((count, *shape))
        carried[place] = 1.0
        held[name] = _Held(carried, np.zeros((draws, *shape)), np.zeros(shape))
    for row in step.rows:
        if isinstance(row, Clamp):
            raise ValueError(f"law needs linear rows, but the clamp of {row.slot!r} is not linear; leave clamp= out")
        if isinstance(row, Apply):
            raise ValueError(f"law needs linear rows, but {row.name} is a function of the state")
        if isinstance(row, Measure):
            raise ValueError(
                "law needs linear rows, but the step size of a Measure is measured from the score; take a corrector of "
                "fixed step sizes, such as annealed Langevin dynamics"
            )
        if row.evaluate is not None:
            held[row.evaluate.into] = _scored(held[row.evaluate.slot], row.evaluate, mean, variance)
        total = _combined([(a, held[slot]) for slot, a in row.terms.items()])
        if row.b is not None:
            total.draws[row.draw] += row.b
        held[row.out] = total
    kept = [held[name] for name in carries]
    matrix = np.stack([each.carried for each in kept])
    noise = np.stack([each.draws for each in kept])
    constant = np.stack([each.constant for each in kept])
    return Affine(matrix, np.einsum("id...,jd...->ij...", noise, noise), constant)


def _combined(terms: list[tuple[float, _Held]]) -> _Held:
    (first, slot), *others = terms
    total = _Held(first * slot.carried, first * slot.draws, first * slot.constant)
    for a, (carried, draws, constant) in others:
        total = _Held(total.carried + a * carried, total.draws + a * draws, total.constant + a * constant)
    return total


def _scored(slot: _Held, evaluate: Evaluate, mean: Array, variance: Array) -> _Held:
    """The result of an exact network for a slot, which holds perturbed data."""
    alpha, sigma = evaluate.alpha, evaluate.sigma
    score = _score(slot, evaluate, mean, variance)
    if evaluate.output == "denoised":
        return _combined([(1 / alpha, slot), (sigma**2 / alpha, score)])
    return _combined([({"score": 1.0, "scaled": sigma, "noise": -sigma}[evaluate.output], score)])


def _score(slot: _Held, evaluate: Evaluate, mean: Array, variance: Array) -> _Held:
    spread = evaluate.alpha**2 * variance + evaluate.sigma**2
    if not np.all(spread > 0):
        raise ValueError(
            f"variance must be above zero at sigma = {evaluate.sigma}: the score of a single point is not defined "
            f"there, got {shown(variance.tolist())}"
        )
    return _Held(-slot.carried / spread, -slot.draws / spread, (evaluate.alpha * mean - slot.constant) / spread)


def follow(first: Law, maps: Iterable[tuple[Affine, int]], carries: int, full: bool) -> Law:
    """The law of the first carried slot after all steps, or with ``full`` after each.

    Args:
        first: of that slot at the beginning, arrays of the shape ``*E``; the others are not set.
        maps: each step, and how often it is made.
        carries: how many slots are carried.
        full: whether the law after every step is wanted.
    """
    if carries == 1:
        return _follow_one(first, maps, full)
    shape = np.shape(first.mean)
    mean, covariance = np.zeros((carries, *shape)), np.zeros((carries, carries, *shape))
    mean[0], covariance[0, 0] = first
    means, variances = [mean[0]], [covariance[0, 0]]
    for step, times in maps:
        for _ in range(times):
            mean = np.einsum("ij...,j...->i...", step.matrix, mean) + step.constant
            covariance = np.einsum("ij...,jk...,lk...->il...", step.matrix, covariance, step.matrix) + step.noise
            if full:
                means.append(mean[0])
                variances.append(covariance[0, 0])
    return Law(np.stack(means), np.stack(variances)) if full else Law(mean[0], covariance[0, 0])


def _follow_one(first: Law, maps: Iterable[tuple[Affine, int]], full: bool) -> Law:
    """:func:`follow` of one slot, in Python's numbers if it has one element: 1,000 levels of 100 steps take no time."""
    single = np.ndim(first.mean) == 0
    mean, variance = (float(each) if single else each for each in first)
    means, variances = [mean], [variance]
    for step, times in maps:
        a, square, noise, constant = step.matrix[0, 0], step.matrix[0, 0] ** 2, step.noise[0, 0], step.constant[0]
        if single:
            a, square, noise, constant = map(float, (a, square, noise, constant))
        for _ in range(times):
            mean = a * mean + constant
            variance = square * variance + noise
            if full:
                means.append(mean)
                variances.append(variance)
    return Law(np.array(means), np.array(variances)) if full else Law(mean, variance)
