"""Euclidean norms of samples, in the written order of the objective's sums."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from fastlangevin.reference.dsm import sum_of_squares
from fastlangevin.reference.random import square_root

__all__ = ["norms"]


def norms(x: Tensor) -> Tensor:
    """fl(sqrt(sum of squares)) of each sample, ``(B,)`` in fp32, or fp64 for fp64 samples; see :mod:`.dsm`.

    Args:
        x: ``(B, ...)``, any float dtype, B and the elements of a sample at least 1.
    """
    wide = x.to(torch.float64 if x.dtype == torch.float64 else torch.float32)
    squares = sum_of_squares(wide.reshape(x.shape[0], -1))
    if squares.dtype == torch.float32:
        return square_root(squares)
    if squares.is_cuda:
        return squares.sqrt()
    # PyTorch's on the CPU may be a unit off, as in fp32.
    return squares.new_tensor([math.sqrt(each) for each in squares.tolist()])
