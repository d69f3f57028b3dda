"""Denoising score matching over a ladder of noise levels (Vincent 2011; Song and Ermon 2019, equations 5 and 6).

For a sample x, a level i and a standard normal z, with x' = x + sigma_i z,

    l = lambda(sigma_i) / 2 ||s(x', i) + z / sigma_i||^2 = 1/2 ||sigma_i s(x', i) + z||^2,   lambda(sigma) = sigma^2

The right-hand side is what is computed: it never divides by sigma. The norm sums over the elements of a sample. Levels
are uniform over the ladder, so the batch mean estimates the objective, the mean over levels, without bias.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal

import torch
from torch import Tensor

from fastlangevin import noise, ops
from fastlangevin.models.base import check_labels
from fastlangevin.noise import Generators, Purpose, Seed
from fastlangevin.schedules import Sigmas, check_sigmas

__all__ = ["dsm_labels", "dsm_loss"]

# A uniform has 2^23 values.
MAX_LEVELS = 2**23


def dsm_labels(
    batch: int,
    levels: int,
    *,
    seed: Seed,
    step: int | Tensor = 0,
    sample_ids: Tensor | Sequence[int] | None = None,
    sample_offset: int = 0,
    device: torch.device | str | None = None,
) -> Tensor:
    """The noise level of each sample of a training step: floor(levels * u), u the uniform at the sample's address.

    Args:
        batch: samples B.
        levels: levels L of the ladder, up to 2^23.
        seed: 64-bit seed of the run, or int64 tensor of them; see :mod:`fastlangevin.noise`.
        step: training step, the draw number of the address.
        sample_ids: ids of the samples, default ``sample_offset + 0 .. B-1``.
        sample_offset: first id.
        device: where the labels are wanted.

    Returns:
        int64 ``(B,)``, 0 = largest sigma.
    """
    levels = noise.integer("levels", levels, 1, MAX_LEVELS)
    uniform = ops.rand(
        (batch, 1),
        seed=seed,
        draw=step,
        purpose=Purpose.DSM_LEVEL,
        sample_ids=sample_ids,
        sample_offset=sample_offset,
        device=device,
    )
    # u is an odd multiple of 2^-24, so the floor is exact in integers; in fp32 the product could round up to L.
    return ((uniform[:, 0] * 2.0**24).long() * levels) >> 24


def dsm_loss(
    net: Callable[[Tensor, Tensor], Tensor],
    x: Tensor,
    sigmas: Sigmas,
    *,
    seed: Seed | None = None,
    generator: Generators | None = None,
    step: int | Tensor = 0,
    labels: Tensor | None = None,
    sample_ids: Tensor | Sequence[int] | None = None,
    sample_offset: int = 0,
    reduction: Literal["mean", "sum", "none"] = "mean",
) -> Tensor:
    """Annealed denoising score matching loss with weight sigma^2.

    Args:
        net: score network, ``net(x, labels)`` gives the score ``(B, *)``; labels int64 ``(B,)``, 0 = largest sigma.
        x: clean samples ``(B, *)``, any float dtype.
        sigmas: ladder ``(L,)`` in the units of ``x``.
        seed: 64-bit seed of the run; levels and noise are functions of it, the step and the sample's id.
        generator: instead of ``seed``, a ``torch.Generator`` (or one for each sample) that a seed is drawn from. With
            neither, the seed comes from PyTorch's default CPU generator.
        step: training step, 0 to 2^32 - 1, or an int64 tensor ``()``. With a fixed seed it must change from step to
            step: the same step has the same noise.
        labels: int64 ``(B,)``, the level of each sample; by default drawn uniformly with :func:`dsm_labels`.
        sample_ids: ids of the samples, default ``sample_offset + 0 .. B-1``. A rank of a distributed run passes its
            place in the global batch, and the run does not depend on the number of ranks.
        sample_offset: first id.
        reduction: ``"mean"`` over the batch, ``"sum"``, or ``"none"`` for one value for each sample.

    Returns:
        fp32 (fp64 for fp64 data): ``()``, or ``(B,)`` with ``reduction="none"``. Elements are summed, not averaged: a
        network that returns zero has expectation D/2 for D elements in a sample.
    """
    if not callable(net):
        raise TypeError(f"net must be callable as net(x, labels), got {type(net).__name__}")
    if not isinstance(x, Tensor) or not x.dtype.is_floating_point:
        kind = x.dtype if isinstance(x, Tensor) else type(x).__name__
        raise TypeError(f"x must be a tensor of floating-point numbers, got {kind}; convert it with x.float()")
    if x.ndim < 2 or not x.numel():
        raise ValueError(f"x must be a batch (B, *) with at least one sample and one element, got {tuple(x.shape)}")
    if reduction not in ("mean", "sum", "none"):
        raise ValueError(f"reduction must be 'mean', 'sum' or 'none', got {reduction!r}")
    if not isinstance(step, Tensor):
        step = noise.integer("step", step, 0, noise.MAX_DRAW)
    dtype = torch.float64 if x.dtype == torch.float64 else torch.float32
    ladder = _ladder(sigmas).to(device=x.device, dtype=dtype)
    batch = x.shape[0]
    if labels is not None:
        check_labels(labels, batch, ladder.numel())
    seed = noise.resolve_seed(seed, generator, batch, x.device)
    if labels is None:
        labels = dsm_labels(
            batch,
            ladder.numel(),
            seed=seed,
            step=step,
            sample_ids=sample_ids,
            sample_offset=sample_offset,
            device=x.device,
        )
    z = ops.randn(
        tuple(x.shape),
        seed=seed,
        draw=step,
        purpose=Purpose.DSM_NOISE,
        sample_ids=sample_ids,
        sample_offset=sample_offset,
        device=x.device,
        dtype=dtype,
    )
    sigma = ladder[labels].reshape(-1, *[1] * (x.ndim - 1))
    score = net((x.to(dtype) + sigma * z).to(x.dtype), labels)
    if not isinstance(score, Tensor) or score.shape != x.shape:
        found = tuple(score.shape) if isinstance(score, Tensor) else type(score).__name__
        raise ValueError(f"net must return a score of the shape of x, {tuple(x.shape)}, got {found}")
    if not score.dtype.is_floating_point:
        raise TypeError(f"net must return a score of floating-point numbers, got {score.dtype}")
    values = (sigma * score.to(dtype) + z).square().flatten(1).sum(1) * 0.5
    if reduction == "none":
        return values
    return values.mean() if reduction == "mean" else values.sum()


def _ladder(sigmas: Sigmas) -> Tensor:
    """The ladder as a tensor; values on a device are trusted, since reading them would make the host wait."""
    if not isinstance(sigmas, Tensor) or sigmas.device.type == "cpu":
        return torch.tensor(check_sigmas(sigmas), dtype=torch.float64)
    if sigmas.ndim != 1 or not sigmas.numel():
        raise ValueError(f"sigmas must be one row of noise levels, (L,), got shape {tuple(sigmas.shape)}")
    return sigmas.detach()
