"""Sliced score matching as in ermongroup/ncsn, of its ``losses/sliced_sm.py``.

``strict=True`` returns a loss with its two terms, as published; by default the loss alone.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, NamedTuple, Unpack

from torch import Tensor

from fastlangevin.compat.ncsn_energy import Energy, Score, energy_score
from fastlangevin.ladders import Sigmas
from fastlangevin.losses import annealed_ssm_loss
from fastlangevin.losses.projections import Kind
from fastlangevin.losses.sliced import SlicedTerms, ssm_terms
from fastlangevin.noise import MAX_ELEMENTS, Generators, SampleOptions, Seed, integer
from fastlangevin.ops.arguments import floating
from fastlangevin.samplers.options import SampleIds

__all__ = [
    "SlicedLoss",
    "anneal_sliced_score_estimation_vr",
    "partial_sliced_score_matching",
    "single_sliced_score_matching",
    "sliced_score_estimation",
    "sliced_score_estimation_vr",
    "sliced_score_matching",
    "sliced_score_matching_vr",
]

Net = Callable[[Tensor, Tensor], Tensor]
NoiseType = Literal["radermacher", "sphere", "gaussian"]
KINDS: dict[str, Kind] = {"radermacher": "rademacher", "sphere": "sphere", "gaussian": "gaussian"}


class SlicedLoss(NamedTuple):
    """What the published functions return: ``loss, loss1, loss2``, means over the batch, ``()`` each.

    Attributes:
        loss: the sum of the two, shape ``()``.
        loss1: 1/2 (v . score)^2, or 1/2 ||score||^2 with less variance, shape ``()``.
        loss2: v . grad (v . score), shape ``()``.
    """

    loss: Tensor
    loss1: Tensor
    loss2: Tensor


def _returned(terms: SlicedTerms, strict: bool, *, detach: bool = False, elements: int = 1) -> Tensor | SlicedLoss:
    """The loss, or with its terms; over ``elements`` for projections on the unit sphere in so many dimensions."""
    loss = terms.loss("mean") / elements
    if not strict:
        return loss.detach() if detach else loss
    parts = loss, terms.square.mean() / elements, terms.form.mean() / elements
    return SlicedLoss(*(each.detach() for each in parts) if detach else parts)


def _one_projection(
    energy_net: Energy,
    samples: Tensor,
    noise: Tensor | None,
    noise_type: str,
    variance_reduced: bool,
    step: int | Tensor,
    **which: Unpack[SampleOptions],
) -> SlicedTerms:
    if noise_type not in KINDS:
        raise ValueError(f"noise_type must be one of {', '.join(KINDS)} (as published), got {noise_type!r}")
    floating("samples", samples)
    if noise is not None and floating("noise", noise).shape != samples.shape:
        raise ValueError(
            f"noise is the projection of each sample: it must have the shape of samples, {tuple(samples.shape)}, got "
            f"{tuple(noise.shape)}"
        )
    return ssm_terms(
        energy_score(energy_net),
        samples,
        kind=KINDS[noise_type],
        variance_reduced=variance_reduced,
        vectors=None if noise is None else noise[:, None],
        step=step,
        **which,
    )


def _several_projections(
    score: Score,
    samples: Tensor,
    n_particles: int,
    variance_reduced: bool,
    strict: bool,
    step: int | Tensor,
    **which: Unpack[SampleOptions],
) -> Tensor | SlicedLoss:
    """As published, Gaussian for the loss with less variance, else on the unit sphere."""
    floating("samples", samples)
    terms = ssm_terms(
        score,
        samples,
        projections=integer("n_particles", n_particles, 1, MAX_ELEMENTS),
        kind="gaussian" if variance_reduced else "sphere",
        variance_reduced=variance_reduced,
        step=step,
        **which,
    )
    return _returned(terms, strict, elements=1 if variance_reduced else samples[0].numel())


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
    strict: bool = False,
) -> Tensor | SlicedLoss:
    """Sliced score matching of an energy with one projection: 1/2 (v . score)^2 + v . grad (v . score).

    Args:
        energy_net, samples, seed, generator, step, sample_ids: as for :func:`fastlangevin.compat.ncsn.dsm`; no noise is
            added to the samples.
        noise: the projections v, shape of ``samples``; by default drawn.
        detach: return the value without its graph.
        noise_type: ``"radermacher"`` (the published spelling), signs; ``"sphere"`` of radius sqrt(D); ``"gaussian"``.
        strict: return ``(loss, loss1, loss2)``, a :class:`SlicedLoss`, as published.

    Returns:
        ``()``: the mean over the batch; with ``strict`` and its two terms.
    """
    terms = _one_projection(
        energy_net, samples, noise, noise_type, False, step, seed=seed, generator=generator, sample_ids=sample_ids
    )
    return _returned(terms, strict, detach=detach)


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
    strict: bool = False,
) -> Tensor | SlicedLoss:
    """The same with less variance: 1/2 ||score||^2 + v . grad (v . score).

    Args:
        energy_net, samples, noise, detach, noise_type, seed, generator, step, sample_ids, strict: as for
            :func:`single_sliced_score_matching`.

    Returns:
        As for :func:`single_sliced_score_matching`.
    """
    terms = _one_projection(
        energy_net, samples, noise, noise_type, True, step, seed=seed, generator=generator, sample_ids=sample_ids
    )
    return _returned(terms, strict, detach=detach)


def sliced_score_estimation(
    score_net: Score,
    samples: Tensor,
    n_particles: int = 1,
    *,
    seed: Seed | None = None,
    generator: Generators | None = None,
    step: int | Tensor = 0,
    sample_ids: SampleIds | None = None,
    strict: bool = False,
) -> Tensor | SlicedLoss:
    """Sliced score matching, 1/2 (v . score)^2 + v . grad (v . score), v on the *unit* sphere as published.

    So it is a D-th of what an isotropic v with E[v v^T] = 1 gives, D being the elements of a sample.

    Args:
        score_net: ``score_net(x)`` returns the score.
        samples: samples ``(B, *)``, any float dtype.
        n_particles: projections for each sample; their mean is taken.
        seed, generator, step, sample_ids: as for :func:`fastlangevin.compat.ncsn.dsm`.
        strict: return ``(loss, loss1, loss2)``, a :class:`SlicedLoss`, as published.

    Returns:
        ``()``: the mean over the batch; with ``strict`` and its two terms.
    """
    return _several_projections(
        score_net, samples, n_particles, False, strict, step, seed=seed, generator=generator, sample_ids=sample_ids
    )


def sliced_score_estimation_vr(
    score_net: Score,
    samples: Tensor,
    n_particles: int = 1,
    *,
    seed: Seed | None = None,
    generator: Generators | None = None,
    step: int | Tensor = 0,
    sample_ids: SampleIds | None = None,
    strict: bool = False,
) -> Tensor | SlicedLoss:
    """Sliced score matching with less variance, 1/2 ||score||^2 + v . grad (v . score), v Gaussian as published.

    Args:
        score_net, samples, n_particles, seed, generator, step, sample_ids, strict: as for
            :func:`sliced_score_estimation`.

    Returns:
        As for :func:`sliced_score_estimation`.
    """
    return _several_projections(
        score_net, samples, n_particles, True, strict, step, seed=seed, generator=generator, sample_ids=sample_ids
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
    strict: bool = False,
) -> Tensor | SlicedLoss:
    """:func:`sliced_score_estimation` of the score of an energy, ``energy_net(x)`` of shape ``(B,)`` or ``(B, 1)``.

    Args:
        energy_net: ``energy_net(x)`` returns the energies ``(B,)`` or ``(B, 1)``.
        samples, n_particles, seed, generator, step, sample_ids, strict: as for :func:`sliced_score_estimation`.

    Returns:
        As for :func:`sliced_score_estimation`.
    """
    return _several_projections(
        energy_score(energy_net),
        samples,
        n_particles,
        False,
        strict,
        step,
        seed=seed,
        generator=generator,
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
    strict: bool = False,
) -> Tensor | SlicedLoss:
    """:func:`sliced_score_estimation_vr` of the score of an energy, ``energy_net(x)`` ``(B,)`` or ``(B, 1)``.

    Args:
        energy_net: ``energy_net(x)`` returns the energies ``(B,)`` or ``(B, 1)``.
        samples, n_particles, seed, generator, step, sample_ids, strict: as for :func:`sliced_score_estimation_vr`.

    Returns:
        As for :func:`sliced_score_estimation_vr`.
    """
    return _several_projections(
        energy_score(energy_net),
        samples,
        n_particles,
        True,
        strict,
        step,
        seed=seed,
        generator=generator,
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
        scorenet, samples, labels, sigmas: as for :func:`fastlangevin.compat.ncsn.anneal_dsm_score_estimation`.
        n_particles: projections for each sample, all at the same samples + sigma z; their mean is taken.
        seed, generator, step, sample_ids: as for :func:`fastlangevin.compat.ncsn.dsm`.

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
