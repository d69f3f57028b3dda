"""Shared parts of the score matching objectives: argument checks and the reduction over the batch."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, get_args

import torch
from torch import Tensor

from fastlangevin.calling import wrong_shape
from fastlangevin.ladders import Sigmas, check_sigmas
from fastlangevin.memory import in_memory
from fastlangevin.ops.arguments import conversion, floating
from fastlangevin.ops.dsm import Reduction

Score = Callable[[Tensor], Tensor]


def check_batch(score: tuple[str, Any], x: Any, reduction: Any, takes: str = "x") -> None:
    """Raises unless the named score is callable, ``x`` a batch of numbers and the reduction known."""
    name, value = score
    if not callable(value):
        raise TypeError(f"{name} must be callable as {name}({takes}), got {type(value).__name__}")
    floating("x", x)
    if x.ndim < 2 or not x.numel():
        raise ValueError(f"x must be a batch (B, *) with at least one sample and one element, got {tuple(x.shape)}")
    check_reduction(reduction)


def check_reduction(reduction: Any) -> None:
    if reduction not in get_args(Reduction):
        raise ValueError(f"reduction must be 'mean', 'sum' or 'none', got {reduction!r}")


def check_returned(name: str, value: Any, x: Tensor) -> Tensor:
    """A score as its function returned it, with its values in memory, or an error that says what is wrong with it."""
    if not isinstance(value, Tensor) or value.shape != x.shape:
        raise ValueError(wrong_shape(name, value, x))
    if not value.dtype.is_floating_point:
        mend = conversion(value.dtype)
        raise TypeError(f"{name} must return a score of floating-point numbers, got {value.dtype}; {mend}")
    if value.device != x.device:
        raise ValueError(f"{name} must return a score on {x.device}, where x is, got one on {value.device}")
    return in_memory(f"the score that {name} returns", value)


def ladder_of(sigmas: Sigmas) -> Tensor:
    """The ladder in fp64; values on a device are trusted, since reading them would make the host wait."""
    if isinstance(sigmas, Tensor) and (sigmas.device.type != "cpu" or torch.compiler.is_compiling()):
        if sigmas.ndim != 1 or not sigmas.numel():
            raise ValueError(f"sigmas must be one row of noise levels, (L,), got shape {tuple(sigmas.shape)}")
        return sigmas.detach().double()
    return torch.tensor(check_sigmas(sigmas), dtype=torch.float64, device="cpu")


def per_sample(values: Tensor) -> Tensor:
    """The sum over the elements of each sample, ``(B, *)`` to ``(B,)``."""
    return values.flatten(1).sum(1)


def reduced(values: Tensor, reduction: Reduction) -> Tensor:
    if reduction == "none":
        return values
    return values.mean() if reduction == "mean" else values.sum()
