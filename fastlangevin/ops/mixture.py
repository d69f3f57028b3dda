"""The score of a Gaussian mixture: ``mixture_score``."""

from __future__ import annotations

import torch
from torch import Tensor

from fastlangevin import reference
from fastlangevin.ops.memory import recorded
from fastlangevin.ops.operation import register
from fastlangevin.runtime import choose

__all__ = ["mixture_score"]


def _launch(x: Tensor, table: Tensor, labels: Tensor, diagonal: bool, impl: str) -> Tensor:
    launchers = choose(impl, x.device)[1]
    if launchers is None or launchers.mixture_score is None:
        return reference.mixture_score(x, table, labels, diagonal)
    out = torch.empty_like(x)
    launchers.mixture_score(out, x, table, labels, diagonal=diagonal)
    return out


def _fake(x: Tensor, table: Tensor, labels: Tensor, diagonal: bool, impl: str) -> Tensor:
    return torch.empty_like(x)


register("mixture_score(Tensor x, Tensor table, Tensor labels, bool diagonal, str impl) -> Tensor", _launch, _fake)


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
    if recorded():
        score: Tensor = torch.ops.fastlangevin.mixture_score(x, table, labels, diagonal, impl)
        return score
    return _launch(x, table, labels, diagonal, impl)
