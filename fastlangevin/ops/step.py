"""The update of every sampler, x <- c x + a_0 s_0 + a_1 s_1 + ... + b z: ``step`` and ``step_``."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NoReturn, Unpack

import torch
from torch import Tensor

from fastlangevin import reference
from fastlangevin.kernels.address import ONE_DRAW, Address, Coefficient, DrawTable, Term, Update
from fastlangevin.noise import MAX_DRAW, MAX_SAMPLE_ID, MAX_SEED, Purpose, tensor_word
from fastlangevin.ops.arguments import compute_dtype
from fastlangevin.ops.memory import observed, transforms
from fastlangevin.ops.operation import ADDRESS, Operation, flat_address
from fastlangevin.ops.update import StepOptions, checked_update, refuse_unwritable, verified
from fastlangevin.ops.writing import update_in_place, update_into, updated
from fastlangevin.reference import NO_FAULT
from fastlangevin.runtime import choose_for

__all__ = ["NO_FAULT", "move", "step", "step_"]

MAX_FP32 = torch.finfo(torch.float32).max
# Looked up at every small update.
_STRIDED = torch.strided
_LANGEVIN = int(Purpose.LANGEVIN)
_FLOAT32 = torch.float32
_UNWATCHED = None, False
_increment_version = torch._C._increment_version


def _coefficient(value: Coefficient, x: Tensor) -> Tensor:
    return value if isinstance(value, Tensor) else torch.zeros((), dtype=compute_dtype(x), device=x.device) + value


def _flat(update: Update) -> tuple[Any, ...]:
    """The arguments of the registered operation: all that changes from step to step as tensors."""
    x, draws = update.state, update.draws
    address = flat_address(update.address, x)
    weights = numbers = None
    if isinstance(draws, DrawTable):
        weights, numbers = draws
    elif draws != ONE_DRAW:
        weights = torch.stack([_coefficient(each.weight, x) for each in draws])
        first = tensor_word(address.draw, x)
        numbers = torch.stack([first + each.offset for each in draws])
    b = None if update.b is None else _coefficient(update.b, x)
    factors = [_coefficient(term.a, x) for term in update.terms]
    others = [term.slot for term in update.terms[1:]]
    return x, others, factors, b, *address, weights, numbers, update.noise, update.mask, update.known


def _flat_watched(update: Update) -> tuple[Any, ...]:
    return *_flat(update), tensor_word(update.number, update.state), update.fault, update.freeze


def _typed(x: Tensor, others: list[Tensor], factors: list[Tensor], b: Tensor | None, *rest: Any) -> tuple[Update]:
    seed, draw, ids, offset, purpose, weights, numbers, noise, mask, known, *watch = rest
    number, fault, freeze = watch or (draw, None, False)
    terms = tuple(Term(factor.expand(x.shape), slot) for factor, slot in zip(factors, (x, *others), strict=True))
    b = None if b is None else b.expand(x.shape)
    draws = ONE_DRAW if weights is None else DrawTable(weights, numbers)
    address = Address(seed, draw, ids, offset, purpose)
    return (Update(terms, b, address, number, draws, noise, mask, known, fault, freeze),)


def _plain_in_place(update: Update) -> None:
    update.state.copy_(reference.step(update))


_INPUTS = (
    f"Tensor[] others, Tensor[] factors, Tensor? b, {ADDRESS}, Tensor? weights, Tensor? numbers, Tensor? noise, "
    "Tensor? mask, Tensor? known"
)
# Apart from the plain ones, which a compiler may take for functions.
_WATCHED = f"{_INPUTS}, Tensor number, Tensor(z!) fault, bool freeze"


def _operation(schema: str, in_place: bool, flatten: Any) -> Operation:
    return Operation(
        schema,
        update_in_place if in_place else updated,
        plain=_plain_in_place if in_place else reference.step,
        fake=lambda x, *rest: None if in_place else torch.empty_like(x),
        flatten=flatten,
        typed=_typed,
    )


_STEP = _operation(f"step(Tensor x, {_INPUTS}) -> Tensor", False, _flat)
_STEP_ = _operation(f"step_(Tensor(a!) x, {_INPUTS}) -> ()", True, _flat)
_WATCHED_STEP = _operation(f"watched_step(Tensor x, {_WATCHED}) -> Tensor", False, _flat_watched)
_WATCHED_STEP_ = _operation(f"watched_step_(Tensor(a!) x, {_WATCHED}) -> ()", True, _flat_watched)


def _result(update: Update, impl: str) -> Tensor:
    operation = _STEP if update.fault is None else _WATCHED_STEP
    result: Tensor = operation(impl, update.state.device, update)
    return result


class _Differentiable(torch.autograd.Function):
    """An update with gradients for its slots, explicit noise and known values.

    By name, since PyTorch 2.13 traces no function of any number of tensors.
    """

    @staticmethod
    def forward(
        ctx: Any,
        s0: Tensor,
        s1: Tensor | None,
        s2: Tensor | None,
        s3: Tensor | None,
        s4: Tensor | None,
        s5: Tensor | None,
        noise: Tensor | None,
        known: Tensor | None,
        mask: Tensor | None,
        b: Coefficient | None,
        *rest: Any,
    ) -> Tensor:
        a, (seed, draw, ids, offset, purpose, weights, numbers, draws, impl) = rest[:6], rest[6:]
        slots = (s0, s1, s2, s3, s4, s5)
        terms = tuple(Term(factor, slot) for factor, slot in zip(a, slots, strict=True) if slot is not None)
        address = Address(seed, draw, ids, offset, purpose)
        drawn = draws if weights is None else DrawTable(weights, numbers)
        factors = (*a, b)
        ctx.save_for_backward(mask, *(each if isinstance(each, Tensor) else None for each in factors))
        ctx.numbers = [None if isinstance(each, Tensor) else each for each in factors]
        ctx.dtypes = [None if each is None else each.dtype for each in (*slots, noise, known)]
        return _result(Update(terms, b, address, draw, drawn, noise, mask, known), impl)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        (gradient,) = gradients
        mask, *tensors = ctx.saved_tensors
        factors = [number if tensor is None else tensor for number, tensor in zip(ctx.numbers, tensors, strict=True)]
        wide = gradient.to(torch.float64 if ctx.dtypes[0] == torch.float64 else torch.float32)
        moved = wide if mask is None else wide.masked_fill(mask, 0.0)
        wanted = ctx.needs_input_grad
        results: list[Tensor | None] = [
            (factor * moved).to(dtype) if need and factor is not None else None
            for factor, dtype, need in zip(factors, ctx.dtypes, wanted, strict=False)
        ]
        by_known = wanted[7] and mask is not None
        results.append(gradient.masked_fill(~mask, 0.0).to(ctx.dtypes[7]) if by_known else None)
        return *results, *(None,) * 17


def _differentiated(update: Update, impl: str) -> Tensor:
    """An update whose gradient is asked for. In a compiled program its draws are tensors, as its numbers are."""
    slots: list[Tensor | None] = [term.slot for term in update.terms]
    factors: list[Coefficient | None] = [term.a for term in update.terms]
    missing = [None] * (6 - len(slots))
    draws = update.draws
    weights = numbers = None
    if isinstance(draws, DrawTable):
        (weights, numbers), draws = draws, ONE_DRAW
    operands = (*slots, *missing, update.noise, update.known, update.mask, update.b, *factors, *missing)
    result: Tensor = _Differentiable.apply(*operands, *update.address, weights, numbers, draws, impl)
    return result


def _differentiates(update: Update) -> bool:
    """Whether a gradient is asked for by anything that an update reads."""
    noise, known = update.noise, update.known
    wanted = (noise is not None and noise.requires_grad) or (known is not None and known.requires_grad)
    for _, slot in update.terms:
        wanted = wanted or slot.requires_grad
    return wanted and torch.is_grad_enabled()


def _refuse_gradients(name: str) -> NoReturn:
    raise ValueError(
        f"{name} is written in place, which cannot be differentiated, but a gradient is asked for; call it under "
        "torch.no_grad(), or use step() without out= and fault="
    )


def move(update: Update, impl: str = "auto", out: Tensor | None = None) -> Tensor:
    """Makes an update whose address is resolved; its tensors and factors are checked here.

    Args:
        update: the update.
        impl: ``"auto"``, ``"triton"``, ``"cpp"`` or ``"reference"``.
        out: written and returned instead of a new tensor, of the state's shape; may be the update's state.

    Returns:
        The new state, with the shape, dtype and layout of the update's.

    Raises:
        TypeError, ValueError: a tensor or a factor is of the wrong kind, shape, device or range, ``out`` cannot be
            written to, or a gradient is asked for that would be lost.
        RuntimeError: ``impl`` cannot run here.
    """
    x, address = update.state, update.address
    if (
        update.draws is ONE_DRAW
        and len(update.terms) == 2
        and address.sample_ids is None
        and update.noise is None
        and update.mask is None
        and update.number is address.draw
        and (not update.freeze or update.fault is not None)
        and (out is None or out is x)
    ):
        (c, _), (a, score) = update.terms
        words = address.seed, address.draw, address.sample_offset, address.purpose
        done = _quick(out, x, score, (c, a, update.b), words, (update.fault, update.freeze), impl)
        if done is not None:
            return done
    checked = verified(update)
    if out is x and checked.state is not x:
        refuse_unwritable("x", x)
    return _move(checked, impl, out)


def _move(update: Update, impl: str, out: Tensor | None) -> Tensor:
    """Makes an update that was checked; ``out`` may be the tensor that the user gave as its state."""
    (_, x), *_ = update.terms
    if out is None:
        if _differentiates(update):
            if update.fault is not None:
                _refuse_gradients("fault")
            if not transforms():
                return _differentiated(update, impl)
        return _result(update, impl)
    if out is x:
        if _differentiates(update):
            _refuse_gradients("x")
        operation = _STEP_ if update.fault is None else _WATCHED_STEP_
        operation(impl, x.device, update)
        return x
    if out.shape != x.shape or out.dtype != x.dtype or out.device != x.device:
        raise ValueError(
            f"out must match the state: {tuple(x.shape)}, {x.dtype} on {x.device}, got {tuple(out.shape)}, {out.dtype} "
            f"on {out.device}"
        )
    if torch.compiler.is_compiling():
        return out.copy_(_move(update, impl, None))
    if _differentiates(update) or (out.requires_grad and torch.is_grad_enabled()):
        _refuse_gradients("out")
    if observed():
        return out.copy_(_result(update, impl))
    return update_into(choose_for(impl, x.device.type)[1], out, update)


def _quick(
    out: Tensor | None,
    x: Tensor,
    score: Any,
    factors: tuple[Any, Any, Any],
    words: tuple[Any, Any, Any, int],
    watch: tuple[Tensor | None, bool],
    impl: str,
) -> Tensor | None:
    """A small plain update, if its arguments are of the common kind and right; else None.

    It takes as long as what is asked before it, so nothing here is a call that need not be one.

    Args:
        out: None, ``x``, or a tensor like it.
        x, score: state and score, of any kind.
        factors: c, a and b.
        words: seed, draw, sample offset and purpose.
        watch: the record of faults and what is done with it.
        impl: the implementation.
    """
    c, a, b = factors
    seed, draw, offset, _ = words
    if not (
        type(x) is Tensor
        and type(score) is Tensor
        and type(a) is float
        and type(b) is float
        and type(c) is float
        and type(seed) is int
        and type(draw) is int
        and type(offset) is int
        and x.is_cpu
        and score.is_cpu
        and x.ndim
        and x.dtype is _FLOAT32
        and score.dtype is _FLOAT32
        and x.shape == score.shape
        and x.layout is _STRIDED
        and score.layout is _STRIDED
        and 0 <= seed <= MAX_SEED
        and 0 <= draw <= MAX_DRAW
        and 0 <= offset <= MAX_SAMPLE_ID // 2
        and -MAX_FP32 <= a <= MAX_FP32
        and -MAX_FP32 <= b <= MAX_FP32
        and -MAX_FP32 <= c <= MAX_FP32
        and not ((x.requires_grad or score.requires_grad) and torch.is_grad_enabled())
        and not observed()
        and not x.is_neg()
        and not score.is_neg()
    ):
        return None
    quick = choose_for(impl, "cpu")[1].quick_step
    if quick is None:
        return None
    done: Tensor | None = quick(out, x, score, factors, words, watch)
    if done is not None and out is not None and not out.is_inference():
        _increment_version([out])
    return done


def _is_like(out: Tensor, x: Tensor) -> bool:
    """Whether an output is a plain tensor like the state, which needs no gradient."""
    return (
        type(out) is Tensor
        and type(x) is Tensor
        and out.dtype is x.dtype
        and out.is_cpu
        and out.shape == x.shape
        and not out.requires_grad
        and not torch.compiler.is_dynamo_compiling()
        and not (out.is_neg() or out._is_zerotensor())
    )


def _step(
    x: Tensor,
    scores: Tensor | Sequence[Tensor],
    factors: tuple[Any, Any, Any],
    out: Tensor | None,
    impl: str,
    options: StepOptions,
) -> Tensor:
    has_draw, has_offset = "draw" in options, "sample_offset" in options
    if (
        "seed" in options
        and len(options) == 1 + has_draw + has_offset
        and (out is None or out is x or _is_like(out, x))
    ):
        draw, offset = options["draw"] if has_draw else 0, options["sample_offset"] if has_offset else 0
        words = options["seed"], draw, offset, _LANGEVIN
        done = _quick(out, x, scores, factors, words, _UNWATCHED, impl)
        if done is not None:
            return done
    if out is not None and out is not x:
        refuse_unwritable("out", out)
    update = checked_update(x, scores, factors, options)
    (_, own), *_ = update.terms
    if out is x and own is not x:
        refuse_unwritable("x", x)
    return _move(update, impl, out)


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
    return _step(x, score, (c, a, b), out, impl, options)


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
    return _step(x, score, (c, a, b), x, impl, options)
