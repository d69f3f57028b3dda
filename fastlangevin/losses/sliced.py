"""Sliced score matching (Song, Garg, Shi and Ermon 2019), at the data and over a ladder of noise levels.

With the Jacobian J of the score s and projections v, E[v v^T] = I:

    l    = v^T J(x) v + 1/2 (v . s(x))^2
    l_VR = v^T J(x) v + 1/2 ||s(x)||^2        variance reduced

Both have the expectation 1/2 ||s||^2 + tr J over v, which is implicit score matching (Hyvarinen 2005).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple, Unpack

from torch import Tensor

from fastlangevin.kernels.operands import Perturbation
from fastlangevin.ladders import Sigmas
from fastlangevin.losses.arguments import Score, check_batch, per_sample, reduced
from fastlangevin.losses.jacobian import check_chunk_size, quadratic_forms, score_at
from fastlangevin.losses.levels import levels_of
from fastlangevin.losses.projections import Kind, check_projections, given_vectors, vectors_at
from fastlangevin.memory import in_memory
from fastlangevin.noise import Purpose, SampleOptions, resolve, resolve_draw, resolve_seed
from fastlangevin.ops.dsm import Reduction
from fastlangevin.ops.perturb import LEVEL_PURPOSE, perturb_at

__all__ = ["SlicedTerms", "annealed_ssm_loss", "ssm_loss", "ssm_terms"]


class SlicedTerms(NamedTuple):
    """The two terms of each sample's loss, ``(B,)``, means over its projections.

    Attributes:
        square: 1/2 (v . s)^2, or 1/2 ||s||^2.
        form: v^T J v.
    """

    square: Tensor
    form: Tensor

    def loss(self, reduction: Reduction) -> Tensor:
        """Their sum, reduced over the batch."""
        return reduced(self.form + self.square, reduction)


def ssm_loss(
    score: Score,
    x: Tensor,
    *,
    projections: int = 1,
    kind: Kind = "rademacher",
    variance_reduced: bool = True,
    chunk_size: int = 1,
    step: int | Tensor = 0,
    reduction: Reduction = "mean",
    vectors: Tensor | None = None,
    **samples: Unpack[SampleOptions],
) -> Tensor:
    """Sliced score matching loss: no noise is added, the score is that of the data themselves.

    Costs a forward pass of the score and a backward pass for each projection; training differentiates through both, so
    the score must be twice differentiable by PyTorch. A score that is computed without autograd counts as constant.

    Args:
        score: ``score(x)`` gives the score ``(B, *)``; a sample's must depend on that sample alone (no batch
            normalisation in training mode), or the trace is that of the whole batch's Jacobian.
        x: samples ``(B, *)``, any float dtype.
        projections: projections for each sample, K; their mean is taken.
        kind: ``"rademacher"``, ``"gaussian"`` or ``"sphere"`` of radius sqrt(D); see
            :func:`fastlangevin.losses.projection_vectors`.
        variance_reduced: 1/2 ||s||^2 in place of its estimate 1/2 (v . s)^2.
        chunk_size: how many vector-Jacobian products run at once. 1 is a loop, which takes every network; more use
            ``torch.vmap``, which needs a batching rule for each of the network's operations, and that many times the
            memory of one backward pass.
        step: training step, 0 to 2^32 - 1, or an int64 tensor ``()``. The same step has the same projections.
        reduction: ``"mean"`` over the batch, ``"sum"``, or ``"none"`` for one value for each sample.
        vectors: the projections themselves, ``(B, K, *)`` on the device of ``x``; then nothing is drawn.
        samples: the seed of the run and the samples' ids, :class:`fastlangevin.noise.SampleOptions`.

    Returns:
        fp32 (fp64 for fp64 data): ``()``, or ``(B,)`` with ``reduction="none"``. Elements are summed. It may be
        negative: with the true score its expectation is -1/2 E||s||^2. Under ``no_grad`` it has no graph.
    """
    check_batch(("score", score), x, reduction)
    return ssm_terms(
        score,
        x,
        projections=projections,
        kind=kind,
        variance_reduced=variance_reduced,
        chunk_size=chunk_size,
        step=step,
        vectors=vectors,
        **samples,
    ).loss(reduction)


def ssm_terms(
    score: Score,
    x: Tensor,
    *,
    projections: int = 1,
    kind: Kind = "rademacher",
    variance_reduced: bool = True,
    chunk_size: int = 1,
    step: int | Tensor = 0,
    vectors: Tensor | None = None,
    **samples: Unpack[SampleOptions],
) -> SlicedTerms:
    """The two terms of :func:`ssm_loss` for each sample, with its arguments."""
    check_batch(("score", score), x, "mean")
    projections = check_projections(projections, kind)
    chunk_size = check_chunk_size(chunk_size)
    address = resolve(x, Purpose.PROJECTION, resolve_draw(step, x.device, "step"), False, **samples)
    if vectors is not None:
        vectors = given_vectors(vectors, x)
    value, point = score_at("score", score, x)
    if vectors is None:
        # Only now: a score that is refused leaves the generator as it is.
        seed = resolve_seed(samples.get("seed"), samples.get("generator"), len(x), x.device)
        vectors = vectors_at(x, projections, kind, address._replace(seed=seed))
    return _terms(value, point, vectors, None, variance_reduced, chunk_size)


def annealed_ssm_loss(
    net: Callable[[Tensor, Tensor], Tensor],
    x: Tensor,
    sigmas: Sigmas,
    *,
    labels: Tensor | None = None,
    projections: int = 1,
    kind: Kind = "rademacher",
    variance_reduced: bool = True,
    chunk_size: int = 1,
    step: int | Tensor = 0,
    reduction: Reduction = "mean",
    **samples: Unpack[SampleOptions],
) -> Tensor:
    """Sliced score matching over a ladder of noise levels (Song and Ermon 2019, section 4.2).

    There both denoising and sliced score matching are said to train such networks; the former is cheaper. The loss is
    sigma^2 times :func:`ssm_loss` at x + sigma z. Levels and z are those of :func:`fastlangevin.dsm_loss` at the same
    seed, step and ids, and so is the minimiser: the two differ by a constant in expectation.

    Args:
        net: score network, ``net(x, labels)`` gives the score ``(B, *)``; labels int64 ``(B,)``, 0 = largest sigma.
        x: clean samples ``(B, *)``, any float dtype.
        sigmas: ladder ``(L,)`` in the units of ``x``.
        labels: int64 ``(B,)``, the level of each sample; by default drawn uniformly.
        projections, kind, variance_reduced, chunk_size: as for :func:`ssm_loss`.
        step, reduction, samples: as for :func:`ssm_loss`.

    Returns:
        As for :func:`ssm_loss`.
    """
    check_batch(("net", net), x, reduction, "x, labels")
    projections = check_projections(projections, kind)
    chunk_size = check_chunk_size(chunk_size)
    level = levels_of(x, sigmas, labels, step, samples)
    given = Perturbation(in_memory("x", x), level.ladder, level.labels.contiguous(), level.address, LEVEL_PURPOSE)
    perturbed, _ = perturb_at(given, "auto")
    value, point = score_at("net", lambda state: net(state, level.labels.clone()), perturbed)
    vectors = vectors_at(x, projections, kind, level.address)
    return _terms(value, point, vectors, level.sigma, variance_reduced, chunk_size).loss(reduction)


def _terms(
    score: Tensor, point: Tensor, vectors: Tensor, sigma: Tensor | None, variance_reduced: bool, chunk_size: int
) -> SlicedTerms:
    """The terms of each sample, with the weight sigma^2 if there is a sigma ``(B, 1, ...)``.

    Sigma scales the projections and the score: J grows as sigma^-2, which half precision does not hold at small sigma.
    """
    value = score.to(vectors.dtype)
    if sigma is not None:
        vectors, scaled = vectors * sigma[:, None], value * sigma
    else:
        scaled = value
    if variance_reduced:
        norm = per_sample(scaled.square())
    else:
        norm = (vectors * value[:, None]).flatten(2).sum(2).square().mean(1)
    return SlicedTerms(norm * 0.5, quadratic_forms(score, point, vectors, chunk_size))
