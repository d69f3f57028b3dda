"""The score of a Gaussian mixture: ``mixture_score``."""

from __future__ import annotations

import torch
from torch import Tensor

from fastlangevin import reference
from fastlangevin.ops.operation import Operation
from fastlangevin.runtime import Launchers

__all__ = ["mixture_score"]


def _launch(launchers: Launchers, x: Tensor, table: Tensor, labels: Tensor, diagonal: bool) -> Tensor:
    out = torch.empty_like(x)
    launchers.mixture_score(out, x, table, labels, diagonal=diagonal)
    return out


_SCORE = Operation(
    "mixture_score(Tensor x, Tensor table, Tensor labels, bool diagonal) -> Tensor",
    _launch,
    plain=reference.mixture_score,
    fake=lambda x, *rest: torch.empty_like(x),
)


def mixture_score(x: Tensor, table: Tensor, labels: Tensor, *, diagonal: bool, impl: str = "auto") -> Tensor:
    """The score of a mixture at its levels, with the same bits on every implementation.

    Its caller, :class:`fastlangevin.GaussianMixture`, has made the table and checked the rest.

    Args:
        x: fp32 ``(B, D)``, contiguous.
        table: fp32 ``(L, K, 2 W + 1)``, contiguous, as :mod:`fastlangevin.reference.mixture` has it.
        labels: int64 ``(B,)``, contiguous, from 0 to L - 1.
        diagonal: whether each element has variances of its own.
        impl: ``"auto"``, ``"triton"``, ``"cpp"`` or ``"reference"``.

    Returns:
        fp32 ``(B, D)``.
    """
    score: Tensor = _SCORE(impl, x.device, x, table, labels, diagonal)
    return score
