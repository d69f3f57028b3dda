"""Addressed random tensors: ``randn`` and ``rand``, of Philox4x32-10 (Salmon et al. 2011) and Box and Muller (1958)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from fastlangevin.noise import (
    Generators,
    Purpose,
    Seed,
    integer,
    resolve_draw,
    resolve_sample_ids,
    resolve_seed,
    tensor_word,
)
from fastlangevin.ops.arguments import FLOAT_NAMES, FLOATS, elements_per_sample, sizes
from fastlangevin.ops.memory import address_in_memory, recorded
from fastlangevin.ops.operation import launch_random


def _random(
    shape: Sequence[int],
    seed: Seed | None,
    generator: Generators | None,
    draw: int | Tensor,
    purpose: int,
    sample_ids: Tensor | Sequence[int] | None,
    sample_offset: int,
    dtype: torch.dtype,
    device: torch.device | str | None,
    impl: str,
    uniform: bool,
) -> Tensor:
    if dtype not in FLOATS:
        raise TypeError(f"dtype must be {FLOAT_NAMES}, got {dtype}")
    size = sizes(shape)
    elements_per_sample(size)
    out = torch.empty(size, dtype=dtype, device=device)
    batch = size[0] if size else 1
    draw = resolve_draw(draw, out.device)
    ids, offset = resolve_sample_ids(sample_ids, sample_offset, batch, out.device)
    purpose = integer("purpose", purpose, 0, 255)
    seed = resolve_seed(seed, generator, batch, out.device)
    seed, draw, ids = address_in_memory(seed, draw, ids)
    if recorded():
        random: Tensor = torch.ops.fastlangevin.random(
            out, tensor_word(seed, out), tensor_word(draw, out), ids, offset, purpose, uniform, impl
        )
        return random
    launch_random(out, seed, draw, ids, offset, purpose, uniform, impl)
    return out


def randn(
    shape: Sequence[int],
    *,
    seed: Seed | None = None,
    generator: Generators | None = None,
    draw: int | Tensor = 0,
    purpose: int = Purpose.USER,
    sample_ids: Tensor | Sequence[int] | None = None,
    sample_offset: int = 0,
    dtype: torch.dtype = torch.float32,
    device: torch.device | str | None = None,
    impl: str = "auto",
) -> Tensor:
    """Standard normals, each a pure function of (seed, sample, draw, element, purpose).

    The same address gives the same bits on every device and implementation, in any batch and in any order. This is not
    the stream of ``torch.randn``. Values reach 6.76 and are rounded to ``dtype`` from fp32.

    Args:
        shape: ``(B, ...)``; dimension 0 counts samples.
        seed: 0 to 2^64 - 1, or an int64 tensor of shape ``()`` or ``(B,)`` with the seeds' bits.
        generator: a ``torch.Generator`` that a seed is drawn from, or one for each sample. With neither ``seed`` nor
            ``generator`` the seed comes from PyTorch's default CPU generator, which ``torch.manual_seed`` governs.
        draw: number of the draw, 0 to 2^32 - 1, or a 0-dim int64 tensor that holds it.
        purpose: a :class:`fastlangevin.Purpose`, or 128 to 255 for uses of your own.
        sample_ids: ``B`` global sample ids, 0 to 2^56 - 1; by default ``sample_offset`` and up.
        sample_offset: id of the first sample.
        dtype: float32, float16, bfloat16 or float64.
        device: of the result; PyTorch's default device where it is None.
        impl: ``"auto"``, ``"triton"``, ``"cpp"`` or ``"reference"``; all have the same bits.

    Returns:
        A contiguous tensor of the given shape.

    Raises:
        TypeError, ValueError: an argument is of the wrong kind or out of range; nothing wraps.
        RuntimeError: ``impl`` cannot run here.
    """
    return _random(shape, seed, generator, draw, purpose, sample_ids, sample_offset, dtype, device, impl, uniform=False)


def rand(
    shape: Sequence[int],
    *,
    seed: Seed | None = None,
    generator: Generators | None = None,
    draw: int | Tensor = 0,
    purpose: int = Purpose.USER,
    sample_ids: Tensor | Sequence[int] | None = None,
    sample_offset: int = 0,
    dtype: torch.dtype = torch.float32,
    device: torch.device | str | None = None,
    impl: str = "auto",
) -> Tensor:
    """Uniforms on (0, 1): multiples of 2^-24 between 2^-24 and 1 - 2^-24 in fp32, never 0 or 1.

    Rounding to float16 or bfloat16 can give 1. Arguments, addresses and errors as for :func:`randn`; the two share
    their random words, so a value of one is not independent of the other's at the same address.

    Args:
        shape, seed, generator, draw, purpose, sample_ids, sample_offset, dtype, device, impl: as for :func:`randn`.

    Returns:
        ``shape``, on ``device``.
    """
    return _random(shape, seed, generator, draw, purpose, sample_ids, sample_offset, dtype, device, impl, uniform=True)
