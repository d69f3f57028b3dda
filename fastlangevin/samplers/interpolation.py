"""Interpolation between samples: annealed Langevin dynamics with shared noise (Song and Ermon 2020)."""

from __future__ import annotations

from typing import Any, Literal, Unpack, overload

from torch import Tensor

from fastlangevin import schemes
from fastlangevin.ladders import Sigmas
from fastlangevin.rules import Corrector
from fastlangevin.samplers.calls import Score
from fastlangevin.samplers.chain import SamplingResult
from fastlangevin.samplers.options import DEFAULTS, ChainOptions, complete, takes
from fastlangevin.samplers.sample import run

__all__ = ["interpolation"]


@overload
def interpolation(score: Score, sigmas: Sigmas, *, full_output: Literal[False] = False, **options: Any) -> Tensor: ...
@overload
def interpolation(score: Score, sigmas: Sigmas, *, full_output: Literal[True], **options: Any) -> SamplingResult: ...
@takes(ChainOptions, DEFAULTS)  # type: ignore[misc]  # the overloads name only what changes the result
def interpolation(
    score: Score,
    sigmas: Sigmas,
    *,
    points: int,
    epsilon: float | None = None,
    step_lr: float | None = None,
    steps_per_level: int = 100,
    corrector: Corrector = "langevin",
    temperature: float = 1.0,
    denoise: bool = False,
    **options: Unpack[ChainOptions],
) -> Tensor | SamplingResult:
    """Rows of samples that change gradually from one to another.

    All ``points`` samples of a row begin in one state, and sample k of it has the noise cos(phi_k) p + sin(phi_k) q,
    phi_k from 0 to pi/2, p and q being the noise of two sample ids. So the first sample of row r is that of the id 2r,
    and the last follows the noise of 2r + 1 from the same beginning. The noise of an ``inpainting=`` is each sample's
    own, by its number ``points * r + k``.

    Here ``shape``, or ``init`` as a tensor, is ``(rows, ...)``, and ``sample_offset`` is the number of the first row.
    Neither ``sample_ids`` nor ``resume`` nor a seed for each sample can be given.

    Args:
        score: as for :func:`fastlangevin.annealed_langevin`; it sees ``(rows * points, ...)``.
        sigmas, epsilon, step_lr, steps_per_level, corrector, temperature, denoise: as there.
        points: samples in each row, at least 2.
        options: those of :class:`fastlangevin.samplers.ChainOptions`.

    Returns:
        ``(rows * points, ...)``, the points of a row neighbours; or a :class:`SamplingResult` of it.

    Raises:
        TypeError, ValueError: an argument is of the wrong kind or out of range.
        NonFiniteError: a state is not finite, with ``non_finite="raise"``.
    """
    chosen = complete(options, ChainOptions)
    scheme = schemes.annealed_langevin(
        sigmas,
        epsilon=epsilon,
        step_lr=step_lr,
        steps_per_level=steps_per_level,
        corrector=corrector,
        temperature=temperature,
        denoise=denoise,
    ).interpolating(points)
    record = {**scheme.record, "sampler": "interpolation"}
    return run(score, scheme._replace(name="interpolation", record=record), chosen)
