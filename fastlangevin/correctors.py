"""The corrector of a signal-to-noise ratio: one step of Langevin dynamics sized by norms that are measured."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import get_args

import torch
from torch import Tensor

from fastlangevin import rules
from fastlangevin.noise import Generators, Purpose, Seed, resolve_draw, resolve_sample_ids, resolve_seed
from fastlangevin.ops import randn, step
from fastlangevin.ops.arguments import compute_dtype, elements_per_sample, floating, like_state
from fastlangevin.reference import sum_of_squares
from fastlangevin.rules import SignalNorm

__all__ = ["check_norm", "signal_to_noise_step"]


def check_norm(norm: str) -> None:
    """Raises unless ``norm`` is a :data:`fastlangevin.rules.SignalNorm`."""
    if norm not in get_args(SignalNorm):
        raise ValueError(f"norm must be one of {', '.join(get_args(SignalNorm))}, got {norm!r}")


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
    rule = rules.signal_to_noise(snr, 1.0, alpha)
    floating("x", x)
    if not x.ndim:
        raise ValueError("x must have a batch dimension, (B, ...), got a tensor without dimensions; use x[None]")
    like_state("score", score, x)
    elements = elements_per_sample(x.shape)
    ids, offset = resolve_sample_ids(sample_ids, sample_offset, x.shape[0], x.device)
    draw = resolve_draw(draw, x.device)
    word = resolve_seed(seed, generator, x.shape[0], x.device)
    length = _lengths(score, elements, compute_dtype(x))
    if norm == "sqrt_d":
        ratio = math.sqrt(elements) / length
        a, b = _scaled(rule, ratio)
        return step(
            x,
            score,
            a=a,
            b=b,
            seed=word,
            draw=draw,
            sample_ids=ids,
            sample_offset=offset,
            impl=impl,
        )
    # Kept, since the ratio must be known before the update: drawing it again would cost more than reading it.
    z = randn(
        x.shape,
        seed=word,
        draw=draw,
        purpose=Purpose.LANGEVIN,
        sample_ids=ids,
        sample_offset=offset,
        device=x.device,
        impl=impl,
    )
    noise = _lengths(z, elements, compute_dtype(x))
    ratio = noise.mean() / length.mean() if norm == "batch" else noise / length
    a, b = _scaled(rule, ratio)
    return step(x, score, a=a, b=b, noise=z, impl=impl)


def _scaled(rule: rules.Coefficients, ratio: Tensor) -> tuple[Tensor, Tensor]:
    """(a, b) for ratios on a device, from the rule of ratio 1."""
    return rule.a * ratio**2, (rule.b or 0.0) * ratio


def _lengths(values: Tensor, elements: int, dtype: torch.dtype) -> Tensor:
    """Euclidean norms ``(B,)`` of the samples."""
    return sum_of_squares(values.detach().reshape(values.shape[0], elements).to(dtype)).sqrt()
