"""Euclidean norms of samples, and of noise by its address: in the written order of the objective's sums."""

from __future__ import annotations

import torch
from torch import Tensor

from fastlangevin import reference
from fastlangevin.noise import Purpose
from fastlangevin.ops.arguments import compute_dtype, elements_per_sample
from fastlangevin.ops.memory import in_memory, observed
from fastlangevin.ops.operation import sample_numbers
from fastlangevin.runtime import choose

__all__ = ["noise_norms", "norms_with_noise", "sample_norms"]


def sample_norms(x: Tensor, *, impl: str = "auto") -> Tensor:
    """The norm of each sample, ``(B,)`` in the computing dtype: the same bits in any batch and on any implementation.

    Args:
        x: ``(B, ...)``, any float dtype and strides.
        impl: ``"auto"``, ``"triton"``, ``"cpp"`` or ``"reference"``.
    """
    return _norms(x, (True, False), None, 0, 0, None, 0, Purpose.LANGEVIN, impl)[0]


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
    return _norms(like, (False, True), None, seed, draw, sample_ids, sample_offset, purpose, impl)[0]


def norms_with_noise(
    x: Tensor,
    *,
    noise: Tensor | None = None,
    seed: int | Tensor = 0,
    draw: int | Tensor = 0,
    sample_ids: Tensor | None = None,
    sample_offset: int = 0,
    purpose: int = Purpose.LANGEVIN,
    impl: str = "auto",
) -> tuple[Tensor, Tensor]:
    """:func:`sample_norms` of ``x`` and :func:`noise_norms` of its update, in one launch.

    Args:
        x: as for :func:`sample_norms`.
        noise: the noise itself, same shape, any float dtype, in the place of its address.
        seed, draw, sample_ids, sample_offset, purpose, impl: as for :func:`noise_norms`.
    """
    of_x, of_noise = _norms(x, (True, True), noise, seed, draw, sample_ids, sample_offset, purpose, impl)
    return of_x, of_noise


def _norms(
    x: Tensor,
    wanted: tuple[bool, bool],
    noise: Tensor | None,
    seed: int | Tensor,
    draw: int | Tensor,
    sample_ids: Tensor | None,
    sample_offset: int,
    purpose: int,
    impl: str,
) -> Tensor:
    """Norms ``(K, B)``, of x and of the noise, as they are ``wanted``."""
    of_x, of_noise = wanted
    out = torch.zeros(of_x + of_noise, x.shape[0], dtype=compute_dtype(x), device=x.device)
    if x.numel() == 0:
        return out
    elements = elements_per_sample(x.shape)
    launchers = choose(impl, x.device)[1]
    # Not a registered operation: what sees its call is shown plain PyTorch.
    if launchers is not None and not observed():
        x = in_memory("x", x)
        noise = None if noise is None else in_memory("noise", noise)
        launchers.norms(
            out,
            x,
            of_x=of_x,
            of_noise=of_noise,
            noise=noise,
            seed=seed,
            draw=draw,
            sample_ids=sample_ids,
            sample_offset=sample_offset,
            purpose=purpose,
            segment=reference.segment_elements(elements),
        )
        return out
    if of_x:
        out[0] = reference.norms(x)
    if of_noise:
        if noise is None:
            ids = sample_numbers(sample_ids, sample_offset, x.shape[0], x.device)
            noise = reference.randn(elements, ids, seed=seed, draw=draw, purpose=purpose).view(x.shape)
        out[-1] = reference.norms(noise.to(out.dtype))
    return out
