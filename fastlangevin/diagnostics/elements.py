"""A trajectory, a few of its elements at a time: what bounds the memory of every diagnostic."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from fastlangevin.noise import integer
from fastlangevin.ops.arguments import floating
from fastlangevin.samplers import SamplingResult

__all__ = [
    "FEWEST_FRAMES",
    "Dims",
    "by_element",
    "centred",
    "check_choice",
    "check_trajectory",
    "picked",
    "split",
    "variance",
]

FEWEST_FRAMES = 4  # two for each half of a chain

# Tensors of at most this much are held beside trajectory and result, or what one element needs where that is more. A
# draw takes up to 66 bytes at the worst moment, in the transforms of padded chains (measured on a CPU). What a device's
# sort and transform take for themselves comes on top and was not measured.
WORKING_BYTES = 2**28
BYTES_PER_DRAW = 80

Dims = Sequence[int]


def check_trajectory(trajectory: Any, dims: Dims | None = None) -> Tensor:
    """A trajectory as ``(F, B, ...)``; raises where it is none, or too short."""
    if isinstance(trajectory, SamplingResult):
        raise TypeError("trajectory must be a tensor (F, B, ...), got a SamplingResult; pass its .trajectory")
    if trajectory is None:
        raise TypeError("trajectory is None: no frames were kept; sample with trajectory=k, full_output=True")
    tensor = floating("trajectory", trajectory).detach()
    if tensor.ndim < 2:
        raise ValueError(
            f"trajectory must be (F, B, ...), frame, chain and state, got shape {tuple(tensor.shape)}; one chain is "
            "trajectory[:, None]"
        )
    if dims is not None:
        tensor = tensor.movedim(_pair(dims, tensor), (0, 1))
    if tensor.shape[0] < FEWEST_FRAMES:
        raise ValueError(
            f"trajectory must have at least {FEWEST_FRAMES} frames, got {tensor.shape[0]} in shape "
            f"{tuple(trajectory.shape)}; keep more, with a smaller trajectory=k or more steps"
        )
    if not tensor.numel():
        raise ValueError(
            f"trajectory must have at least one chain and one element, got shape {tuple(trajectory.shape)}"
        )
    return tensor


def _pair(dims: Any, tensor: Tensor) -> tuple[int, int]:
    if not isinstance(dims, Sequence) or isinstance(dims, str) or len(dims) != 2:
        raise ValueError(f"dims must be two dimensions, (frame, chain), such as (0, 1), got {dims!r}")
    frame, chain = (integer("dims", each, -tensor.ndim, tensor.ndim - 1) % tensor.ndim for each in dims)
    if frame == chain:
        raise ValueError(f"dims must be two different dimensions, (frame, chain), got {tuple(dims)}")
    return frame, chain


def check_choice(name: str, value: object, choices: Sequence[str]) -> None:
    if value not in choices:
        raise ValueError(f"{name} must be one of {', '.join(choices)}, got {value!r}")


def by_element(trajectory: Tensor, statistic: Callable[[Tensor], Tensor]) -> Tensor:
    """A statistic of every element of the state.

    Args:
        trajectory: ``(F, B, ...)`` of any strides.
        statistic: takes fp64 ``(E, B, F)``, the draws of some elements, and returns ``(*K, E)``.

    Returns:
        fp64 ``(*K, ...)``.
    """
    frames, chains, *state = trajectory.shape
    elements = math.prod(state)
    some = max(1, WORKING_BYTES // (BYTES_PER_DRAW * frames * chains))
    parts = []
    for first in range(0, elements, some):
        numbers = torch.arange(first, min(first + some, elements), dtype=torch.int64, device=trajectory.device)
        part = picked(trajectory, numbers)
        draws = torch.empty((len(numbers), chains, frames), dtype=torch.float64, device=trajectory.device)
        draws.copy_(part.permute(2, 1, 0))
        del part
        parts.append(statistic(draws))
        del draws
    whole = torch.cat(parts, dim=-1)
    return whole.reshape((*whole.shape[:-1], *state))


def picked(trajectory: Tensor, numbers: Tensor) -> Tensor:
    """``(F, B, E)``: elements by their numbers, int64 ``(E,)``, in row-major order of the state.

    By index and not by a flat view, which a trajectory of channels-last states would have to be copied for.
    """
    if trajectory.ndim == 2:
        return trajectory[:, :, None][:, :, numbers]
    index: Any = (slice(None), slice(None), *torch.unravel_index(numbers, trajectory.shape[2:]))
    return trajectory[index]


def split(draws: Tensor) -> Tensor:
    """``(E, B, F)`` as ``(E, 2 B, F // 2)``: halves of chains, without the middle frame where F is odd."""
    half = draws.shape[-1] // 2
    return torch.cat((draws[..., :half], draws[..., -half:]), dim=1)


def centred(x: Tensor) -> tuple[Tensor, Tensor]:
    """The mean along the last dimension, and what is left of ``x`` without it.

    Both by way of the first value, so that a constant is its own mean and leaves exactly zero, which the mean of n
    equal numbers need not do.
    """
    first = x[..., :1]
    left = x - first
    mean = left.mean(-1, keepdim=True)
    left -= mean
    return (first + mean).squeeze(-1), left


def variance(x: Tensor) -> Tensor:
    """The variance along the last dimension, of normaliser n - 1; exactly zero for a constant."""
    return centred(x)[1].square().sum(-1) / (x.shape[-1] - 1)
