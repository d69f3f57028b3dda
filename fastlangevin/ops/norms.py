"""Euclidean norms of samples, and of noise by its address: in the written order of the objective's sums."""

from __future__ import annotations

import torch
from torch import Tensor

from fastlangevin import reference
from fastlangevin.noise import Purpose
from fastlangevin.ops.arguments import compute_dtype, elements_per_sample
from fastlangevin.ops.launch import sample_numbers
from fastlangevin.runtime import choose

__all__ = ["noise_norms", "sample_norms"]


def sample_norms(x: Tensor, *, impl: str = "auto") -> Tensor:
    """The norm of each sample, ``(B,)`` in the computing dtype: the same bits in any batch and on any implementation.

    Args:
        x: ``(B, ...)``, any float dtype and strides.
        impl: ``"auto"``, ``"triton"``, ``"cpp"`` or ``"reference"``.
    """
    return _norms(x, x, 0, 0, None, 0, Purpose.LANGEVIN, impl)


def noise_norms(
    like: Tensor,
    *,
    seed: int | Tensor,
    draw: int | Tensor,
    sample_ids: Tensor | None = None,
    sample_offset: int = 0,
    purpose: int = Purpose.LANGEVIN,
    impl: str = "auto",
) -> Tensor:
    """The norm of the noise that an update of ``like`` draws, ``(B,)``; the noise itself is not stored.

    Args:
        like: ``(B, ...)``, whose shape and device are taken.
        seed, draw, sample_ids, sample_offset, purpose: the address of the noise, resolved.
        impl: as for :func:`sample_norms`.
    """
    return _norms(like, None, seed, draw, sample_ids, sample_offset, purpose, impl)


def _norms(
    x: Tensor,
    noise: Tensor | None,
    seed: int | Tensor,
    draw: int | Tensor,
    sample_ids: Tensor | None,
    sample_offset: int,
    purpose: int,
    impl: str,
) -> Tensor:
    """Values 2/2 ||0 h + z||^2 of the denoising objective, z being the noise given or drawn."""
    dtype = compute_dtype(x)
    batch = x.shape[0]
    if x.numel() == 0:
        return x.new_zeros(batch, dtype=dtype)
    labels = torch.zeros(batch, dtype=torch.int64, device=x.device)
    zero, two = x.new_zeros(1, dtype=dtype), x.new_full((1,), 2.0, dtype=dtype)
    nothing = x.new_zeros(()).expand(x.shape)
    launchers = choose(impl, x.device)[1]
    if launchers is None:
        if noise is None:
            ids = sample_numbers(sample_ids, sample_offset, batch, x.device)
            elements = elements_per_sample(x.shape)
            noise = reference.randn(elements, ids, seed=seed, draw=draw, purpose=purpose).view(x.shape)
        values = reference.dsm(nothing, labels, zero, two, zero, two[0], clean=None, noise=noise, gradient=False)[0]
        return values.sqrt()
    values = x.new_empty(batch, dtype=dtype)
    launchers.dsm(
        values,
        x.new_empty(1, dtype=dtype),
        x.new_empty(1, dtype=torch.int64),
        x.new_empty((), dtype=dtype),
        None,
        nothing,
        clean=None,
        labels=labels,
        scale=zero,
        weight=two,
        slope=zero,
        upstream=two[0],
        seed=seed,
        draw=draw,
        sample_ids=sample_ids,
        sample_offset=sample_offset,
        purpose=purpose,
        noise=noise,
        segment=reference.segment_elements(elements_per_sample(x.shape)),
    )
    return values.sqrt()
