"""The objectives of ermongroup/ncsn, of its ``losses/dsm.py`` and ``losses/sliced_sm.py``.

:mod:`fastlangevin.compat.ncsn` has them too. Each returns the mean over the batch, of shape ``()``. Those of
``sliced_sm`` at the data's own level are published with their two terms: ``strict=True`` returns
``(loss, loss1, loss2)``, which a published training loop unpacks. ``fastlangevin.patch("ncsn")`` puts them in with
``strict=True``.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, NamedTuple, Unpack

import torch
from torch import Tensor

from fastlangevin.compat.options import OBJECTIVE, ObjectiveOptions
from fastlangevin.ladders import Sigmas
from fastlangevin.losses import annealed_ssm_loss, dsm_loss, single_dsm_loss
from fastlangevin.losses.projections import Kind
from fastlangevin.losses.sliced import SlicedTerms, ssm_terms
from fastlangevin.noise import MAX_ELEMENTS, integer
from fastlangevin.ops.arguments import floating
from fastlangevin.samplers.options import check_callable, takes

__all__ = [
    "SlicedLoss",
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

Energy = Callable[[Tensor], Tensor]
Score = Callable[[Tensor], Tensor]
Net = Callable[[Tensor, Tensor], Tensor]
NoiseType = Literal["radermacher", "sphere", "gaussian"]
KINDS: dict[str, Kind] = {"radermacher": "rademacher", "sphere": "sphere", "gaussian": "gaussian"}


class SlicedLoss(NamedTuple):
    """The result of the published functions: ``loss, loss1, loss2``, means over the batch, ``()`` each.

    Attributes:
        loss: the sum of the two, shape ``()``.
        loss1: 1/2 (v . score)^2, or 1/2 ||score||^2 with less variance, shape ``()``.
        loss2: v . grad (v . score), shape ``()``.
    """

    loss: Tensor
    loss1: Tensor
    loss2: Tensor


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


@takes(ObjectiveOptions, OBJECTIVE)
def dsm(energy_net: Energy, samples: Tensor, sigma: float = 1, **options: Unpack[ObjectiveOptions]) -> Tensor:
    """Denoising score matching of an energy E: 1/2 ||sigma^2 score + n||^2 with score = -grad E, n = sigma z.

    Args:
        energy_net: ``energy_net(x)`` returns the energies ``(B,)`` or ``(B, 1)``.
        samples: clean samples ``(B, *)``, any float dtype.
        sigma: the noise level in units of the data.
        options: those of :class:`fastlangevin.compat.options.ObjectiveOptions`, such as ``seed`` and ``step``.

    Returns:
        ``()``: elements are summed, the batch averaged.
    """
    return single_dsm_loss(energy_score(energy_net), samples, sigma, **options) * sigma**2


@takes(ObjectiveOptions, OBJECTIVE)
def dsm_score_estimation(
    scorenet: Score, samples: Tensor, sigma: float = 0.01, **options: Unpack[ObjectiveOptions]
) -> Tensor:
    """Denoising score matching at one level, without a weight: 1/2 ||score + n / sigma^2||^2.

    Args:
        scorenet: ``scorenet(x)`` returns the score.
        samples, sigma: as for :func:`dsm`.
        options: those of :class:`fastlangevin.compat.options.ObjectiveOptions`.

    Returns:
        ``()``: elements are summed, the batch averaged.
    """
    return single_dsm_loss(scorenet, samples, sigma, weighted=False, **options)


@takes(ObjectiveOptions, OBJECTIVE)
def anneal_dsm_score_estimation(
    scorenet: Net,
    samples: Tensor,
    labels: Tensor,
    sigmas: Sigmas,
    anneal_power: float = 2.0,
    **options: Unpack[ObjectiveOptions],
) -> Tensor:
    """Annealed denoising score matching: 1/2 sigma^anneal_power ||score + n / sigma^2||^2.

    Args:
        scorenet: ``scorenet(x, labels)`` returns the score.
        samples: clean samples ``(B, *)``, any float dtype.
        labels: int64 ``(B,)``, the level of each sample; before ``sigmas``, the other way about than NCSNv2's.
        sigmas: ladder ``(L,)`` in units of the data.
        anneal_power: power of sigma in the weight.
        options: those of :class:`fastlangevin.compat.options.ObjectiveOptions`.

    Returns:
        ``()``: elements are summed, the batch averaged.
    """
    return dsm_loss(scorenet, samples, sigmas, labels=labels, anneal_power=anneal_power, **options)


@takes(ObjectiveOptions, OBJECTIVE)
def single_sliced_score_matching(
    energy_net: Energy,
    samples: Tensor,
    noise: Tensor | None = None,
    detach: bool = False,
    noise_type: NoiseType = "radermacher",
    *,
    strict: bool = False,
    **options: Unpack[ObjectiveOptions],
) -> Tensor | SlicedLoss:
    """Sliced score matching of an energy with one projection: 1/2 (v . score)^2 + v . grad (v . score).

    Args:
        energy_net, samples: as for :func:`dsm`; no noise is added to the samples.
        noise: the projections v, shape of ``samples``; by default drawn.
        detach: return the value without its graph.
        noise_type: ``"radermacher"`` (the published spelling), signs; ``"sphere"`` of radius sqrt(D); ``"gaussian"``.
        strict: return ``(loss, loss1, loss2)``, a :class:`SlicedLoss`, as published.
        options: those of :class:`fastlangevin.compat.options.ObjectiveOptions`.

    Returns:
        ``()``: the mean over the batch; with ``strict`` and its two terms.
    """
    return _returned(_projected(energy_net, samples, noise, noise_type, False, options), strict, detach=detach)


@takes(ObjectiveOptions, OBJECTIVE)
def partial_sliced_score_matching(
    energy_net: Energy,
    samples: Tensor,
    noise: Tensor | None = None,
    detach: bool = False,
    noise_type: NoiseType = "radermacher",
    *,
    strict: bool = False,
    **options: Unpack[ObjectiveOptions],
) -> Tensor | SlicedLoss:
    """The same with less variance: 1/2 ||score||^2 + v . grad (v . score).

    Args:
        energy_net, samples, noise, detach, noise_type, strict: as for :func:`single_sliced_score_matching`.
        options: those of :class:`fastlangevin.compat.options.ObjectiveOptions`.

    Returns:
        As for :func:`single_sliced_score_matching`.
    """
    return _returned(_projected(energy_net, samples, noise, noise_type, True, options), strict, detach=detach)


@takes(ObjectiveOptions, OBJECTIVE)
def sliced_score_estimation(
    score_net: Score,
    samples: Tensor,
    n_particles: int = 1,
    *,
    strict: bool = False,
    **options: Unpack[ObjectiveOptions],
) -> Tensor | SlicedLoss:
    """Sliced score matching, 1/2 (v . score)^2 + v . grad (v . score), v on the *unit* sphere as published.

    So it is a D-th of what an isotropic v with E[v v^T] = 1 gives, D being the elements of a sample.

    Args:
        score_net: ``score_net(x)`` returns the score.
        samples: samples ``(B, *)``, any float dtype.
        n_particles: projections for each sample; their mean is taken.
        strict: return ``(loss, loss1, loss2)``, a :class:`SlicedLoss`, as published.
        options: those of :class:`fastlangevin.compat.options.ObjectiveOptions`.

    Returns:
        ``()``: the mean over the batch; with ``strict`` and its two terms.
    """
    floating("samples", samples)
    count = integer("n_particles", n_particles, 1, MAX_ELEMENTS)
    terms = ssm_terms(score_net, samples, projections=count, kind="sphere", variance_reduced=False, **options)
    return _returned(terms, strict, elements=samples[0].numel())


@takes(ObjectiveOptions, OBJECTIVE)
def sliced_score_estimation_vr(
    score_net: Score,
    samples: Tensor,
    n_particles: int = 1,
    *,
    strict: bool = False,
    **options: Unpack[ObjectiveOptions],
) -> Tensor | SlicedLoss:
    """Sliced score matching with less variance, 1/2 ||score||^2 + v . grad (v . score), v Gaussian as published.

    Args:
        score_net, samples, n_particles, strict: as for :func:`sliced_score_estimation`.
        options: those of :class:`fastlangevin.compat.options.ObjectiveOptions`.

    Returns:
        As for :func:`sliced_score_estimation`.
    """
    floating("samples", samples)
    count = integer("n_particles", n_particles, 1, MAX_ELEMENTS)
    terms = ssm_terms(score_net, samples, projections=count, kind="gaussian", variance_reduced=True, **options)
    return _returned(terms, strict)


@takes(ObjectiveOptions, OBJECTIVE)
def sliced_score_matching(
    energy_net: Energy,
    samples: Tensor,
    n_particles: int = 1,
    *,
    strict: bool = False,
    **options: Unpack[ObjectiveOptions],
) -> Tensor | SlicedLoss:
    """:func:`sliced_score_estimation` of the score of an energy.

    Args:
        energy_net: ``energy_net(x)`` returns the energies ``(B,)`` or ``(B, 1)``.
        samples, n_particles, strict: as for :func:`sliced_score_estimation`.
        options: those of :class:`fastlangevin.compat.options.ObjectiveOptions`.

    Returns:
        As for :func:`sliced_score_estimation`.
    """
    return sliced_score_estimation(energy_score(energy_net), samples, n_particles, strict=strict, **options)


@takes(ObjectiveOptions, OBJECTIVE)
def sliced_score_matching_vr(
    energy_net: Energy,
    samples: Tensor,
    n_particles: int = 1,
    *,
    strict: bool = False,
    **options: Unpack[ObjectiveOptions],
) -> Tensor | SlicedLoss:
    """:func:`sliced_score_estimation_vr` of the score of an energy.

    Args:
        energy_net: ``energy_net(x)`` returns the energies ``(B,)`` or ``(B, 1)``.
        samples, n_particles, strict: as for :func:`sliced_score_estimation`.
        options: those of :class:`fastlangevin.compat.options.ObjectiveOptions`.

    Returns:
        As for :func:`sliced_score_estimation`.
    """
    return sliced_score_estimation_vr(energy_score(energy_net), samples, n_particles, strict=strict, **options)


@takes(ObjectiveOptions, OBJECTIVE)
def anneal_sliced_score_estimation_vr(
    scorenet: Net,
    samples: Tensor,
    labels: Tensor,
    sigmas: Sigmas,
    n_particles: int = 1,
    **options: Unpack[ObjectiveOptions],
) -> Tensor:
    """Sliced score matching over a ladder: sigma^2 times that of ``_vr`` at samples + sigma z.

    Args:
        scorenet, samples, labels, sigmas: as for :func:`anneal_dsm_score_estimation`.
        n_particles: projections for each sample, all at the same samples + sigma z; their mean is taken.
        options: those of :class:`fastlangevin.compat.options.ObjectiveOptions`.

    Returns:
        ``()``: the mean over the batch.
    """
    count = integer("n_particles", n_particles, 1, MAX_ELEMENTS)
    return annealed_ssm_loss(scorenet, samples, sigmas, labels=labels, projections=count, kind="gaussian", **options)


def _projected(
    energy_net: Energy,
    samples: Tensor,
    noise: Tensor | None,
    noise_type: str,
    variance_reduced: bool,
    options: ObjectiveOptions,
) -> SlicedTerms:
    """The terms of one projection for each sample, given or drawn."""
    if noise_type not in KINDS:
        raise ValueError(f"noise_type must be one of {', '.join(KINDS)} (as published), got {noise_type!r}")
    floating("samples", samples)
    if noise is not None and floating("noise", noise).shape != samples.shape:
        raise ValueError(
            f"noise is the projection of each sample: it must have the shape of samples, {tuple(samples.shape)}, got "
            f"{tuple(noise.shape)}"
        )
    vectors = None if noise is None else noise[:, None]
    score, kind = energy_score(energy_net), KINDS[noise_type]
    return ssm_terms(score, samples, kind=kind, variance_reduced=variance_reduced, vectors=vectors, **options)


def _returned(terms: SlicedTerms, strict: bool, *, detach: bool = False, elements: int = 1) -> Tensor | SlicedLoss:
    """The loss, or with its terms; over ``elements`` for projections on the unit sphere in so many dimensions."""
    loss = terms.loss("mean") / elements
    if not strict:
        return loss.detach() if detach else loss
    parts = loss, terms.square.mean() / elements, terms.form.mean() / elements
    return SlicedLoss(*(each.detach() for each in parts) if detach else parts)
