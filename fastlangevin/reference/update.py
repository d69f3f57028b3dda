"""The update of a stochastic sampler."""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["NO_FAULT", "step", "watch"]

NO_FAULT = 2**63 - 1


def step(
    x: Tensor,
    score: Tensor,
    c: float | Tensor,
    a: float | Tensor,
    b: float | Tensor | None,
    noise: Tensor | None,
    mask: Tensor | None = None,
    known: Tensor | None = None,
) -> Tensor:
    """c*x + a*score + b*noise in fp32 (fp64 for an fp64 state), rounded once to the state's dtype.

    Args:
        x: state, any shape.
        score: same shape, any float dtype.
        c, a, b: floats, or tensors that broadcast against ``x``. ``b=None`` leaves the noise term out.
        noise: same shape as ``x``; not used where ``b`` is None.
        mask: bool, broadcasts against ``x``; where it is True the result is ``known``.
        known: same shape and dtype as ``x``.
    """
    dtype = torch.float64 if x.dtype == torch.float64 else torch.float32

    def coefficient(value: float | Tensor) -> Tensor:
        return torch.as_tensor(value, dtype=dtype, device=x.device)

    moved = coefficient(c) * x.to(dtype) + coefficient(a) * score.to(dtype)
    if b is not None:
        assert noise is not None
        moved = moved + coefficient(b) * noise.to(dtype)
    result = moved.to(x.dtype)
    return result if mask is None or known is None else torch.where(mask, known, result)


def watch(result: Tensor, x: Tensor, fault: Tensor, draw: int | Tensor, freeze: bool) -> Tensor:
    """Notes the samples of an update's result that hold a NaN or an infinity.

    Args:
        result: what :func:`step` returned, ``(B, ...)``.
        x: the state it began from.
        fault: int64 ``(B,)``, written: the number of a sample's first such draw, :data:`NO_FAULT` before there is one.
        draw: number of this one.
        freeze: a sample that has an earlier fault keeps the state it began from.

    Returns:
        The result; with ``freeze`` the state in its place for those samples.
    """
    number = torch.as_tensor(draw, dtype=torch.int64, device=x.device)
    if freeze:
        earlier = (fault < number).reshape(-1, *(1,) * (x.ndim - 1))
        result = torch.where(earlier, x, result)
    finite = result.isfinite().flatten(1).all(1) if x.ndim > 1 else result.isfinite()
    fault.copy_(torch.where(finite, fault, fault.minimum(number)))
    return result
