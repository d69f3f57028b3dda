"""What roundings may do to a sum and to a result, and the comparison by it."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


def walk(dtype: torch.dtype, terms: int) -> float:
    """What a sum of so many terms, and a few operations around it, may lose of the terms' magnitudes.

    With u the unit roundoff of the computing dtype that is u sqrt(n) where each term passes n additions, as roundings
    walk (Higham and Mary 2019). n is less than the number of terms, and, since every implementation sums blocks and
    then their sums, less than 64: so u (8 + 2 sqrt(min(terms, 64))). In fp64 the oracle errs as much, and u is doubled.
    """
    unit = 2.0**-52 if dtype == torch.float64 else 2.0**-24
    return unit * (8 + 2 * min(terms, 64) ** 0.5)


def stored(bound: Tensor, want: Tensor, dtype: torch.dtype) -> Tensor:
    """The bound of a result that is rounded to a dtype: half a unit in the last place more."""
    last = torch.finfo(dtype)
    return bound + want.abs() * (last.eps / 2) + last.tiny * last.eps


def check(names: Sequence[str], found: Sequence[Tensor], wanted: Sequence[Tensor], bounds: Sequence[Tensor]) -> None:
    """Raises AssertionError, naming the result, where one is further off than its bound.

    A result without the dimension of the batch is the sum over it of what is wanted.
    """
    for name, got, want, bound in zip(names, found, wanted, bounds, strict=True):
        if got.ndim < want.ndim:
            bound = bound.sum(0) + len(want) * torch.finfo(got.dtype).eps * want.abs().sum(0)
            want = want.sum(0)
        assert got.shape == want.shape, name
        assert ((got.double().cpu() - want.cpu()).abs() <= bound.cpu()).all(), name
