"""The update of every Langevin-type sampler, x <- c*x + a*score + b*z: ``step`` and ``step_``."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from fastlangevin.noise import (
    MAX_DRAW,
    MAX_ELEMENTS,
    MAX_SAMPLE_ID,
    MAX_SEED,
    Generators,
    Purpose,
    Seed,
    integer,
    one_source,
    resolve_draw,
    resolve_sample_ids,
    resolve_seed,
    tensor_word,
)
from fastlangevin.ops.arguments import (
    FLOATS,
    Coefficient,
    check_output,
    coefficient,
    compute_dtype,
    elements_per_sample,
    floating,
    like_state,
    same_place,
)
from fastlangevin.ops.memory import address_in_memory, in_memory, observed, recorded, transforms
from fastlangevin.ops.operation import launch_step, plain_step
from fastlangevin.reference import NO_FAULT
from fastlangevin.runtime import choose, choose_for

__all__ = ["NO_FAULT", "step", "step_"]

MAX_FP32 = torch.finfo(torch.float32).max
# Looked up at every small update.
_STRIDED = torch.strided
_LANGEVIN = Purpose.LANGEVIN

# c, a, b, seed, draw, sample_ids, sample_offset, purpose, noise, mask, known, impl: what launch_step takes last, before
# the two of Watch, fault and freeze.
Rest = tuple[Any, ...]
Watch = tuple[Any, ...]


def _check(
    x: Tensor,
    score: Tensor,
    a: Coefficient,
    b: Coefficient | None,
    c: Coefficient,
    seed: Seed | None,
    generator: Generators | None,
    draw: int | Tensor,
    purpose: int,
    sample_ids: Tensor | Sequence[int] | None,
    sample_offset: int,
    noise: Tensor | None,
    mask: Tensor | None,
    known: Tensor | None,
    impl: str,
) -> tuple[Tensor, Tensor, Rest]:
    x = floating("x", x)
    score = like_state("score", score, x)
    shape = x.shape
    elements_per_sample(shape)
    batch = shape[0] if shape else 1
    c = coefficient("c", c, x)
    a = coefficient("a", a, x)
    if b is not None:
        b = coefficient("b", b, x)
    if (mask is None) != (known is None):
        raise ValueError("mask= and known= belong together: give both, or neither")
    if mask is not None and known is not None:
        known = _known(known, x)
        mask = _mask(mask, x)
    ids, offset = resolve_sample_ids(sample_ids, sample_offset, batch, x.device)
    draw = resolve_draw(draw, x.device)
    purpose = integer("purpose", purpose, 0, 255)
    if noise is not None:
        if seed is not None or generator is not None:
            raise ValueError("noise= is the noise itself: give it, or a seed= or generator= to draw it from, not both")
        noise = like_state("noise", noise, x).to(compute_dtype(x))
    if b is None or noise is not None:
        # Nothing is drawn: a seed is checked if there is one, but none is taken from a generator.
        one_source(seed, generator)
        seed = resolve_seed(0 if seed is None else seed, None, batch, x.device)
    else:
        seed = resolve_seed(seed, generator, batch, x.device)
    seed, draw, ids = address_in_memory(seed, draw, ids)
    return x, score, (c, a, b, seed, draw, ids, offset, purpose, noise, mask, known, impl)


def _is_plain(
    x: Tensor,
    score: Tensor,
    a: Coefficient,
    b: Coefficient | None,
    c: Coefficient,
    seed: Seed | None,
    draw: int | Tensor,
    purpose: int,
    sample_offset: int,
) -> bool:
    """Whether the arguments are of the common kind and right, so that :func:`_check` would pass them as they are.

    It is what a sampler calls at every step: with few elements the checks are most of the time.
    """
    return (
        not observed()
        and type(x) is Tensor
        and type(score) is Tensor
        and type(a) is float
        and type(b) is float
        and type(c) is float
        and type(seed) is int
        and type(draw) is int
        and type(sample_offset) is int
        and x.dtype in FLOATS
        and score.dtype in FLOATS
        and x.shape == score.shape
        and ((x.is_cpu and score.is_cpu) or x.device == score.device)
        and x.layout is _STRIDED
        and score.layout is _STRIDED
        and 0 <= seed <= MAX_SEED
        and 0 <= draw <= MAX_DRAW
        and 0 <= sample_offset <= MAX_SAMPLE_ID // 2
        and (purpose is _LANGEVIN or (type(purpose) in (int, Purpose) and 0 <= purpose <= 255))
        and x.numel() <= MAX_ELEMENTS
        and abs(a) + abs(b) + abs(c) <= MAX_FP32
        and not (x.is_neg() or score.is_neg())
        and not ((x.requires_grad or score.requires_grad) and torch.is_grad_enabled())
    )


_UNWATCHED: Watch = (None, False)


def _watch(fault: Tensor | None, freeze: bool, x: Tensor) -> Watch:
    """The record and what is done with it, checked."""
    if fault is None:
        if freeze:
            raise ValueError("freeze=True leaves the samples of fault= as they are; give fault= too")
        return None, False
    floating("x", x)
    batch = x.shape[0] if x.ndim else 1
    if not isinstance(fault, Tensor) or fault.dtype is not torch.int64:
        kind = fault.dtype if isinstance(fault, Tensor) else type(fault).__name__
        raise TypeError(
            f"fault must be an int64 tensor ({batch},), filled with NO_FAULT before the first step, got {kind}"
        )
    same_place("fault", fault, x)
    if fault.shape != (batch,) or not fault.is_contiguous():
        raise ValueError(
            f"fault must be contiguous, with one entry for each sample, shape ({batch},); got {tuple(fault.shape)} and "
            f"strides {fault.stride()}"
        )
    _refuse_unwritable("fault", fault)
    return fault, bool(freeze)


def _is_like(out: Tensor, x: Tensor) -> bool:
    """Whether an output is the state, or a plain tensor of its shape that needs no gradient."""
    return out is x or (
        type(out) is Tensor
        and out.dtype is x.dtype
        and out.is_cpu
        and out.shape == x.shape
        and not out.is_neg()
        and not (out.requires_grad and torch.is_grad_enabled())
    )


def _known(known: Tensor, x: Tensor) -> Tensor:
    known = like_state("known", known, x, broadcasts=True)
    if known.dtype != x.dtype:
        raise TypeError(
            f"known must have the state's dtype {x.dtype}, got {known.dtype}; convert it with known.to(x.dtype)"
        )
    return known.expand(x.shape)


def _mask(mask: Tensor, x: Tensor) -> Tensor:
    if not isinstance(mask, Tensor) or mask.dtype != torch.bool:
        kind = mask.dtype if isinstance(mask, Tensor) else type(mask).__name__
        raise TypeError(f"mask must be a bool tensor, True where a value is known, got {kind}; use mask.bool()")
    same_place("mask", mask, x)
    mask = in_memory("mask", mask)
    try:
        return mask.expand(x.shape)
    except RuntimeError as error:
        raise ValueError(
            f"mask must broadcast to the state's shape {tuple(x.shape)}, got {tuple(mask.shape)}"
        ) from error


def _as_tensors(rest: Rest, x: Tensor) -> Rest:
    """The arguments of the registered operation: all that changes from step to step as tensors."""
    c, a, b, seed, draw, *others = rest

    def tensor(value: Coefficient | None) -> Tensor | None:
        if value is None or isinstance(value, Tensor):
            return value
        return torch.zeros((), dtype=compute_dtype(x), device=x.device) + value

    return tensor(c), tensor(a), tensor(b), tensor_word(seed, x), tensor_word(draw, x), *others


class _DifferentiableStep(torch.autograd.Function):
    """The update with gradients for the state, the score, explicit noise and known values."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, score: Tensor, noise: Tensor | None, known: Tensor | None, *rest: Any) -> Tensor:
        c, a, b, mask = rest[0], rest[1], rest[2], rest[8]
        tensors = [value if isinstance(value, Tensor) else None for value in (c, a, b, mask)]
        ctx.save_for_backward(*tensors)
        ctx.numbers = [None if isinstance(value, Tensor) else value for value in (c, a, b)]
        ctx.dtypes = [None if value is None else value.dtype for value in (x, score, noise, known)]
        return _out_of_place(x, score, (*rest[:8], noise, mask, known, rest[9]))

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        (gradient,) = gradients
        mask = ctx.saved_tensors[3]
        c, a, b = (
            number if tensor is None else tensor
            for number, tensor in zip(ctx.numbers, ctx.saved_tensors[:3], strict=True)
        )
        dtype = torch.float64 if ctx.dtypes[0] == torch.float64 else torch.float32
        wide = gradient.to(dtype)
        moved = wide if mask is None else wide.masked_fill(mask, 0.0)
        results: list[Tensor | None] = []
        for index, factor in enumerate((c, a, b)):
            wanted = ctx.needs_input_grad[index] and factor is not None
            results.append((factor * moved).to(ctx.dtypes[index]) if wanted else None)
        wanted = ctx.needs_input_grad[3] and mask is not None
        results.append(gradient.masked_fill(~mask, 0.0).to(ctx.dtypes[3]) if wanted else None)
        return *results, *(None,) * 10


def _out_of_place(x: Tensor, score: Tensor, rest: Rest, watch: Watch = (None, False)) -> Tensor:
    if transforms():
        choose(rest[-1], x.device)
        return plain_step(x, score, *rest[:-1], *watch)
    if recorded():
        *update, impl = _as_tensors(rest, x)
        result: Tensor = (
            torch.ops.fastlangevin.step(x, score, *update, impl)
            if watch[0] is None
            else torch.ops.fastlangevin.watched_step(x, score, *update, *watch, impl)
        )
        return result
    out = torch.empty_like(x)
    launch_step(out, x, score, *rest, *watch)
    return out


def _differentiates(*tensors: Tensor | None) -> bool:
    return torch.is_grad_enabled() and any(tensor is not None and tensor.requires_grad for tensor in tensors)


def step(
    x: Tensor,
    score: Tensor,
    *,
    a: Coefficient,
    b: Coefficient | None,
    c: Coefficient = 1.0,
    seed: Seed | None = None,
    generator: Generators | None = None,
    draw: int | Tensor = 0,
    purpose: int = Purpose.LANGEVIN,
    sample_ids: Tensor | Sequence[int] | None = None,
    sample_offset: int = 0,
    noise: Tensor | None = None,
    mask: Tensor | None = None,
    known: Tensor | None = None,
    fault: Tensor | None = None,
    freeze: bool = False,
    out: Tensor | None = None,
    impl: str = "auto",
) -> Tensor:
    """One update c*x + a*score + b*z with z ~ N(0, I) drawn inside the kernel.

    Every one-evaluation stochastic sampler of score models is this update (Song and Ermon 2019, Algorithm 1, line 6, is
    one); rules such as :func:`fastlangevin.rules.langevin` give its coefficients. It is computed in fp32 (fp64 for an
    fp64 state) as ``fl(fl(fl(c*x) + fl(a*score)) + fl(b*z))`` and rounded once to the state's dtype, with the same bits
    on every implementation. Differentiable in ``x``, ``score``, ``noise`` and ``known``.

    Args:
        x: state ``(B, ...)``, float32, float16, bfloat16 or float64, in any layout. The noise of an element belongs to
            its logical position, so channels_last tensors get the same noise as contiguous ones.
        score: score of the state, same shape, any float dtype.
        a: drift coefficient (half the paper's step size alpha, or the published code's whole step).
        b: standard deviation of the noise; None leaves the noise out and draws nothing.
        c: factor of the state.
            Each of a, b, c is a number, or a tensor of shape ``()``, ``(B,)`` for one per sample, or one that
            broadcasts to the state with as many dimensions.
        seed: 0 to 2^64 - 1, or an int64 tensor of shape ``()`` or ``(B,)`` with the seeds' bits.
        generator: a ``torch.Generator`` that a seed is drawn from, or one for each sample; with neither, the seed comes
            from PyTorch's default CPU generator.
        draw: number of the step in the chain, 0 to 2^32 - 1, or a 0-dim int64 tensor that holds it.
        purpose: a :class:`fastlangevin.Purpose`.
        sample_ids: ``B`` global sample ids; by default ``sample_offset`` and up.
        sample_offset: id of the first sample.
        noise: the noise itself, same shape, instead of a seed: for comparing with other code.
        mask: bool, broadcasts to the state; True where the result is ``known``.
        known: values for the mask, of the state's dtype, broadcast to the state.
        fault: int64 ``(B,)``, written: lowered to ``draw`` for a sample whose result holds a NaN or an infinity once it
            is rounded to the state's dtype. Filled with ``fastlangevin.ops.NO_FAULT`` (2^63 - 1) before the first step,
            it ends as the number of each sample's first such draw. The result's bits are not changed by it, no host
            waits, and no gradient may be asked for.
        freeze: leave a sample whose ``fault`` is of an earlier draw as it is; the others go on.
        out: written and returned instead of a new tensor; may be ``x`` itself.
        impl: ``"auto"``, ``"triton"``, ``"cpp"`` or ``"reference"``.

    Returns:
        The new state, with the shape, dtype and layout of ``x``.

    Raises:
        TypeError, ValueError: an argument is of the wrong kind, shape, device or range.
        RuntimeError: ``impl`` cannot run here.
    """
    plain = (
        generator is None
        and sample_ids is None
        and noise is None
        and mask is None
        and _is_plain(x, score, a, b, c, seed, draw, purpose, sample_offset)
        and known is None
    )
    watch = _UNWATCHED if fault is None and not freeze else _watch(fault, freeze, x)
    if plain and x.is_cpu and x.ndim and (out is None or _is_like(out, x)):
        launchers = choose_for(impl, "cpu")[1]
        quick = None if launchers is None else launchers.step_plain
        if quick is not None:
            done: Tensor | None = quick(out, x, score, c, a, b, seed, draw, sample_offset, purpose, *watch)
            if done is not None:
                if out is not None:
                    _written(out)
                return done
    plain = plain and not (x._is_zerotensor() or score._is_zerotensor())
    in_place = out is x
    if out is not None and not (plain and in_place):
        _refuse_unwritable("x" if in_place else "out", out)
    rest: Any
    if plain:
        rest = c, a, b, seed, draw, None, sample_offset, purpose, None, None, None, impl
    else:
        x, score, rest = _check(
            x, score, a, b, c, seed, generator, draw, purpose, sample_ids, sample_offset, noise, mask, known, impl
        )
    if out is not None:
        return _into(out, x, score, rest, watch)
    if plain:
        out = torch.empty_like(x)
        launch_step(out, x, score, *rest, *watch)
        return out
    noise, mask, known = rest[8], rest[9], rest[10]
    if watch[0] is not None:
        _refuse_gradients("fault", x, score, noise, known)
    elif _differentiates(x, score, noise, known) and not transforms():
        differentiable: Tensor = _DifferentiableStep.apply(x, score, noise, known, *rest[:8], mask, impl)
        return differentiable
    return _out_of_place(x, score, rest, watch)


def _into(out: Tensor, x: Tensor, score: Tensor, rest: Rest, watch: Watch) -> Tensor:
    if out is x:
        return _in_place(x, score, rest, watch)
    if out.shape != x.shape or out.dtype != x.dtype or out.device != x.device:
        raise ValueError(
            f"out must match the state: {tuple(x.shape)}, {x.dtype} on {x.device}, got {tuple(out.shape)}, {out.dtype} "
            f"on {out.device}"
        )
    if torch.compiler.is_compiling():
        return out.copy_(_out_of_place(x, score, rest, watch))
    _refuse_gradients("out", out, x, score, rest[8], rest[10])
    if recorded() or transforms():
        return out.copy_(_out_of_place(x, score, rest, watch))
    check_output("out", out, {"x": x, "score": score, "noise": rest[8], "mask": rest[9], "known": rest[10]})
    launch_step(out, x, score, *rest, *watch)
    _written(out)
    return out


def _in_place(x: Tensor, score: Tensor, rest: Rest, watch: Watch) -> Tensor:
    _refuse_gradients("x", x, score, rest[8], rest[10])
    if transforms():
        return x.copy_(_out_of_place(x, score, rest, watch))
    if recorded():
        *update, impl = _as_tensors(rest, x)
        if watch[0] is None:
            torch.ops.fastlangevin.step_(x, score, *update, impl)
        else:
            torch.ops.fastlangevin.watched_step_(x, score, *update, *watch, impl)
        if not torch.compiler.is_compiling():
            _written(x)
        return x
    check_output("x", x, {"score": score, "noise": rest[8], "mask": rest[9], "known": rest[10]})
    launch_step(x, x, score, *rest, *watch)
    _written(x)
    return x


def _written(x: Tensor) -> None:
    """Tell autograd, which sees no write through a pointer, that saved copies of ``x`` are stale."""
    if not x.is_inference():
        torch.autograd.graph.increment_version(x)


def _refuse_unwritable(name: str, value: Tensor) -> None:
    is_word = isinstance(value, Tensor) and value.dtype is torch.int64
    if (in_memory if is_word else floating)(name, value) is not value:
        raise ValueError(
            f"{name} is a view that PyTorch negates as it reads, or zeros without memory, so it cannot be written in "
            f"place; pass {name}.resolve_neg().clone()"
        )


def _refuse_gradients(name: str, *tensors: Tensor | None) -> None:
    if _differentiates(*tensors):
        raise ValueError(
            f"{name} is written in place, which cannot be differentiated, but a gradient is asked for; call it under "
            "torch.no_grad(), or use step() without out= and fault="
        )


def step_(
    x: Tensor,
    score: Tensor,
    *,
    a: Coefficient,
    b: Coefficient | None,
    c: Coefficient = 1.0,
    seed: Seed | None = None,
    generator: Generators | None = None,
    draw: int | Tensor = 0,
    purpose: int = Purpose.LANGEVIN,
    sample_ids: Tensor | Sequence[int] | None = None,
    sample_offset: int = 0,
    noise: Tensor | None = None,
    mask: Tensor | None = None,
    known: Tensor | None = None,
    fault: Tensor | None = None,
    freeze: bool = False,
    impl: str = "auto",
) -> Tensor:
    """:func:`step`, writing to ``x`` and returning it. Arguments and errors as there.

    Args:
        x: state ``(B, ...)``, overwritten.
        score, a, b, c, seed, generator, draw, purpose, sample_ids, sample_offset, noise, mask, known, fault, freeze,
            impl: as for :func:`step`.

    Returns:
        ``x``.

    Raises:
        ValueError: also where ``x`` requires a gradient, has elements that share memory, or partly overlaps an input.
    """
    return step(
        x,
        score,
        a=a,
        b=b,
        c=c,
        seed=seed,
        generator=generator,
        draw=draw,
        purpose=purpose,
        sample_ids=sample_ids,
        sample_offset=sample_offset,
        noise=noise,
        mask=mask,
        known=known,
        fault=fault,
        freeze=freeze,
        out=x,
        impl=impl,
    )
