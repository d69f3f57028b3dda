"""Argument checks of the operations. Each error names the argument, its value and what to do."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor

from fastlangevin.memory import in_memory, recorded
from fastlangevin.noise import MAX_ELEMENTS
from fastlangevin.values import is_complex, is_integer, is_number, shown

FLOATS = (torch.float32, torch.float16, torch.bfloat16, torch.float64)
FLOAT_NAMES = "float32, float16, bfloat16 or float64"
# A uniform has 2^23 values.
MAX_LEVELS = 2**23

Coefficient = float | Tensor


def conversion(dtype: torch.dtype, otherwise: str = "convert it with .to(torch.float32)") -> str:
    """Advice for a tensor that is not of a float dtype; never a cast that silently drops an imaginary part."""
    if dtype.is_complex:
        return (
            "pass real and imaginary parts as elements of their own by torch.view_as_real(...); .real would drop the "
            "imaginary part"
        )
    return otherwise


def are_plain(*values: Any) -> bool:
    """Returns whether values are plain float tensors with values in memory. Not for a compiler to look into."""
    for value in values:
        if not (
            type(value) is Tensor
            and value.dtype in FLOATS
            and value.layout is torch.strided
            and not (value.is_neg() or value._is_zerotensor())
        ):
            return False
    return True


def floating(name: str, value: Any) -> Tensor:
    """The float tensor with its value in its memory, which is what the operations read: see :func:`in_memory`."""
    if not torch.compiler.is_dynamo_compiling() and are_plain(value):
        return value  # type: ignore[no-any-return]
    if not isinstance(value, Tensor):
        raise TypeError(f"{name} must be a torch.Tensor, got {type(value).__name__}; torch.as_tensor() makes one")
    if value.dtype not in FLOATS:
        raise TypeError(f"{name} must be {FLOAT_NAMES}, got {value.dtype}; {conversion(value.dtype)}")
    if value.layout != torch.strided or type(value).__name__ == "DTensor":
        raise TypeError(f"{name} must be a plain strided tensor, got {type(value).__name__} with layout {value.layout}")
    return in_memory(name, value)


def like_state(name: str, value: Any, x: Tensor, *, broadcasts: bool = False) -> Tensor:
    """A float tensor on the state's device with its shape, or one that broadcasts to it."""
    tensor = floating(name, value)
    same_place(name, tensor, x)
    if tensor.shape != x.shape and not (broadcasts and _broadcasts(tensor, x)):
        raise ValueError(f"{name} must have the state's shape {tuple(x.shape)}, got {tuple(tensor.shape)}")
    return tensor


def same_place(name: str, value: Tensor, x: Tensor) -> None:
    if value.device != x.device:
        raise ValueError(
            f"{name} is on {value.device} but the state is on {x.device}; move it with .to({str(x.device)!r})"
        )


def _broadcasts(value: Tensor, x: Tensor) -> bool:
    if value.ndim > x.ndim:
        return False
    return all(size in (1, full) for size, full in zip(reversed(value.shape), reversed(x.shape), strict=False))


def compute_dtype(x: Tensor) -> torch.dtype:
    """The dtype that the update is computed in: fp64 for an fp64 state, else fp32."""
    return torch.float64 if x.dtype == torch.float64 else torch.float32


def coefficient(name: str, value: Any, x: Tensor) -> Coefficient:
    """A float, or a tensor of the compute dtype of shape (), (B, 1, ..., 1) or one that broadcasts to the state.

    A one-dimensional tensor is a value per sample, whatever the state's other sizes are.
    """
    if type(value) is float:
        number = value
    elif isinstance(value, Tensor):
        return _tensor_coefficient(name, value, x)
    elif not is_number(value):
        raise TypeError(f"{name} must be a number or a tensor, got {shown(value)} ({type(value).__name__})")
    else:
        number = _number(name, value)
    if not torch.compiler.is_compiling() and not abs(number) <= torch.finfo(compute_dtype(x)).max:
        raise ValueError(
            f"{name} must be finite in the {compute_dtype(x)} that the update is computed in, got {number}"
        )
    return number


def _number(name: str, value: Any) -> float:
    if is_complex(value):
        raise TypeError(f"{name} must be a real number or a tensor, got {value!r} ({type(value).__name__})")
    try:
        return float(value)
    except (TypeError, ValueError, OverflowError) as error:
        raise ValueError(f"{name} must be one finite number, or a tensor, got {shown(value)}") from error


def _tensor_coefficient(name: str, value: Tensor, x: Tensor) -> Coefficient:
    value = floating(name, value)
    if value.requires_grad and torch.is_grad_enabled():
        raise ValueError(f"{name} requires a gradient, which is not computed for coefficients; pass {name}.detach()")
    if value.ndim == 0:
        if value.device != x.device and value.device.type == "cpu" and not torch.compiler.is_compiling():
            return float(value)
    elif value.ndim == 1 and x.ndim != 1:
        batch = x.shape[0] if x.ndim else 1
        if value.shape[0] != batch:
            raise ValueError(
                f"{name} with one dimension is a value per sample: it must have {batch} entries for a state of "
                f"shape {tuple(x.shape)}, got {value.shape[0]}"
            )
        value = value.reshape(-1, *(1,) * (x.ndim - 1)) if x.ndim else value[0]
    elif value.ndim != x.ndim or not _broadcasts(value, x):
        raise ValueError(
            f"{name} must be a number or a tensor of shape (), ({x.shape[0] if x.ndim else 1},) or one that broadcasts "
            f"to {tuple(x.shape)} with as many dimensions, got {tuple(value.shape)}"
        )
    same_place(name, value, x)
    return value.to(compute_dtype(x))


def sizes(shape: Any) -> tuple[int, ...]:
    """A shape as a tuple of ints."""
    if type(shape) is tuple or type(shape) is torch.Size:
        plain = True
        for size in shape:
            plain = plain and type(size) is int and size >= 0
        if plain:
            return tuple(shape)
    if isinstance(shape, str) or not isinstance(shape, Iterable):
        raise TypeError(f"shape must be a sequence of integers such as (64, 3, 32, 32), got {shown(shape)}")
    if getattr(shape, "ndim", 1) != 1:
        raise TypeError(f"shape must have one dimension, such as (64, 3, 32, 32), got {shown(shape)}")
    values = tuple(shape)
    if not all(map(is_integer, values)):
        raise TypeError(f"shape must be a sequence of integers such as (64, 3, 32, 32), got {shown(shape)}")
    if any(size < 0 for size in values):
        raise ValueError(f"shape must have no negative size, got {shown(values)}")
    return tuple(size if torch.compiler.is_compiling() else int(size) for size in values)


def check_labels(labels: Tensor, batch: int, levels: int, *, values: bool = True) -> Tensor:
    """The labels with their values in memory, where they are int64 ``(batch,)`` in [0, levels).

    Values are not read where they are on a device, nor with ``values=False``.
    """
    if not isinstance(labels, Tensor) or labels.dtype != torch.int64:
        kind = labels.dtype if isinstance(labels, Tensor) else type(labels).__name__
        raise TypeError(f"labels must be an int64 tensor ({batch},) of levels, got {kind}; use torch.full or .long()")
    if labels.shape != (batch,):
        raise ValueError(f"labels must have one level for each sample, shape ({batch},), got {tuple(labels.shape)}")
    labels = in_memory("labels", labels)
    if values and labels.device.type == "cpu" and batch and not recorded():
        low, high = (int(each) for each in labels.aminmax())
        if low < 0 or high >= levels:
            raise ValueError(f"labels must be from 0 (largest sigma) to {levels - 1}, got {low if low < 0 else high}")
    return labels


def elements_per_sample(shape: torch.Size | tuple[int, ...]) -> int:
    elements = math.prod(shape[1:])
    if elements > MAX_ELEMENTS:
        raise ValueError(
            f"a sample of shape {tuple(shape[1:])} has {elements} elements; the address has room for {MAX_ELEMENTS}"
        )
    return elements
