"""Samples at their noise levels, x + sigma z with z ~ N(0, I) drawn inside: ``perturb``."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from fastlangevin import reference
from fastlangevin.noise import (
    Generators,
    Purpose,
    Seed,
    resolve_draw,
    resolve_sample_ids,
    resolve_seed,
    tensor_word,
)
from fastlangevin.ops.arguments import check_labels, compute_dtype, elements_per_sample, floating, like_state
from fastlangevin.ops.memory import address_in_memory, recorded, transforms
from fastlangevin.ops.operation import ADDRESS, register, sample_numbers
from fastlangevin.runtime import choose

__all__ = ["MAX_LEVELS", "perturb"]

# A uniform has 2^23 values.
MAX_LEVELS = 2**23


def _draw_levels(
    labels: Tensor, levels: int, seed: int | Tensor, draw: int | Tensor, sample_ids: Tensor | None, sample_offset: int
) -> None:
    """Fill ``labels`` (B,) with the levels at the samples' addresses."""
    ids = sample_numbers(sample_ids, sample_offset, labels.shape[0], labels.device)
    uniform = reference.rand(1, ids, seed=seed, draw=draw, purpose=Purpose.DSM_LEVEL)
    labels.copy_(reference.level_of(uniform[:, 0], levels))


def _launch(
    out: Tensor,
    x: Tensor,
    sigmas: Tensor,
    labels: Tensor,
    draws_labels: bool,
    seed: int | Tensor,
    draw: int | Tensor,
    sample_ids: Tensor | None,
    sample_offset: int,
    noise: Tensor | None,
    impl: str,
) -> None:
    launchers = choose(impl, x.device)[1]
    if launchers is not None:
        launchers.perturb(
            out,
            x,
            sigmas=sigmas,
            labels=labels,
            draws_labels=draws_labels,
            seed=seed,
            draw=draw,
            sample_ids=sample_ids,
            sample_offset=sample_offset,
            purpose=Purpose.DSM_NOISE,
            level_purpose=Purpose.DSM_LEVEL,
            noise=noise,
        )
        return
    out.copy_(_plain(x, sigmas, labels, draws_labels, seed, draw, sample_ids, sample_offset, noise))


def _plain(
    x: Tensor,
    sigmas: Tensor,
    labels: Tensor,
    draws_labels: bool,
    seed: int | Tensor,
    draw: int | Tensor,
    sample_ids: Tensor | None,
    sample_offset: int,
    noise: Tensor | None,
) -> Tensor:
    """The perturbed samples in plain PyTorch, which every transform sees into."""
    if draws_labels:
        _draw_levels(labels, sigmas.numel(), seed, draw, sample_ids, sample_offset)
    if noise is None:
        ids = sample_numbers(sample_ids, sample_offset, x.shape[0], x.device)
        elements = elements_per_sample(x.shape)
        noise = reference.randn(elements, ids, seed=seed, draw=draw, purpose=Purpose.DSM_NOISE).view(x.shape)
    return reference.perturb(x, sigmas, labels, noise)


def _perturb(
    x: Tensor,
    sigmas: Tensor,
    labels: Tensor | None,
    seed: int | Tensor,
    draw: int | Tensor,
    sample_ids: Tensor | None,
    sample_offset: int,
    noise: Tensor | None,
    impl: str,
) -> tuple[Tensor, Tensor]:
    out = torch.empty_like(x)
    levels = torch.empty(x.shape[0], dtype=torch.int64, device=x.device)
    given = levels if labels is None else labels.contiguous()
    _launch(out, x, sigmas, given, labels is None, seed, draw, sample_ids, sample_offset, noise, impl)
    # An operation may not return what it was given, so the levels that were not drawn come back empty.
    return out, levels if labels is None else levels[:0]


def _fake(x: Tensor, sigmas: Tensor, labels: Tensor | None, *rest: object) -> tuple[Tensor, Tensor]:
    levels = x.shape[0] if labels is None else 0
    return torch.empty_like(x), torch.empty(levels, dtype=torch.int64, device=x.device)


register(
    f"perturb(Tensor x, Tensor sigmas, Tensor? labels, {ADDRESS}, Tensor? noise, str impl) -> (Tensor, Tensor)",
    _perturb,
    _fake,
)


class _Differentiable(torch.autograd.Function):
    """The perturbation moves with the sample."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, *rest: Any) -> tuple[Tensor, Tensor]:
        out, levels = _call(x, *rest)
        ctx.mark_non_differentiable(levels)
        return out, levels

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        return gradients[0], *(None,) * 8


def _call(x: Tensor, sigmas: Tensor, labels: Tensor | None, seed: Seed, draw: int | Tensor, *rest: Any) -> Any:
    if recorded():
        words = tensor_word(seed, x), tensor_word(draw, x)
        return torch.ops.fastlangevin.perturb(x, sigmas, labels, *words, *rest)
    return _perturb(x, sigmas, labels, seed, draw, *rest)


def perturb(
    x: Tensor,
    sigmas: Tensor,
    *,
    labels: Tensor | None = None,
    seed: Seed | None = None,
    generator: Generators | None = None,
    draw: int | Tensor = 0,
    sample_ids: Tensor | Sequence[int] | None = None,
    sample_offset: int = 0,
    noise: Tensor | None = None,
    impl: str = "auto",
) -> tuple[Tensor, Tensor]:
    """Samples at their noise levels: x + sigma_label z, in one pass.

    Computed in fp32 (fp64 for fp64 samples) as ``fl(x + fl(sigma z))`` and rounded once to the samples' dtype, with the
    same bits on every implementation. :func:`dsm` draws the same z again. Differentiable in ``x``.

    Args:
        x: clean samples ``(B, *)``, float32, float16, bfloat16 or float64, in any layout.
        sigmas: noise levels ``(L,)`` in the units of ``x``, on its device; L up to 2^23.
        labels: int64 ``(B,)``, the level of each sample, 0 = first sigma; by default drawn uniformly, by address.
        seed: 0 to 2^64 - 1, or an int64 tensor of shape ``()`` or ``(B,)`` with the seeds' bits.
        generator: instead of ``seed``; see :func:`fastlangevin.step`.
        draw: the training step, 0 to 2^32 - 1, or a 0-dim int64 tensor that holds it.
        sample_ids: ``B`` global sample ids; by default ``sample_offset`` and up.
        sample_offset: id of the first sample.
        noise: z itself, same shape, instead of a seed; then ``labels`` must be given too.
        impl: ``"auto"``, ``"triton"``, ``"cpp"`` or ``"reference"``.

    Returns:
        The perturbed samples, with shape, dtype and layout of ``x``, and the labels.

    Raises:
        TypeError, ValueError: an argument is of the wrong kind, shape, device or range.
        RuntimeError: ``impl`` cannot run here.
    """
    x = floating("x", x)
    if x.ndim < 1:
        raise ValueError("x must be a batch (B, *), got a tensor without dimensions; use x[None]")
    elements_per_sample(x.shape)
    sigmas = floating("sigmas", sigmas)
    if sigmas.ndim != 1 or not 1 <= sigmas.numel() <= MAX_LEVELS:
        raise ValueError(
            f"sigmas must be one row of 1 to {MAX_LEVELS} noise levels, (L,), got shape {tuple(sigmas.shape)}"
        )
    if sigmas.device != x.device:
        raise ValueError(f"sigmas are on {sigmas.device} but x is on {x.device}; move them with .to(x.device)")
    batch = x.shape[0]
    if labels is not None:
        labels = check_labels(labels, batch, sigmas.numel()).to(x.device)
    ids, offset = resolve_sample_ids(sample_ids, sample_offset, batch, x.device)
    draw = resolve_draw(draw, x.device)
    if noise is not None:
        if seed is not None or generator is not None:
            raise ValueError("noise= is the noise itself: give it, or a seed= or generator= to draw it from, not both")
        if labels is None:
            raise ValueError("noise= leaves no seed to draw levels from: give labels= too")
        noise = like_state("noise", noise, x)
        seed = 0
    else:
        seed = resolve_seed(seed, generator, batch, x.device)
    seed, draw, ids = address_in_memory(seed, draw, ids)
    rest = (sigmas.detach().to(compute_dtype(x)).contiguous(), labels, seed, draw, ids, offset, noise, impl)
    if transforms():
        choose(impl, x.device)
        levels = torch.empty(batch, dtype=torch.int64, device=x.device) if labels is None else labels
        return _plain(x, rest[0], levels, labels is None, seed, draw, ids, offset, noise), levels
    differentiable = torch.is_grad_enabled() and x.requires_grad
    out, drawn = _Differentiable.apply(x, *rest) if differentiable else _call(x, *rest)
    return out, drawn if labels is None else labels
