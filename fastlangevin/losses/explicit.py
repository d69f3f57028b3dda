"""Explicit score matching (Hyvarinen 2005): for when the true score s* is known.

    l = 1/2 ||s(x) - s*(x)||^2

Its mean over the data is half the Fisher divergence. The other objectives differ from it by a constant.
"""

from __future__ import annotations

from torch import Tensor

from fastlangevin.calling import check_kept, version
from fastlangevin.losses.arguments import Score, check_batch, check_returned, per_sample, reduced
from fastlangevin.ops.arguments import compute_dtype, like_state
from fastlangevin.ops.dsm import Reduction

__all__ = ["esm_loss"]


def esm_loss(score: Score, x: Tensor, true_score: Score | Tensor, *, reduction: Reduction = "mean") -> Tensor:
    """Explicit score matching loss: half the squared distance of a score from the true one.

    Args:
        score: ``score(x)`` gives the score ``(B, *)``.
        x: samples ``(B, *)``, any float dtype.
        true_score: callable as ``score`` is, or the scores at ``x`` themselves, ``(B, *)``.
        reduction: ``"mean"`` over the batch, ``"sum"``, or ``"none"`` for one value for each sample.

    Returns:
        fp32 (fp64 for fp64 data): ``()``, or ``(B,)`` with ``reduction="none"``. Elements are summed.

    Raises:
        TypeError, ValueError: an argument is of the wrong kind or shape.
    """
    check_batch(("score", score), x, reduction)
    dtype = compute_dtype(x)
    if isinstance(true_score, Tensor):
        target = like_state("true_score", true_score, x)
    elif callable(true_score):
        target = check_returned("true_score", true_score(x.clone()), x)
    else:
        raise TypeError(f"true_score must be callable as true_score(x) or a tensor, got {type(true_score).__name__}")
    count = version(target)
    value = check_returned("score", score(x.clone()), x)  # the caller's samples are not written to
    check_kept("true_score", target, count, "score")
    return reduced(per_sample((value.to(dtype) - target.to(dtype)).square()) * 0.5, reduction)
