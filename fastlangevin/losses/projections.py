"""Random projections v with E[v v^T] = I, so that E[v^T J v] is the trace of J (Hutchinson 1989).

The variance of v^T J v, with S the symmetric part of J and D elements:

    rademacher  2 (||S||^2 - sum_i S_ii^2)            the smallest of the three where S is near diagonal
    gaussian    2 ||S||^2
    sphere      2 D / (D + 2) (||S||^2 - tr(S)^2 / D)
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, Unpack, get_args

import torch
from torch import Tensor

from fastlangevin.noise import MAX_ELEMENTS, Address, Purpose, SampleOptions, integer, resolve, resolve_draw
from fastlangevin.ops.arguments import FLOAT_NAMES, FLOATS, compute_dtype, floating, same_place, sizes
from fastlangevin.ops.random import random_at

__all__ = ["Kind", "projection_vectors"]

Kind = Literal["rademacher", "gaussian", "sphere"]


def check_projections(count: int, kind: str) -> int:
    """The number of projections as an int; raises unless it is positive and their kind is known."""
    if kind not in get_args(Kind):
        raise ValueError(f"kind must be 'rademacher', 'gaussian' or 'sphere', got {kind!r}")
    return integer("projections", count, 1, MAX_ELEMENTS)


def given_vectors(vectors: Tensor, x: Tensor) -> Tensor:
    """A caller's own projections ``(B, K, *)`` of samples ``x``, in the computing dtype."""
    floating("vectors", vectors)
    same_place("vectors", vectors, x)
    if vectors.ndim != x.ndim + 1 or (len(vectors), *vectors.shape[2:]) != tuple(x.shape) or not vectors.shape[1]:
        raise ValueError(
            f"vectors must be projections (B, K, *) of samples (B, *) of shape {tuple(x.shape)}, got "
            f"{tuple(vectors.shape)}; vectors[:, None] for one of each sample"
        )
    return vectors.detach().to(compute_dtype(x))


def projection_vectors(
    shape: Sequence[int],
    projections: int = 1,
    kind: Kind = "rademacher",
    *,
    step: int | Tensor = 0,
    dtype: torch.dtype = torch.float32,
    device: torch.device | str | None = None,
    **samples: Unpack[SampleOptions],
) -> Tensor:
    """Random projections of each sample, at addresses of purpose ``PROJECTION``: the same bits on every device.

    Args:
        shape: ``(B, *)`` of the samples, D elements each.
        projections: how many for each sample, K. Elements of an address run over K D, so that the first projections
            of a sample do not depend on K.
        kind: ``"rademacher"``, signs; ``"gaussian"``, standard normals; ``"sphere"``, uniform on the sphere of radius
            sqrt(D). The published code of Song and Ermon (2019) takes the unit sphere, where E[v v^T] = I / D: its
            trace is a D-th of the trace.
        step: training step, the draw number of the address.
        dtype: of the result; values are those of fp32.
        device: of the result.
        samples: the seed of the run and the samples' ids, :class:`fastlangevin.noise.SampleOptions`.

    Returns:
        ``(B, K, *)``.

    Raises:
        TypeError, ValueError: an argument is of the wrong kind or out of range.
    """
    count = check_projections(projections, kind)
    if dtype not in FLOATS:
        raise TypeError(f"dtype must be {FLOAT_NAMES}, got {dtype}")
    size = sizes(shape)
    if len(size) < 2:
        raise ValueError(f"shape must be that of a batch of samples, (B, *), got {size}")
    like = torch.empty(size, dtype=dtype, device=device)
    address = resolve(like, Purpose.PROJECTION, resolve_draw(step, like.device, "step"), **samples)
    return vectors_at(like, count, kind, address).to(dtype)


def vectors_at(x: Tensor, count: int, kind: Kind, address: Address) -> Tensor:
    """``count`` projections of each sample, ``(B, K, *)`` in the computing dtype, at a resolved address."""
    first, *rest = x.shape
    address = address._replace(purpose=int(Purpose.PROJECTION))
    empty = torch.empty((first, count, *rest), dtype=torch.float32, device=x.device)
    values = random_at(empty, address, uniform=kind == "rademacher")
    if kind == "rademacher":
        # A uniform is an odd multiple of 2^-24 and never 1/2: the two signs are exactly as frequent.
        values = torch.where(values < 0.5, -1.0, 1.0)
    elif kind == "sphere":
        values = values * _sphere_scale(values)
    return values.to(compute_dtype(x))


def _sphere_scale(values: Tensor) -> Tensor:
    """sqrt(D) / ||v|| of each normal vector; no normal is zero. Each operation is rounded as IEEE 754 says.

    A sum by halves has one order, where ``torch.sum`` has the device's. The root is taken in fp64 because PyTorch's
    fp32 root on the CPU is not always the correctly rounded one.
    """
    squares = values.flatten(2).square()
    elements = squares.shape[2]
    squares = torch.nn.functional.pad(squares, (0, (1 << (elements - 1).bit_length()) - elements))
    while (half := squares.shape[2] // 2) > 0:
        squares = squares[..., :half] + squares[..., half:]
    scale = (elements / squares).double().sqrt().float()
    return scale.reshape(*values.shape[:2], *(1,) * (values.ndim - 2))
