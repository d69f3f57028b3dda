"""The update of every sampler, x <- c x + a_0 s_0 + a_1 s_1 + ... + b z: ``step`` and ``step_``."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Unpack

from torch import Tensor

from fastlangevin.kernels.address import Coefficient
from fastlangevin.noise import Purpose
from fastlangevin.ops import quick
from fastlangevin.ops.move import made
from fastlangevin.ops.update import StepOptions, checked_update, refuse_unwritable
from fastlangevin.reference import NO_FAULT

__all__ = ["NO_FAULT", "step", "step_"]

_LANGEVIN = int(Purpose.LANGEVIN)
_UNWATCHED = None, False


def _general(
    x: Tensor,
    scores: Tensor | Sequence[Tensor],
    factors: tuple[Any, Any, Any],
    out: Tensor | None,
    impl: str,
    options: StepOptions,
) -> Tensor:
    """An update of any kind."""
    if out is not None and out is not x:
        refuse_unwritable("out", out)
    return made(checked_update(x, scores, factors, options), impl, out, out is x)


def step(
    x: Tensor,
    score: Tensor | Sequence[Tensor],
    *,
    a: Coefficient | Sequence[Coefficient],
    b: Coefficient | None,
    c: Coefficient = 1.0,
    out: Tensor | None = None,
    impl: str = "auto",
    **options: Unpack[StepOptions],
) -> Tensor:
    """One update c x + a s + b z with z ~ N(0, I) drawn inside the kernel; or c x + a_0 s_0 + a_1 s_1 + ... + b z.

    Every one-evaluation stochastic sampler of score models is the first (Song and Ermon 2019, Algorithm 1, line 6, is
    one); rules such as :func:`fastlangevin.rules.langevin` give its coefficients. Solvers that keep earlier scores are
    the second. It is computed in fp32 (fp64 for an fp64 state), z first, then the terms in their order, every product
    and every sum rounded: ``fl(fl(fl(c x) + fl(a s)) + fl(b z))``; and rounded once more to the state's dtype. The
    bits are the same on every implementation. Differentiable in ``x``, ``score``, ``noise`` and ``known``.

    Args:
        x: state ``(B, ...)``, float32, float16, bfloat16 or float64, in any layout. The noise of an element belongs to
            its logical position, so channels_last tensors get the same noise as contiguous ones.
        score: score of the state, same shape, any float dtype; or a sequence of up to 5 of them, none included, such as
            scores or denoised states of earlier steps.
        a: drift coefficient (half the paper's step size alpha, or the published code's whole step); a sequence of one
            for each score if there is a sequence of them.
        b: standard deviation of the noise; None leaves the noise out and draws nothing.
        c: factor of the state.
            Each of a, b, c is a number, or a tensor of shape ``()``, ``(B,)`` for one per sample, or one that
            broadcasts to the state with as many dimensions.
        out: written and returned instead of a new tensor; may be ``x`` itself.
        impl: ``"auto"``, ``"triton"``, ``"cpp"`` or ``"reference"``.
        options: the address of the noise, what it is made of, a region that is known, and what is watched:
            :class:`fastlangevin.ops.StepOptions`.

    Returns:
        The new state, with the shape, dtype and layout of ``x``.

    Raises:
        TypeError, ValueError: an argument is of the wrong kind, shape, device or range.
        RuntimeError: ``impl`` cannot run here.
    """
    done = quick.step(out, x, score, (c, a, b), quick.words(_LANGEVIN, **options), _UNWATCHED, impl)
    return _general(x, score, (c, a, b), out, impl, options) if done is None else done


def step_(
    x: Tensor,
    score: Tensor | Sequence[Tensor],
    *,
    a: Coefficient | Sequence[Coefficient],
    b: Coefficient | None,
    c: Coefficient = 1.0,
    impl: str = "auto",
    **options: Unpack[StepOptions],
) -> Tensor:
    """:func:`step`, writing to ``x`` and returning it. Arguments and errors as there.

    Args:
        x: state ``(B, ...)``, overwritten.
        score, a, b, c, impl, options: as for :func:`step`.

    Returns:
        ``x``.

    Raises:
        ValueError: also where ``x`` requires a gradient, has elements that share memory, or partly overlaps an input.
    """
    done = quick.step(x, x, score, (c, a, b), quick.words(_LANGEVIN, **options), _UNWATCHED, impl)
    return _general(x, score, (c, a, b), x, impl, options) if done is None else done
