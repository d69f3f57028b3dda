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
from typing import Any

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
from fastlangevin.compat.region import known_region
from fastlangevin.ladders import Sigmas, number, positive
from fastlangevin.noise import Generators, Seed, integer
from fastlangevin.ops.arguments import floating
from fastlangevin.samplers import annealed_langevin, langevin
from fastlangevin.samplers.options import SampleIds, check_callable

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


def anneal_Langevin_dynamics(
    x_mod: Tensor,
    scorenet: Net,
    sigmas: Sigmas,
    n_steps_each: int = 100,
    step_lr: float = 0.00002,
    *,
    keep_every: int = 1,
    seed: Seed | None = None,
    generator: Generators | None = None,
    sample_ids: SampleIds | None = None,
    progress: bool = False,
    strict: bool = False,
    strict_ladder: bool = True,
) -> list[Tensor]:
    """``AnnealRunner.anneal_Langevin_dynamics``: annealed Langevin dynamics from ``x_mod``.

    Args:
        x_mod: initial states ``(B, ...)``, any float dtype; not changed.
        scorenet: ``scorenet(x, labels)`` returns the score.
        sigmas: ladder ``(L,)`` in units of the data, largest first.
        n_steps_each: updates for each noise level.
        step_lr: step size at the last level, half of the paper's epsilon.
        keep_every: the list holds the states after so many updates each, and the last. With 1, the published number,
            it takes ``L * n_steps_each`` times the memory of ``x_mod``.
        seed: 0 to 2^64 - 1, or int64 tensor ``(B,)`` of one for each sample.
        generator: a ``torch.Generator`` a seed is drawn from, or one for each sample.
        sample_ids: ``B`` global ids; by default 0 to B - 1.
        progress: show a progress bar.
        strict: the list as published: ``clamp(x, 0, 1)`` before each update, without the final state.
        strict_ladder: refuse another ladder than ``scorenet`` was built with, where it has that as ``sigmas``.

    Returns:
        The states, on the device of ``x_mod``.

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
        seed=seed,
        generator=generator,
        sample_ids=sample_ids,
        progress=progress,
        strict_ladder=strict_ladder,
    )
    return listed(sampler, scorenet, keep_every, strict, PUBLISHED_CLAMP)


def Langevin_dynamics(
    x_mod: Tensor,
    scorenet: Net,
    n_steps: int = 200,
    step_lr: float = 0.00005,
    *,
    label: int = 9,
    keep_every: int = 1,
    seed: Seed | None = None,
    generator: Generators | None = None,
    sample_ids: SampleIds | None = None,
    progress: bool = False,
    strict: bool = False,
) -> list[Tensor]:
    """``AnnealRunner.Langevin_dynamics``: Langevin dynamics at one level, x + step_lr score + sqrt(2 step_lr) z.

    Args:
        x_mod, scorenet: as for :func:`anneal_Langevin_dynamics`.
        n_steps: updates.
        step_lr: step size, half of the paper's.
        label: the level that ``scorenet`` is asked for; 9, the last of the published ladder, is the published code's.
        keep_every, seed, generator, sample_ids, progress, strict: as there.

    Returns:
        The states, on the device of ``x_mod``.

    Raises:
        TypeError, ValueError: an argument is of the wrong kind or out of range.
        NonFiniteError: a state is not finite.
    """
    floating("x_mod", x_mod)
    check_callable("scorenet", scorenet, "scorenet(x, labels)")
    labels = torch.full(x_mod.shape[:1], integer("label", label, 0, 2**31), dtype=torch.int64, device=x_mod.device)
    score = Guarded("scorenet", scorenet)
    return baseline_Langevin_dynamics(
        x_mod,
        lambda x: score(x, labels),
        n_steps,
        step_lr,
        keep_every=keep_every,
        seed=seed,
        generator=generator,
        sample_ids=sample_ids,
        progress=progress,
        strict=strict,
    )


def baseline_Langevin_dynamics(
    x_mod: Tensor,
    scorenet: Callable[[Tensor], Tensor],
    n_steps: int = 1000,
    step_lr: float = 0.00002,
    *,
    keep_every: int = 1,
    seed: Seed | None = None,
    generator: Generators | None = None,
    sample_ids: SampleIds | None = None,
    progress: bool = False,
    strict: bool = False,
) -> list[Tensor]:
    """``BaselineRunner.Langevin_dynamics``: the same with a network that is called with ``x`` alone.

    Args:
        x_mod, n_steps, step_lr, keep_every, seed, generator, sample_ids, progress, strict: as for
            :func:`Langevin_dynamics`.
        scorenet: called as ``scorenet(x)``, returns the score ``(B, ...)``.

    Returns:
        The states ``(B, ...)``, as for :func:`Langevin_dynamics`.

    Raises:
        TypeError, ValueError: an argument is of the wrong kind or out of range.
        NonFiniteError: a state is not finite.
    """
    floating("x_mod", x_mod)
    check_callable("scorenet", scorenet, "scorenet(x)")
    sampler = partial(
        langevin,
        init=x_mod,
        steps=integer("n_steps", n_steps, 0, 2**32),
        step_lr=number("step_lr", step_lr),
        seed=seed,
        generator=generator,
        sample_ids=sample_ids,
        progress=progress,
    )
    return listed(sampler, scorenet, keep_every, strict, PUBLISHED_CLAMP)


def anneal_Langevin_dynamics_inpainting(
    x_mod: Tensor,
    refer_image: Tensor,
    scorenet: Net,
    sigmas: Sigmas,
    n_steps_each: int = 100,
    step_lr: float = 0.000008,
    *,
    mask: Tensor | None = None,
    keep_every: int = 1,
    seed: Seed | None = None,
    generator: Generators | None = None,
    sample_ids: SampleIds | None = None,
    progress: bool = False,
    strict: bool = False,
    strict_ladder: bool = True,
) -> list[Tensor]:
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
        keep_every, seed, generator, sample_ids, progress, strict, strict_ladder: as there.

    Returns:
        The states ``(B, ...)``, on the device of ``x_mod``.

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
        seed=seed,
        generator=generator,
        sample_ids=sample_ids,
        progress=progress,
        strict_ladder=strict_ladder,
    )
    return listed(sampler, scorenet, keep_every, strict, PUBLISHED_CLAMP)


def toy_langevin_dynamics(
    score: Callable[[Tensor], Tensor],
    init: Tensor,
    lr: float = 0.1,
    step: int = 1000,
    *,
    seed: Seed | None = None,
    generator: Generators | None = None,
    sample_ids: SampleIds | None = None,
    progress: bool = False,
) -> Tensor:
    """``ToyRunner.langevin_dynamics``: x + lr/2 score(x) + sqrt(lr) z, ``step`` times.

    Args:
        score: ``score(x)`` returns the score.
        init: initial states ``(B, ...)``, any float dtype; not changed.
        lr: the paper's step size.
        step: updates.
        seed, generator, sample_ids, progress: as for :func:`anneal_Langevin_dynamics`.

    Returns:
        The samples, shape of ``init``.

    Raises:
        TypeError, ValueError: an argument is of the wrong kind or out of range.
        NonFiniteError: a state is not finite.
    """
    return langevin(
        score,
        init,
        steps=integer("step", step, 0, 2**32),
        epsilon=positive("lr", lr),
        seed=seed,
        generator=generator,
        sample_ids=sample_ids,
        progress=progress,
    )


def toy_anneal_langevin_dynamics(
    score: Callable[[Tensor, Any], Tensor],
    init: Tensor,
    sigmas: Sigmas,
    lr: float = 0.1,
    n_steps_each: int = 100,
    *,
    seed: Seed | None = None,
    generator: Generators | None = None,
    sample_ids: SampleIds | None = None,
    progress: bool = False,
) -> Tensor:
    """``ToyRunner.anneal_langevin_dynamics``: annealed, with lr_i = lr sigma_i^2 / sigma_L^2 in the place of ``lr``.

    Args:
        score: ``score(x, sigma)`` returns the score; sigma is the entry of ``sigmas``, as it is there.
        init: initial states ``(B, ...)``, any float dtype; not changed.
        sigmas: ladder ``(L,)`` in units of the data, largest first.
        lr: the paper's epsilon, the step size at the last level.
        n_steps_each: updates for each noise level.
        seed, generator, sample_ids, progress: as for :func:`anneal_Langevin_dynamics`.

    Returns:
        The samples, shape of ``init``.

    Raises:
        TypeError, ValueError: an argument is of the wrong kind or out of range.
        NonFiniteError: a state is not finite.
    """
    floating("init", init)
    check_callable("score", score, "score(x, sigma)")
    steps = integer("n_steps_each", n_steps_each, 1, 2**31)
    entries = list(sigmas)
    called = Guarded("score", score)
    # The labels are of one level, and none at all in an empty batch; a replay would not read them.
    return annealed_langevin(
        lambda x, labels: called(x, entries[int(labels[:1].sum())]),
        sigmas if isinstance(sigmas, Tensor) else entries,
        init=init,
        epsilon=positive("lr", lr),
        steps_per_level=steps,
        seed=seed,
        generator=generator,
        sample_ids=sample_ids,
        progress=progress,
        cuda_graph=False,
    )
