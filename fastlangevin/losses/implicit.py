"""Implicit score matching (Hyvarinen 2005, theorem 1): explicit score matching without the true score.

    l = 1/2 ||s(x)||^2 + tr J(x)        J the Jacobian of the score s

Integration by parts turns the expectation of -s . s* into that of tr J, for densities that vanish at the boundary, so
that its mean is the Fisher divergence's half less 1/2 E||s*||^2.
"""

from __future__ import annotations

from typing import Literal, Unpack

from torch import Tensor

from fastlangevin.losses.arguments import Score, check_batch, per_sample, reduced
from fastlangevin.losses.jacobian import check_chunk_size, exact_trace, score_at
from fastlangevin.losses.projections import Kind, check_projections
from fastlangevin.losses.sliced import ssm_loss
from fastlangevin.noise import SampleOptions, check_samples
from fastlangevin.ops.arguments import compute_dtype
from fastlangevin.ops.dsm import Reduction

__all__ = ["ism_loss"]


def ism_loss(
    score: Score,
    x: Tensor,
    *,
    trace: Literal["exact", "hutchinson"] = "exact",
    projections: int = 1,
    kind: Kind = "rademacher",
    chunk_size: int = 1,
    step: int | Tensor = 0,
    reduction: Reduction = "mean",
    **samples: Unpack[SampleOptions],
) -> Tensor:
    """Implicit score matching loss.

    The exact trace costs D backward passes for D elements in a sample, and a training step keeps the graphs of all of
    them. Hutchinson's estimate costs as many as it has projections: with it this is :func:`ssm_loss`, variance reduced.

    Args:
        score: ``score(x)`` gives the score ``(B, *)``; a sample's must depend on that sample alone.
        x: samples ``(B, *)``, any float dtype.
        trace: ``"exact"``, or ``"hutchinson"`` for an estimate without bias by random projections.
        projections, kind: the projections of ``trace="hutchinson"``, as for :func:`ssm_loss`.
        chunk_size: vector-Jacobian products at once, as for :func:`ssm_loss`.
        step: training step, the draw number of the projections.
        reduction: ``"mean"`` over the batch, ``"sum"``, or ``"none"`` for one value for each sample.
        samples: the seed and the ids of the projections, :class:`fastlangevin.noise.SampleOptions`. The exact trace
            draws nothing and does not look at them.

    Returns:
        As for :func:`ssm_loss`.

    Raises:
        TypeError, ValueError: an argument is of the wrong kind or out of range, or the score does not fit.
    """
    check_samples(samples)
    projections = check_projections(projections, kind)
    if trace == "hutchinson":
        return ssm_loss(
            score,
            x,
            projections=projections,
            kind=kind,
            chunk_size=chunk_size,
            step=step,
            reduction=reduction,
            **samples,
        )
    if trace != "exact":
        raise ValueError(f"trace must be 'exact' or 'hutchinson', got {trace!r}")
    check_batch(("score", score), x, reduction)
    chunk_size = check_chunk_size(chunk_size)
    value, point = score_at("score", score, x)
    dtype = compute_dtype(x)
    return reduced(per_sample(value.to(dtype).square()) * 0.5 + exact_trace(value, point, chunk_size, dtype), reduction)
