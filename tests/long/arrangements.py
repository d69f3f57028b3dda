"""The same values in other memory: what must not change the bits of a result."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

import torch
from torch import Tensor

__all__ = ["ARRANGEMENTS", "SPECIAL", "misread", "same_bits", "values"]

# Not a number, the infinities, subnormals of fp32, both zeros, what overflows in fp16.
SPECIAL = (float("nan"), float("inf"), -float("inf"), 1e-45, -1e-40, -0.0, 0.0, 65520.0)


@cache
def _normals(shape: tuple[int, ...], salt: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(salt), dtype=torch.float64)


def values(shape: tuple[int, ...], dtype: torch.dtype, salt: int, special: bool = False) -> Tensor:
    """Normals that follow from the salt; with ``special`` every third element is one of :data:`SPECIAL`."""
    made = _normals(tuple(shape), salt).clone()
    if special:
        flat = made.view(-1)
        places = torch.arange(flat.numel())[salt % 3 :: 3]
        flat[places] = torch.tensor(SPECIAL, dtype=torch.float64)[places // 3 % len(SPECIAL)]
    return made.to(dtype)


def _stepped(x: Tensor) -> Tensor:
    """Every second element of every dimension."""
    wide = torch.full([2 * size for size in x.shape], 77, dtype=x.dtype)
    view = wide[tuple(slice(1, None, 2) for _ in x.shape)]
    return view.copy_(x)


def _shifted(offset: int) -> Callable[[Tensor], Tensor]:
    def arrange(x: Tensor) -> Tensor:
        return torch.full((x.numel() + offset,), 77, dtype=x.dtype)[offset:].view(x.shape).copy_(x)

    return arrange


def _permuted(x: Tensor, order: list[int]) -> Tensor:
    back = [order.index(dim) for dim in range(x.ndim)]
    return x.permute(order).contiguous().permute(back)


def _expanded(x: Tensor) -> Tensor:
    """The first element of the last dimension, repeated with stride 0: compare with a clone, not with ``x``."""
    return x[..., :1].expand(x.shape) if x.ndim and x.shape[-1] else x


def _cropped(x: Tensor) -> Tensor:
    wide = torch.full([size + 3 for size in x.shape], 77, dtype=x.dtype)
    return wide[tuple(slice(1, 1 + size) for size in x.shape)].copy_(x)


ARRANGEMENTS: dict[str, Callable[[Tensor], Tensor]] = {
    "contiguous": lambda x: x.clone(),
    "channels_last": lambda x: x.clone(memory_format=torch.channels_last) if x.ndim == 4 else x.clone(),
    "transposed": lambda x: _permuted(x, list(range(x.ndim))[::-1]),
    "batch last": lambda x: _permuted(x, [*range(1, x.ndim), 0] if x.ndim else []),
    "stepped": _stepped,
    "cropped": _cropped,
    "offset 1": _shifted(1),
    "offset 2": _shifted(2),
    "offset 3": _shifted(3),
    "expanded": _expanded,
}


def same_bits(one: Tensor, two: Tensor) -> bool:
    """Equal shape, dtype and bits, of which -0 is not 0 and any NaN is any NaN."""
    if one.shape != two.shape or one.dtype != two.dtype:
        return False
    if not one.dtype.is_floating_point:
        return torch.equal(one, two)
    nan = one.isnan()
    if not torch.equal(nan, two.isnan()):
        return False
    # By comparing, not by picking the others out, which takes ten times as long.
    integers = {2: torch.int16, 4: torch.int32, 8: torch.int64}[one.element_size()]
    bits = [each.contiguous().view(-1).view(integers) for each in (one, two)]
    return bool((nan.reshape(-1) | (bits[0] == bits[1])).all())


def misread(x: Tensor, *, strides: bool = True, offset: bool = True) -> Tensor:
    """What a kernel reads that ignores the strides of its argument, or where its memory begins: for controls."""
    memory = torch.empty(0, dtype=x.dtype).set_(x.untyped_storage())
    if not strides:
        begin = x.storage_offset() if offset else 0
        return memory[begin : begin + x.numel()].view(x.shape) if memory.numel() >= begin + x.numel() else x
    return memory.as_strided(x.shape, x.stride(), x.storage_offset() if offset else 0)
