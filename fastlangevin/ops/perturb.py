"""Samples at their noise levels, x + sigma z with z ~ N(0, I) drawn inside: ``perturb``."""

from __future__ import annotations

from typing import Any, Unpack

import torch
from torch import Tensor

from fastlangevin import reference
from fastlangevin.kernels.address import Address
from fastlangevin.kernels.operands import Perturbation
from fastlangevin.memory import transforms
from fastlangevin.noise import Purpose, SampleOptions, resolve
from fastlangevin.ops import quick
from fastlangevin.ops.arguments import (
    MAX_LEVELS,
    check_labels,
    compute_dtype,
    elements_per_sample,
    floating,
    like_state,
)
from fastlangevin.ops.operation import ADDRESS, Operation, flat_address
from fastlangevin.runtime import Launchers

__all__ = ["LEVEL_PURPOSE", "perturb", "perturb_at"]

LEVEL_PURPOSE = int(Purpose.DSM_LEVEL)
_NOISE = int(Purpose.DSM_NOISE)


def _launch(launchers: Launchers, given: Perturbation) -> tuple[Tensor, Tensor]:
    x, labels = given.x, given.labels
    out = torch.empty_like(x)
    # An operation may not return what it was given, so the levels that were not drawn come back empty.
    drawn = x.new_empty(x.shape[0], dtype=torch.int64) if labels is None else labels.new_empty(0)
    launchers.perturb(out, drawn if labels is None else None, given)
    return out, drawn


def _plain(given: Perturbation) -> tuple[Tensor, Tensor]:
    """The perturbed samples in plain PyTorch, which every transform sees into."""
    out, labels = reference.perturb(given)
    return out, labels if given.labels is None else labels.new_empty(0)


def _fake(x: Tensor, sigmas: Tensor, labels: Tensor | None, *rest: object) -> tuple[Tensor, Tensor]:
    levels = x.shape[0] if labels is None else 0
    return torch.empty_like(x), torch.empty(levels, dtype=torch.int64, device=x.device)


def _flat(given: Perturbation) -> tuple[Any, ...]:
    return *given[:3], *flat_address(given.address, given.x), given.noise


def _typed(x: Tensor, sigmas: Tensor, labels: Tensor | None, *rest: Any) -> tuple[Perturbation]:
    *address, noise = rest
    given = labels if labels is None else labels.contiguous()
    return (Perturbation(x, sigmas, given, Address(*address), LEVEL_PURPOSE, noise),)


_PERTURB = Operation(
    f"perturb(Tensor x, Tensor sigmas, Tensor? labels, {ADDRESS}, Tensor? noise) -> (Tensor, Tensor)",
    _launch,
    plain=_plain,
    fake=_fake,
    flatten=_flat,
    typed=_typed,
)


class _Differentiable(torch.autograd.Function):
    """The perturbation moves with the sample."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, sigmas: Tensor, labels: Tensor | None, *rest: Any) -> tuple[Tensor, Tensor]:
        *address, noise, impl = rest
        given = Perturbation(x, sigmas, labels, Address(*address), LEVEL_PURPOSE, noise)
        out, levels = _PERTURB(impl, x.device, given)
        ctx.mark_non_differentiable(levels)
        return out, levels

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        return gradients[0], *(None,) * 9


def perturb_at(given: Perturbation, impl: str) -> tuple[Tensor, Tensor]:
    """:func:`perturb` of what was checked: the perturbed samples, and the labels."""
    x, labels = given.x, given.labels
    if torch.is_grad_enabled() and x.requires_grad and not transforms():
        out, drawn = _Differentiable.apply(*given[:3], *given.address, given.noise, impl)
    else:
        out, drawn = _PERTURB(impl, x.device, given)
    return out, drawn if labels is None else labels


def perturb(
    x: Tensor,
    sigmas: Tensor,
    *,
    labels: Tensor | None = None,
    draw: int | Tensor = 0,
    noise: Tensor | None = None,
    impl: str = "auto",
    **samples: Unpack[SampleOptions],
) -> tuple[Tensor, Tensor]:
    """Samples at their noise levels: x + sigma_label z, in one pass.

    Computed in fp32 (fp64 for fp64 samples) as ``fl(x + fl(sigma z))`` and rounded once to the samples' dtype, with the
    same bits on every implementation. :func:`dsm` draws the same z again. Differentiable in ``x``.

    Args:
        x: clean samples ``(B, *)``, float32, float16, bfloat16 or float64, in any layout.
        sigmas: noise levels ``(L,)`` in the units of ``x``, on its device; L up to 2^23.
        labels: int64 ``(B,)``, the level of each sample, 0 = first sigma; by default drawn uniformly, by address.
        draw: the training step, 0 to 2^32 - 1, or a 0-dim int64 tensor that holds it.
        noise: z itself, same shape, instead of a seed; then ``labels`` must be given too.
        impl: ``"auto"``, ``"triton"``, ``"cpp"`` or ``"reference"``.
        samples: the seed and the samples' ids, :class:`fastlangevin.noise.SampleOptions`.

    Returns:
        The perturbed samples, with shape, dtype and layout of ``x``, and the labels.

    Raises:
        TypeError, ValueError: an argument is of the wrong kind, shape, device or range.
        RuntimeError: ``impl`` cannot run here.
    """
    done = None
    if noise is None:
        done = quick.perturb(x, sigmas, labels, LEVEL_PURPOSE, quick.words(_NOISE, draw=draw, **samples), impl)
    if done is not None:
        return done
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
        labels = check_labels(labels, batch, sigmas.numel()).to(x.device).contiguous()
    if noise is not None:
        if samples.get("seed") is not None or samples.get("generator") is not None:
            raise ValueError("noise= is the noise itself: give it, or a seed= or generator= to draw it from, not both")
        if labels is None:
            raise ValueError("noise= leaves no seed to draw levels from: give labels= too")
        noise = like_state("noise", noise, x)
    address = resolve(x, _NOISE, draw, noise is None, **samples)
    table = sigmas.detach().to(compute_dtype(x)).contiguous()
    return perturb_at(Perturbation(x, table, labels, address, LEVEL_PURPOSE, noise), impl)
