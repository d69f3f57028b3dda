"""Addressed random tensors: ``randn`` and ``rand``, of Philox4x32-10 (Salmon et al. 2011) and Box and Muller (1958)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Unpack

import torch
from torch import Tensor

from fastlangevin import reference
from fastlangevin.kernels.address import Address
from fastlangevin.noise import AddressOptions, Purpose, resolve
from fastlangevin.ops import quick
from fastlangevin.ops.arguments import FLOAT_NAMES, FLOATS, elements_per_sample, sizes
from fastlangevin.ops.operation import ADDRESS, Operation, flat_address
from fastlangevin.runtime import Launchers

__all__ = ["rand", "randn", "random_at"]

_USER = int(Purpose.USER)


def _launch(launchers: Launchers, out: Tensor, address: Address, uniform: bool) -> Tensor:
    if out.numel():
        launchers.randn(out if out.ndim else out.view(1), address, uniform=uniform)
    return out


def _plain(like: Tensor, address: Address, uniform: bool) -> Tensor:
    return (reference.uniforms if uniform else reference.normals)(address, like.shape, like.device).to(like.dtype)


def _flat(like: Tensor, address: Address, uniform: bool) -> tuple[Any, ...]:
    return like, *flat_address(address, like), uniform


def _typed(like: Tensor, *rest: Any) -> tuple[Any, ...]:
    *address, uniform = rest
    return torch.empty_like(like), Address(*address), uniform


_RANDOM = Operation(
    f"random(Tensor like, {ADDRESS}, bool uniform) -> Tensor",
    _launch,
    plain=_plain,
    fake=lambda like, *rest: torch.empty_like(like),
    flatten=_flat,
    typed=_typed,
)


def random_at(out: Tensor, address: Address, *, uniform: bool = False, impl: str = "auto") -> Tensor:
    """The normals, or uniforms, of a resolved address, in ``out`` where nothing records or transforms the call.

    Args:
        out: a new tensor, whose shape, dtype and device the result has.
        address: of the numbers.
        uniform: whether uniforms are wanted.
        impl: as for :func:`randn`.
    """
    result: Tensor = _RANDOM(impl, out.device, out, address, uniform)
    return result


def _random(
    shape: Sequence[int],
    dtype: torch.dtype,
    device: torch.device | str | None,
    impl: str,
    uniform: bool,
    options: AddressOptions,
) -> Tensor:
    done = None
    if dtype is torch.float32:
        done = quick.random(shape, device, uniform, quick.words(_USER, **options), impl)
    if done is not None:
        return done
    if dtype not in FLOATS:
        raise TypeError(f"dtype must be {FLOAT_NAMES}, got {dtype}")
    size = sizes(shape)
    elements_per_sample(size)
    out = torch.empty(size, dtype=dtype, device=device)
    purpose, draw = options.pop("purpose", _USER), options.pop("draw", 0)
    address = resolve(out, purpose, draw, **options)
    return random_at(out, address, uniform=uniform, impl=impl)


def randn(
    shape: Sequence[int],
    *,
    dtype: torch.dtype = torch.float32,
    device: torch.device | str | None = None,
    impl: str = "auto",
    **options: Unpack[AddressOptions],
) -> Tensor:
    """Standard normals, each a pure function of (seed, sample, draw, element, purpose).

    The same address gives the same bits on every device and implementation, in any batch and in any order. This is not
    the stream of ``torch.randn``. Values reach 6.76 and are rounded to ``dtype`` from fp32.

    Args:
        shape: ``(B, ...)``; dimension 0 counts samples.
        dtype: float32, float16, bfloat16 or float64.
        device: of the result; PyTorch's default device where it is None.
        impl: ``"auto"``, ``"triton"``, ``"cpp"`` or ``"reference"``; all have the same bits.
        options: the address, :class:`fastlangevin.noise.AddressOptions`; the purpose is ``USER`` by default.

    Returns:
        A contiguous tensor of the given shape.

    Raises:
        TypeError, ValueError: an argument is of the wrong kind or out of range; nothing wraps.
        RuntimeError: ``impl`` cannot run here.
    """
    return _random(shape, dtype, device, impl, False, options)


def rand(
    shape: Sequence[int],
    *,
    dtype: torch.dtype = torch.float32,
    device: torch.device | str | None = None,
    impl: str = "auto",
    **options: Unpack[AddressOptions],
) -> Tensor:
    """Uniforms on (0, 1): multiples of 2^-24 between 2^-24 and 1 - 2^-24 in fp32, never 0 or 1.

    Rounding to float16 or bfloat16 can give 1. Arguments, addresses and errors as for :func:`randn`; the two share
    their random words, so a value of one is not independent of the other's at the same address.

    Args:
        shape, dtype, device, impl, options: as for :func:`randn`.

    Returns:
        ``shape``, on ``device``.
    """
    return _random(shape, dtype, device, impl, True, options)
