"""The objectives of ermongroup/ncsn, of its ``losses/dsm.py`` and ``losses/sliced_sm.py``.

:mod:`fastlangevin.compat.ncsn` has them too.
Each returns the mean over the batch alone, where some of the sliced ones are published with their parts.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor

from fastlangevin.losses import annealed_ssm_loss, dsm_loss, single_dsm_loss, ssm_loss
from fastlangevin.losses.projections import Kind
from fastlangevin.noise import MAX_ELEMENTS, Generators, Seed, integer
from fastlangevin.ops.arguments import floating
from fastlangevin.samplers.options import SampleIds, check_callable
from fastlangevin.schedules import Sigmas

__all__ = [
    "anneal_dsm_score_estimation",
    "anneal_sliced_score_estimation_vr",
    "dsm",
    "dsm_score_estimation",
    "energy_score",
    "partial_sliced_score_matching",
    "single_sliced_score_matching",
    "sliced_score_estimation",
    "sliced_score_estimation_vr",
    "sliced_score_matching",
    "sliced_score_matching_vr",
]

Net = Callable[[Tensor, Tensor], Tensor]
Energy = Callable[[Tensor], Tensor]
Score = Callable[[Tensor], Tensor]
NoiseType = Literal["radermacher", "sphere", "gaussian"]
KINDS: dict[str, Kind] = {"radermacher": "rademacher", "sphere": "sphere", "gaussian": "gaussian"}


def energy_score(energy_net: Energy) -> Score:
    """The score of exp(-E): minus the gradient of an energy, which can be differentiated again.

    Args:
        energy_net: ``energy_net(x)`` returns the energies ``(B,)`` or ``(B, 1)``, each of its sample alone.

    Returns:
        A callable ``x -> score``, ``(B, ...)`` both.
    """
    check_callable("energy_net", energy_net, "energy_net(x)")

    def score(x: Tensor) -> Tensor:
        with torch.enable_grad():
            point = x if x.requires_grad else x.detach().requires_grad_()
            (slope,) = torch.autograd.grad(energy_net(point.clone()).sum(), point, create_graph=True)
        return -slope

    return score


def dsm(
    energy_net: Energy,
    samples: Tensor,
    sigma: float = 1,
    *,
    seed: Seed | None = None,
    generator: Generators | None = None,
    step: int | Tensor = 0,
    sample_ids: SampleIds | None = None,
) -> Tensor:
    """Denoising score matching of an energy E: 1/2 ||sigma^2 score + n||^2 with score = -grad E, n = sigma z.

    Args:
        energy_net: ``energy_net(x)`` returns the energies ``(B,)`` or ``(B, 1)``.
        samples: clean samples ``(B, *)``, any float dtype.
        sigma: the noise level in units of the data.
        seed: 64-bit seed of the run, of which the noise is a function with the step and the sample's id.
        generator: instead, a ``torch.Generator`` a seed is drawn from. With neither, PyTorch's default CPU generator.
        step: training step. With a fixed seed it must change from step to step.
        sample_ids: ``B`` global ids; by default 0 to B - 1.

    Returns:
        ``()``: elements are summed, the batch averaged.
    """
    weighted = single_dsm_loss(
        energy_score(energy_net), samples, sigma, seed=seed, generator=generator, step=step, sample_ids=sample_ids
    )
    return weighted * sigma**2


def dsm_score_estimation(
    scorenet: Score,
    samples: Tensor,
    sigma: float = 0.01,
    *,
    seed: Seed | None = None,
    generator: Generators | None = None,
    step: int | Tensor = 0,
    sample_ids: SampleIds | None = None,
) -> Tensor:
    """Denoising score matching at one level, without a weight: 1/2 ||score + n / sigma^2||^2.

    Args:
        scorenet: ``scorenet(x)`` returns the score.
        samples, sigma, seed, generator, step, sample_ids: as for :func:`dsm`.

    Returns:
        ``()``: elements are summed, the batch averaged.
    """
    return single_dsm_loss(
        scorenet,
        samples,
        sigma,
        weighted=False,
        seed=seed,
        generator=generator,
        step=step,
        sample_ids=sample_ids,
    )


def anneal_dsm_score_estimation(
    scorenet: Net,
    samples: Tensor,
    labels: Tensor,
    sigmas: Sigmas,
    anneal_power: float = 2.0,
    *,
    seed: Seed | None = None,
    generator: Generators | None = None,
    step: int | Tensor = 0,
    sample_ids: SampleIds | None = None,
) -> Tensor:
    """Annealed denoising score matching: 1/2 sigma^anneal_power ||score + n / sigma^2||^2.

    Args:
        scorenet: ``scorenet(x, labels)`` returns the score.
        samples: clean samples ``(B, *)``, any float dtype.
        labels: int64 ``(B,)``, the level of each sample; before ``sigmas``, the other way about than NCSNv2's.
        sigmas: ladder ``(L,)`` in units of the data.
        anneal_power: power of sigma in the weight.
        seed, generator, step, sample_ids: as for :func:`dsm`.

    Returns:
        ``()``: elements are summed, the batch averaged.
    """
    return dsm_loss(
        scorenet,
        samples,
        sigmas,
        labels=labels,
        anneal_power=anneal_power,
        seed=seed,
        generator=generator,
        step=step,
        sample_ids=sample_ids,
    )


def _one_projection(
    energy_net: Energy,
    samples: Tensor,
    noise: Tensor | None,
    detach: bool,
    noise_type: str,
    variance_reduced: bool,
    seed: Seed | None,
    generator: Generators | None,
    step: int | Tensor,
    sample_ids: SampleIds | None,
) -> Tensor:
    if noise_type not in KINDS:
        raise ValueError(f"noise_type must be one of {', '.join(KINDS)} (as published), got {noise_type!r}")
    floating("samples", samples)
    if noise is not None and floating("noise", noise).shape != samples.shape:
        raise ValueError(
            f"noise is the projection of each sample: it must have the shape of samples, {tuple(samples.shape)}, got "
            f"{tuple(noise.shape)}"
        )
    loss = ssm_loss(
        energy_score(energy_net),
        samples,
        kind=KINDS[noise_type],
        variance_reduced=variance_reduced,
        vectors=None if noise is None else noise[:, None],
        seed=seed,
        generator=generator,
        step=step,
        sample_ids=sample_ids,
    )
    return loss.detach() if detach else loss


def single_sliced_score_matching(
    energy_net: Energy,
    samples: Tensor,
    noise: Tensor | None = None,
    detach: bool = False,
    noise_type: NoiseType = "radermacher",
    *,
    seed: Seed | None = None,
    generator: Generators | None = None,
    step: int | Tensor = 0,
    sample_ids: SampleIds | None = None,
) -> Tensor:
    """Sliced score matching of an energy with one projection: 1/2 (v . score)^2 + v . grad (v . score).

    Args:
        energy_net, samples, seed, generator, step, sample_ids: as for :func:`dsm`; no noise is added to the samples.
        noise: the projections v, shape of ``samples``; by default drawn.
        detach: return the value without its graph.
        noise_type: ``"radermacher"`` (the published spelling), signs; ``"sphere"`` of radius sqrt(D); ``"gaussian"``.

    Returns:
        ``()``: the mean over the batch.
    """
    return _one_projection(energy_net, samples, noise, detach, noise_type, False, seed, generator, step, sample_ids)


def partial_sliced_score_matching(
    energy_net: Energy,
    samples: Tensor,
    noise: Tensor | None = None,
    detach: bool = False,
    noise_type: NoiseType = "radermacher",
    *,
    seed: Seed | None = None,
    generator: Generators | None = None,
    step: int | Tensor = 0,
    sample_ids: SampleIds | None = None,
) -> Tensor:
    """The same with less variance: 1/2 ||score||^2 + v . grad (v . score).

    Args:
        energy_net, samples, noise, detach, noise_type, seed, generator, step, sample_ids: as for
            :func:`single_sliced_score_matching`.

    Returns:
        As for :func:`single_sliced_score_matching`.
    """
    return _one_projection(energy_net, samples, noise, detach, noise_type, True, seed, generator, step, sample_ids)


def sliced_score_estimation(
    score_net: Score,
    samples: Tensor,
    n_particles: int = 1,
    *,
    seed: Seed | None = None,
    generator: Generators | None = None,
    step: int | Tensor = 0,
    sample_ids: SampleIds | None = None,
) -> Tensor:
    """Sliced score matching, 1/2 (v . score)^2 + v . grad (v . score), v on the *unit* sphere as published.

    So it is a D-th of what an isotropic v with E[v v^T] = 1 gives, D being the elements of a sample.

    Args:
        score_net: ``score_net(x)`` returns the score.
        samples: samples ``(B, *)``, any float dtype.
        n_particles: projections for each sample; their mean is taken.
        seed, generator, step, sample_ids: as for :func:`dsm`.

    Returns:
        ``()``: the mean over the batch.
    """
    floating("samples", samples)
    loss = ssm_loss(
        score_net,
        samples,
        projections=integer("n_particles", n_particles, 1, MAX_ELEMENTS),
        kind="sphere",
        variance_reduced=False,
        seed=seed,
        generator=generator,
        step=step,
        sample_ids=sample_ids,
    )
    return loss / samples[0].numel()


def sliced_score_estimation_vr(
    score_net: Score,
    samples: Tensor,
    n_particles: int = 1,
    *,
    seed: Seed | None = None,
    generator: Generators | None = None,
    step: int | Tensor = 0,
    sample_ids: SampleIds | None = None,
) -> Tensor:
    """Sliced score matching with less variance, 1/2 ||score||^2 + v . grad (v . score), v Gaussian as published.

    Args:
        score_net, samples, n_particles, seed, generator, step, sample_ids: as for :func:`sliced_score_estimation`.

    Returns:
        As for :func:`sliced_score_estimation`.
    """
    return ssm_loss(
        score_net,
        samples,
        projections=integer("n_particles", n_particles, 1, MAX_ELEMENTS),
        kind="gaussian",
        seed=seed,
        generator=generator,
        step=step,
        sample_ids=sample_ids,
    )


def sliced_score_matching(
    energy_net: Energy,
    samples: Tensor,
    n_particles: int = 1,
    *,
    seed: Seed | None = None,
    generator: Generators | None = None,
    step: int | Tensor = 0,
    sample_ids: SampleIds | None = None,
) -> Tensor:
    """:func:`sliced_score_estimation` of the score of an energy, ``energy_net(x)`` of shape ``(B,)`` or ``(B, 1)``.

    Args:
        energy_net: ``energy_net(x)`` returns the energies ``(B,)`` or ``(B, 1)``.
        samples, n_particles, seed, generator, step, sample_ids: as for :func:`sliced_score_estimation`.

    Returns:
        As for :func:`sliced_score_estimation`.
    """
    return sliced_score_estimation(
        energy_score(energy_net),
        samples,
        n_particles,
        seed=seed,
        generator=generator,
        step=step,
        sample_ids=sample_ids,
    )


def sliced_score_matching_vr(
    energy_net: Energy,
    samples: Tensor,
    n_particles: int = 1,
    *,
    seed: Seed | None = None,
    generator: Generators | None = None,
    step: int | Tensor = 0,
    sample_ids: SampleIds | None = None,
) -> Tensor:
    """:func:`sliced_score_estimation_vr` of the score of an energy, ``energy_net(x)`` ``(B,)`` or ``(B, 1)``.

    Args:
        energy_net: ``energy_net(x)`` returns the energies ``(B,)`` or ``(B, 1)``.
        samples, n_particles, seed, generator, step, sample_ids: as for :func:`sliced_score_estimation_vr`.

    Returns:
        As for :func:`sliced_score_estimation_vr`.
    """
    return sliced_score_estimation_vr(
        energy_score(energy_net),
        samples,
        n_particles,
        seed=seed,
        generator=generator,
        step=step,
        sample_ids=sample_ids,
    )


def anneal_sliced_score_estimation_vr(
    scorenet: Net,
    samples: Tensor,
    labels: Tensor,
    sigmas: Sigmas,
    n_particles: int = 1,
    *,
    seed: Seed | None = None,
    generator: Generators | None = None,
    step: int | Tensor = 0,
    sample_ids: SampleIds | None = None,
) -> Tensor:
    """Sliced score matching over a ladder: sigma^2 times that of ``_vr`` at samples + sigma z.

    Args:
        scorenet, samples, labels, sigmas: as for :func:`anneal_dsm_score_estimation`.
        n_particles: projections for each sample, all at the same samples + sigma z; their mean is taken.
        seed, generator, step, sample_ids: as for :func:`dsm`.

    Returns:
        ``()``: the mean over the batch.
    """
    return annealed_ssm_loss(
        scorenet,
        samples,
        sigmas,
        labels=labels,
        projections=integer("n_particles", n_particles, 1, MAX_ELEMENTS),
        kind="gaussian",
        seed=seed,
        generator=generator,
        step=step,
        sample_ids=sample_ids,
    )
