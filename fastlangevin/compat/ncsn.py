"""Samplers and objectives with the signatures and defaults of ermongroup/ncsn (Song and Ermon 2019).

``scorenet(x, labels)`` returns the score itself; labels are int64 ``(B,)``, 0 for the largest sigma. What is different
from the published code, on purpose:

- The lists hold the states after the updates, as they are, so that the last is the sample. ``strict=True`` gives the
  published ones: clamped to [0, 1] and taken before each update, so that the last state is in none of them.
- They stay on the device of ``x_mod``, and ``keep_every=`` thins them; the published ones are copied to the host.
- The noise has an address, see :mod:`fastlangevin.noise`: a sample does not depend on its batch. Without ``seed=`` and
  ``generator=`` its seed comes from PyTorch's default CPU generator.
- The sliced objectives return the loss alone; ``strict=True`` gives ``(loss, loss1, loss2)``, as published.
- Step sizes are those of the ladder in fp64, as published; the ladder may be a list, an array or a tensor anywhere.

``step_lr`` is the published code's step size, x + step score + sqrt(2 step) z with step = step_lr sigma_i^2/sigma_L^2:
half of the paper's epsilon. The two samplers of the toy experiments alone have the paper's convention, x + lr/2 score +
sqrt(lr) z. Their names here begin with ``toy_``, since those of the published methods differ from others by case alone.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, Unpack

import torch
from torch import Tensor

from fastlangevin.calling import Guarded
from fastlangevin.compat.lists import listed
from fastlangevin.compat.ncsn_losses import (
    anneal_dsm_score_estimation,
    anneal_sliced_score_estimation_vr,
    dsm,
    dsm_score_estimation,
    partial_sliced_score_matching,
    single_sliced_score_matching,
    sliced_score_estimation,
    sliced_score_estimation_vr,
    sliced_score_matching,
    sliced_score_matching_vr,
)
from fastlangevin.compat.options import KEPT, StrictLadderListOptions, StrictListOptions
from fastlangevin.compat.region import known_region
from fastlangevin.ladders import Sigmas, number, positive
from fastlangevin.noise import integer
from fastlangevin.ops.arguments import floating
from fastlangevin.samplers import SamplingResult, annealed_langevin, langevin
from fastlangevin.samplers.options import DEFAULTS, RunOptions, check_callable, check_names, takes

__all__ = [
    "Langevin_dynamics",
    "anneal_Langevin_dynamics",
    "anneal_Langevin_dynamics_inpainting",
    "anneal_dsm_score_estimation",
    "anneal_sliced_score_estimation_vr",
    "baseline_Langevin_dynamics",
    "dsm",
    "dsm_score_estimation",
    "partial_sliced_score_matching",
    "single_sliced_score_matching",
    "sliced_score_estimation",
    "sliced_score_estimation_vr",
    "sliced_score_matching",
    "sliced_score_matching_vr",
    "toy_anneal_langevin_dynamics",
    "toy_langevin_dynamics",
]

Net = Callable[[Tensor, Tensor], Tensor]
PUBLISHED_CLAMP = (0.0, 1.0)


@takes(StrictLadderListOptions, KEPT)
def anneal_Langevin_dynamics(
    x_mod: Tensor,
    scorenet: Net,
    sigmas: Sigmas,
    n_steps_each: int = 100,
    step_lr: float = 0.00002,
    **options: Unpack[StrictLadderListOptions],
) -> list[Tensor] | SamplingResult:
    """``AnnealRunner.anneal_Langevin_dynamics``: annealed Langevin dynamics from ``x_mod``.

    Args:
        x_mod: initial states ``(B, ...)``, any float dtype; not changed.
        scorenet: ``scorenet(x, labels)`` returns the score.
        sigmas: ladder ``(L,)`` in units of the data, largest first.
        n_steps_each: updates for each noise level.
        step_lr: step size at the last level, half of the paper's epsilon.
        options: those of :class:`fastlangevin.compat.options.StrictLadderListOptions`, such as ``seed`` and
            ``keep_every``. The published list, of ``strict``, is clamped to [0, 1].

    Returns:
        The states, on the device of ``x_mod``; or a :class:`fastlangevin.SamplingResult` with ``full_output``.

    Raises:
        TypeError, ValueError: an argument is of the wrong kind or out of range.
        NonFiniteError: a state is not finite.
    """
    floating("x_mod", x_mod)
    check_callable("scorenet", scorenet, "scorenet(x, labels)")
    sampler = partial(
        annealed_langevin,
        sigmas=sigmas,
        init=x_mod,
        step_lr=number("step_lr", step_lr),
        steps_per_level=integer("n_steps_each", n_steps_each, 1, 2**31),
    )
    return listed(sampler, scorenet, StrictLadderListOptions, options, clamp=PUBLISHED_CLAMP)


@takes(StrictListOptions, KEPT)
def Langevin_dynamics(
    x_mod: Tensor,
    scorenet: Net,
    n_steps: int = 200,
    step_lr: float = 0.00005,
    *,
    label: int = 9,
    **options: Unpack[StrictListOptions],
) -> list[Tensor] | SamplingResult:
    """``AnnealRunner.Langevin_dynamics``: Langevin dynamics at one level, x + step_lr score + sqrt(2 step_lr) z.

    Args:
        x_mod, scorenet: as for :func:`anneal_Langevin_dynamics`.
        n_steps: updates.
        step_lr: step size, half of the paper's.
        label: the level that ``scorenet`` is asked for; 9, the last of the published ladder, is the published code's.
        options: those of :class:`fastlangevin.compat.options.StrictListOptions`.

    Returns:
        The states, as for :func:`anneal_Langevin_dynamics`.

    Raises:
        TypeError, ValueError: an argument is of the wrong kind or out of range.
        NonFiniteError: a state is not finite.
    """
    floating("x_mod", x_mod)
    check_callable("scorenet", scorenet, "scorenet(x, labels)")
    labels = torch.full(x_mod.shape[:1], integer("label", label, 0, 2**31), dtype=torch.int64, device=x_mod.device)
    score = Guarded("scorenet", scorenet)
    return baseline_Langevin_dynamics(x_mod, lambda x: score(x, labels), n_steps, step_lr, **options)


@takes(StrictListOptions, KEPT)
def baseline_Langevin_dynamics(
    x_mod: Tensor,
    scorenet: Callable[[Tensor], Tensor],
    n_steps: int = 1000,
    step_lr: float = 0.00002,
    **options: Unpack[StrictListOptions],
) -> list[Tensor] | SamplingResult:
    """``BaselineRunner.Langevin_dynamics``: the same with a network that is called with ``x`` alone.

    Args:
        x_mod, n_steps, step_lr: as for :func:`Langevin_dynamics`.
        scorenet: called as ``scorenet(x)``, returns the score ``(B, ...)``.
        options: those of :class:`fastlangevin.compat.options.StrictListOptions`.

    Returns:
        The states ``(B, ...)``, as for :func:`Langevin_dynamics`.

    Raises:
        TypeError, ValueError: an argument is of the wrong kind or out of range.
        NonFiniteError: a state is not finite.
    """
    floating("x_mod", x_mod)
    check_callable("scorenet", scorenet, "scorenet(x)")
    steps = integer("n_steps", n_steps, 0, 2**32)
    sampler = partial(langevin, init=x_mod, steps=steps, step_lr=number("step_lr", step_lr))
    return listed(sampler, scorenet, StrictListOptions, options, clamp=PUBLISHED_CLAMP)


@takes(StrictLadderListOptions, KEPT)
def anneal_Langevin_dynamics_inpainting(
    x_mod: Tensor,
    refer_image: Tensor,
    scorenet: Net,
    sigmas: Sigmas,
    n_steps_each: int = 100,
    step_lr: float = 0.000008,
    *,
    mask: Tensor | None = None,
    **options: Unpack[StrictLadderListOptions],
) -> list[Tensor] | SamplingResult:
    """``AnnealRunner.anneal_Langevin_dynamics_inpainting``: the left half of every sample is known.

    For each level one y = refer_image + sigma_i z is drawn, which is put in place before its first score, as in the
    published code, and after each of its updates; Algorithm 2 of the paper, which ``fl.Inpainting(noise="level")``
    follows, has the latter alone. Any size is welcome, where the published code has that of its data written in.

    Args:
        x_mod: initial states ``(B, ...)``; or ``(R, K, C, H, W)``, K for each of R images, which become R K samples.
        refer_image: the image, of the shape of ``x_mod``, or ``(R, C, H, W)``; in units of the data.
        scorenet, sigmas, n_steps_each, step_lr: as for :func:`anneal_Langevin_dynamics`.
        mask: bool, broadcasts to the states, True where ``refer_image`` is known; by default the left half of the last
            dimension, as published.
        options: those of :class:`fastlangevin.compat.options.StrictLadderListOptions`.

    Returns:
        The states ``(B, ...)``, as for :func:`anneal_Langevin_dynamics`.

    Raises:
        TypeError, ValueError: an argument is of the wrong kind or out of range.
        NonFiniteError: a state is not finite.
    """
    check_callable("scorenet", scorenet, "scorenet(x, labels)")
    init, region = known_region(x_mod, refer_image, mask, None, "level_start")
    sampler = partial(
        annealed_langevin,
        sigmas=sigmas,
        init=init,
        step_lr=number("step_lr", step_lr),
        steps_per_level=integer("n_steps_each", n_steps_each, 1, 2**31),
        inpainting=region,
    )
    return listed(sampler, scorenet, StrictLadderListOptions, options, clamp=PUBLISHED_CLAMP)


@takes(RunOptions, DEFAULTS)
def toy_langevin_dynamics(
    score: Callable[[Tensor], Tensor],
    init: Tensor,
    lr: float = 0.1,
    step: int = 1000,
    **options: Unpack[RunOptions],
) -> Tensor | SamplingResult:
    """``ToyRunner.langevin_dynamics``: x + lr/2 score(x) + sqrt(lr) z, ``step`` times.

    Args:
        score: ``score(x)`` returns the score.
        init: initial states ``(B, ...)``, any float dtype; not changed.
        lr: the paper's step size.
        step: updates.
        options: those of :class:`fastlangevin.samplers.RunOptions`.

    Returns:
        The samples, shape of ``init``; or a :class:`fastlangevin.SamplingResult` with ``full_output``.

    Raises:
        TypeError, ValueError: an argument is of the wrong kind or out of range.
        NonFiniteError: a state is not finite.
    """
    sampler = partial(langevin, score, init, steps=integer("step", step, 0, 2**32), epsilon=positive("lr", lr))
    return sampler(**options)


@takes(RunOptions, DEFAULTS)
def toy_anneal_langevin_dynamics(
    score: Callable[[Tensor, Any], Tensor],
    init: Tensor,
    sigmas: Sigmas,
    lr: float = 0.1,
    n_steps_each: int = 100,
    **options: Unpack[RunOptions],
) -> Tensor | SamplingResult:
    """``ToyRunner.anneal_langevin_dynamics``: annealed, with lr_i = lr sigma_i^2 / sigma_L^2 in the place of ``lr``.

    Args:
        score: ``score(x, sigma)`` returns the score; sigma is the entry of ``sigmas``, as it is there.
        init: initial states ``(B, ...)``, any float dtype; not changed.
        sigmas: ladder ``(L,)`` in units of the data, largest first.
        lr: the paper's epsilon, the step size at the last level.
        n_steps_each: updates for each noise level.
        options: those of :class:`fastlangevin.samplers.RunOptions`. ``score`` is called anew for every update, so that
            ``cuda_graph=True`` is refused.

    Returns:
        The samples, as for :func:`toy_langevin_dynamics`.

    Raises:
        TypeError, ValueError: an argument is of the wrong kind or out of range.
        NonFiniteError: a state is not finite.
    """
    floating("init", init)
    check_callable("score", score, "score(x, sigma)")
    check_names(RunOptions, options)
    if options.get("cuda_graph") is True:
        raise ValueError("cuda_graph=True cannot be done: score is given entries of sigmas, as a replay is not")
    steps = integer("n_steps_each", n_steps_each, 1, 2**31)
    entries = list(sigmas)
    called = Guarded("score", score)
    # The labels are of one level, and none at all in an empty batch; a replay would not read them.
    sampler = partial(
        annealed_langevin,
        lambda x, labels: called(x, entries[int(labels[:1].sum())]),
        sigmas if isinstance(sigmas, Tensor) else entries,
        init=init,
        epsilon=positive("lr", lr),
        steps_per_level=steps,
    )
    options["cuda_graph"] = False
    return sampler(**options)
