"""Sums with ELU behind them in plain PyTorch: what stands between the convolutions of the standard networks."""

from __future__ import annotations

from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor

__all__ = ["add_elu"]


def add_elu(terms: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
    """The sum of the terms, first to last, and its ELU: y where y > 0, exp(y) - 1 otherwise.

    Each addition is rounded to the dtype of the terms; ELU is computed in fp32 for 16-bit terms.
    """
    total = terms[0]
    for term in terms[1:]:
        total = total + term
    wide = total.float() if total.dtype.itemsize < 4 else total
    return total, F.elu(wide).to(total.dtype)
