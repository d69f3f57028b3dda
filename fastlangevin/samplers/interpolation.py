"""Interpolation between samples: annealed Langevin dynamics with shared noise (Song and Ermon 2020)."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any, Literal, Unpack, overload

import torch
from torch import Tensor

from fastlangevin.noise import Purpose, integer, resolve_sample_ids, resolve_seed
from fastlangevin.ops import rand, randn
from fastlangevin.rules import Corrector
from fastlangevin.samplers.annealed import annealed_plan
from fastlangevin.samplers.chain import ChainState, SamplingResult
from fastlangevin.samplers.labelled import run_labelled
from fastlangevin.samplers.options import ChainOptions, Options, check_callable
from fastlangevin.schedules import Sigmas
from fastlangevin.scores import ScoreFunction

__all__ = ["interpolation"]


@overload
def interpolation(
    score: ScoreFunction, sigmas: Sigmas, *, full_output: Literal[False] = False, **options: Any
) -> Tensor: ...
@overload
def interpolation(
    score: ScoreFunction, sigmas: Sigmas, *, full_output: Literal[True], **options: Any
) -> SamplingResult: ...
def interpolation(  # type: ignore[misc]  # the overloads name only what changes the result
    score: ScoreFunction,
    sigmas: Sigmas,
    *,
    points: int,
    epsilon: float | None = None,
    step_lr: float | None = None,
    steps_per_level: int = 100,
    corrector: Corrector = "langevin",
    temperature: float = 1.0,
    denoise: bool = False,
    full_output: bool = False,
    **options: Unpack[ChainOptions],
) -> Tensor | SamplingResult:
    """Rows of samples that go over into each other.

    All ``points`` samples of a row begin in one state, and sample k of it has the noise cos(phi_k) p + sin(phi_k) q,
    phi_k from 0 to pi/2, p and q being the noise of two sample ids. So the first sample of row r is that of the id 2r,
    and the last follows the noise of 2r + 1 from the same beginning.

    Args:
        score: as for :func:`fastlangevin.annealed_langevin`; it sees ``(rows * points, ...)``.
        sigmas, epsilon, step_lr, steps_per_level, corrector, temperature, denoise: as there.
        points: samples in each row, at least 2.
        full_output: return a :class:`SamplingResult`.
        options: as there, where ``shape`` is ``(rows, ...)`` and ``sample_offset`` the number of the first row. Neither
            ``init`` as a tensor nor ``sample_ids``, ``resume`` or a seed for each sample.

    Returns:
        ``(rows * points, ...)``, the points of a row neighbours; or a :class:`SamplingResult` of it.

    Raises:
        TypeError, ValueError: an argument is of the wrong kind or out of range.
    """
    check_callable("score", score, "score(x, labels)")
    count = integer("points", points, 2, 2**20)
    chosen = Options(full_output=full_output, **options)
    for name in ("sample_ids", "resume"):
        if getattr(chosen, name) is not None:
            raise ValueError(f"interpolation takes no {name}=: its rows are numbered from sample_offset= on")
    if isinstance(chosen.init, Tensor):
        raise ValueError("interpolation begins at init='uniform' or 'normal', the same state for all points of a row")
    plan = annealed_plan(
        "interpolation", sigmas, epsilon, step_lr, steps_per_level, corrector, temperature, denoise, chosen
    )
    if chosen.shape is None:
        raise ValueError("give shape=, (rows, ...) such as shape=(4, 3, 32, 32)")
    rows, *rest = chosen.shape
    device = torch.empty(0, device=chosen.device).device
    _, offset = resolve_sample_ids(None, chosen.sample_offset, rows, device)
    seed = resolve_seed(chosen.seed, chosen.generator, rows, device)
    if isinstance(seed, Tensor) and seed.ndim:
        raise ValueError("interpolation takes one seed: two samples of a row share what they draw")
    first = 2 * (offset + torch.arange(rows, device=device))
    make = rand if chosen.init == "uniform" else randn
    begun = make(
        (rows, *rest),
        seed=seed,
        purpose=Purpose.INITIAL_STATE,
        sample_ids=first,
        dtype=chosen.dtype,
        device=device,
        impl=chosen.impl,
    )
    if chosen.init == "normal":
        begun.mul_(plan.ladder[0])
    angle = torch.linspace(0, math.pi / 2, count, dtype=torch.float64)
    cosine, sine = (each.to(device, torch.float32).view(1, -1, *[1] * len(rest)) for each in (angle.cos(), angle.sin()))

    def noise(start: ChainState) -> Callable[[int], Tensor]:
        def draw(index: int) -> Tensor:
            p, q = (
                randn(
                    (rows, *rest),
                    seed=seed,
                    draw=index,
                    purpose=Purpose.LANGEVIN,
                    sample_ids=ids,
                    device=device,
                    impl=chosen.impl,
                )
                for ids in (first, first + 1)
            )
            return (cosine * p[:, None] + sine * q[:, None]).flatten(0, 1).to(chosen.dtype)

        return draw

    init = begun.repeat_interleave(count, 0)
    plan = plan._replace(noise=noise, record={**plan.record, "points": count})
    started = replace(chosen, init=init, shape=None, seed=seed, generator=None, sample_offset=offset)
    return run_labelled(score, plan, started)
