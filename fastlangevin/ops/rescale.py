"""A tensor times one number that stands on its device, with no work where the number is 1."""

from __future__ import annotations

from torch import Tensor

from fastlangevin.runtime import choose

__all__ = ["rescale_"]


def rescale_(values: Tensor, factor: Tensor, impl: str) -> None:
    """``values *= factor``, for a dense tensor and a factor of shape ``()``; the host never waits for a device.

    The product is made in fp32 (fp64 for fp64 values) and rounded once to the dtype of the values.
    """
    if factor.device.type == "cpu" and factor.item() == 1.0:
        return
    choose(impl, values.device)[1].rescale(values, factor)
