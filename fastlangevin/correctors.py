"""The corrector of a signal-to-noise ratio: one step of Langevin dynamics sized by norms that are measured."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, get_args

import torch
from torch import Tensor

from fastlangevin import ops, rules
from fastlangevin.noise import Generators, Purpose, Seed, resolve_draw, resolve_sample_ids, resolve_seed
from fastlangevin.ops.arguments import compute_dtype, elements_per_sample, floating, like_state
from fastlangevin.ops.dsm import Address, Tables
from fastlangevin.rules import SignalNorm

__all__ = ["check_norm", "norm_ratio", "signal_to_noise_step"]


def check_norm(norm: str) -> None:
    """Raises unless ``norm`` is a :data:`fastlangevin.rules.SignalNorm`."""
    if norm not in get_args(SignalNorm):
        raise ValueError(f"norm must be one of {', '.join(get_args(SignalNorm))}, got {norm!r}")


def _lengths(values: Tensor, impl: str) -> Tensor:
    """Euclidean norms ``(B,)`` of the samples, their squares summed in the order of :mod:`fastlangevin.reference`.

    ``torch.sum`` has other bits for a lone sample than for one in a batch. The value of denoising score matching
    without noise, 1/2 ||h + 0||^2, is summed in one order, in one pass.
    """
    one = torch.ones(1, dtype=compute_dtype(values), device=values.device)
    labels = torch.zeros(values.shape[0], dtype=torch.int64, device=values.device)
    if values.ndim == 1:
        values = values[:, None]
    none = one.new_zeros(()).expand(values.shape)
    squares, _, _ = ops.dsm(
        values, labels, Tables(one, 2 * one, one), Address(0, 0, None, 0, none), reduction="none", impl=impl
    )
    return squares.sqrt()


def norm_ratio(score: Tensor, z: Tensor | None, norm: SignalNorm, *, impl: str = "auto") -> Tensor:
    """||z||/||score|| in one of the ways of :data:`fastlangevin.rules.SignalNorm`, on the device of the score.

    Args:
        score: ``(B, ...)``. Where a sample's is zero, the ratio is not finite.
        z: the noise, same shape and dtype; ``"sqrt_d"`` does not look at it.
        norm: ``"sample"``, ``"batch"`` or ``"sqrt_d"``.
        impl: ``"auto"``, ``"triton"``, ``"cpp"`` or ``"reference"``.

    Returns:
        ``(B,)``, or ``()`` with ``"batch"``.
    """
    below = _lengths(score.detach(), impl)
    if norm == "sqrt_d" or z is None:
        return math.sqrt(elements_per_sample(score.shape)) / below
    above = _lengths(z, impl)
    return above.mean() / below.mean() if norm == "batch" else above / below


def signal_to_noise_step(
    x: Tensor,
    score: Tensor,
    *,
    snr: float,
    norm: SignalNorm = "sample",
    alpha: float = 1.0,
    seed: Seed | None = None,
    generator: Generators | None = None,
    draw: int | Tensor = 0,
    sample_ids: Tensor | Sequence[int] | None = None,
    sample_offset: int = 0,
    impl: str = "auto",
) -> Tensor:
    """One corrector step x + a score + sqrt(2 a) z with a = 2 alpha (snr ||z||/||score||)^2 (Song et al. 2021).

    Nothing waits for a device. The noise is that of :func:`fastlangevin.step` at the same address, and the norms are
    summed in one written order, so that with ``"sample"`` and ``"sqrt_d"`` a sample has the same bits in any batch.
    Differentiable in ``x`` and ``score``, the measured ratio being a constant.

    Args:
        x: state ``(B, ...)``, float32, float16, bfloat16 or float64.
        score: score of the state, same shape, any float dtype. Where a sample's is zero, its step is not finite.
        snr: the signal-to-noise ratio, above zero, typically 0.05 to 0.2.
        norm: how ||z||/||score|| is taken, see :data:`fastlangevin.rules.SignalNorm`.
        alpha: as for :func:`fastlangevin.rules.signal_to_noise`.
        seed, generator, draw, sample_ids, sample_offset, impl: as for :func:`fastlangevin.step`.

    Returns:
        The new state, with the shape, dtype and layout of ``x``.

    Raises:
        TypeError, ValueError: an argument is of the wrong kind, shape, device or range.
        RuntimeError: ``impl`` cannot run here.
    """
    check_norm(norm)
    _, a, b = rules.signal_to_noise(snr, 1.0, alpha)
    floating("x", x)
    if not x.ndim:
        raise ValueError("x must have a batch dimension, (B, ...), got a tensor without dimensions; use x[None]")
    like_state("score", score, x)
    elements_per_sample(x.shape)
    ids, offset = resolve_sample_ids(sample_ids, sample_offset, x.shape[0], x.device)
    draw = resolve_draw(draw, x.device)
    if not x.numel():
        return x.clone()
    word = resolve_seed(seed, generator, x.shape[0], x.device)
    address: dict[str, Any] = {"seed": word, "draw": draw, "sample_ids": ids, "sample_offset": offset}
    address["purpose"] = Purpose.LANGEVIN
    dtype = compute_dtype(x)
    z = None
    if norm != "sqrt_d":
        # Kept, since the ratio must be known before the update: drawing it again would cost more than reading it.
        z = ops.randn(x.shape, dtype=dtype, device=x.device, impl=impl, **address)
        address = {"noise": z}
    ratio = norm_ratio(score.to(dtype), z, norm, impl=impl)
    return ops.step(x, score, a=a * ratio**2, b=(b or 0.0) * ratio, impl=impl, **address)
