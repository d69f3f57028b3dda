"""The address of a draw of normals or uniforms: pure data, which every layer may import."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor

__all__ = ["Address"]


class Address(NamedTuple):
    """Where the random numbers of one kernel call stand in the stream, but for the place of an element in its sample.

    Attributes:
        seed: 64 bits; or an int64 tensor of one seed, 0-dimensional, or of a seed for each sample, ``(B,)``.
        draw: number of the draw, 32 bits; or an int64 tensor of one number.
        sample_ids: global id of each sample, int64 ``(B,)``; None for ``sample_offset`` and up.
        sample_offset: id of the first sample.
        purpose: number of the :class:`fastlangevin.Purpose`.
    """

    seed: int | Tensor
    draw: int | Tensor
    sample_ids: Tensor | None
    sample_offset: int
    purpose: int
