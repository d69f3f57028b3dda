"""Makes updates that were checked: as registered operations, with gradients, into a new tensor or one that is given."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NoReturn

import torch
from torch import Tensor

from fastlangevin import reference
from fastlangevin.kernels.address import MAX_TERMS, ONE_DRAW, Address, Coefficient, DrawTable, Term, Update
from fastlangevin.memory import observed, transforms
from fastlangevin.noise import tensor_word
from fastlangevin.ops import quick
from fastlangevin.ops.arguments import compute_dtype
from fastlangevin.ops.operation import ADDRESS, Operation, flat_address
from fastlangevin.ops.update import refuse_unwritable, verified
from fastlangevin.ops.writing import update_in_place, update_into, updated
from fastlangevin.runtime import choose_for

__all__ = ["made", "move"]


def _coefficient(value: Coefficient, x: Tensor) -> Tensor:
    return value if isinstance(value, Tensor) else torch.zeros((), dtype=compute_dtype(x), device=x.device) + value


def _flat(update: Update) -> tuple[Any, ...]:
    """The arguments of the registered operation: all that changes from step to step as tensors."""
    (_, x), *_ = update.terms
    draws = update.draws
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
    (_, x), *_ = update.terms
    return *_flat(update), tensor_word(update.number, x), update.fault, update.freeze


def _typed(x: Tensor, others: list[Tensor], factors: list[Tensor], b: Tensor | None, *rest: Any) -> tuple[Update]:
    seed, draw, ids, offset, purpose, weights, numbers, noise, mask, known, *watch = rest
    number, fault, freeze = watch or (draw, None, False)
    terms = tuple(Term(factor.expand(x.shape), slot) for factor, slot in zip(factors, (x, *others), strict=True))
    b = None if b is None else b.expand(x.shape)
    draws = ONE_DRAW if weights is None else DrawTable(weights, numbers)
    address = Address(seed, draw, ids, offset, purpose)
    return (Update(terms, b, address, number, draws, noise, mask, known, fault, freeze),)


def _plain_in_place(update: Update) -> None:
    (_, x), *_ = update.terms
    x.copy_(reference.step(update))


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
    (_, x), *_ = update.terms
    operation: Callable[..., Tensor] = _STEP if update.fault is None else _WATCHED_STEP
    return operation(impl, x.device, update)


class _Differentiable(torch.autograd.Function):
    """An update with gradients for its slots, explicit noise and known values."""

    @staticmethod
    def forward(ctx: Any, *operands: Any) -> Tensor:
        slots, (noise, known, mask, b, *rest) = operands[:MAX_TERMS], operands[MAX_TERMS:]
        a, (seed, draw, ids, offset, purpose, weights, numbers, draws, impl) = rest[:MAX_TERMS], rest[MAX_TERMS:]
        terms = tuple(Term(factor, slot) for factor, slot in zip(a, slots, strict=True) if slot is not None)
        address = Address(seed, draw, ids, offset, purpose)
        drawn = draws if weights is None else DrawTable(weights, numbers)
        factors = (*a, b)
        ctx.save_for_backward(mask, *(each if isinstance(each, Tensor) else None for each in factors))
        ctx.numbers = [None if isinstance(each, Tensor) else each for each in factors]
        ctx.dtypes = [None if each is None else each.dtype for each in (*slots, noise)]
        ctx.known_dtype = None if known is None else known.dtype
        return _result(Update(terms, b, address, draw, drawn, noise, mask, known), impl)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        (gradient,) = gradients
        mask, *tensors = ctx.saved_tensors
        factors = [number if tensor is None else tensor for number, tensor in zip(ctx.numbers, tensors, strict=True)]
        wide = gradient.to(torch.float64 if gradient.dtype == torch.float64 else torch.float32)
        moved = wide if mask is None else wide.masked_fill(mask, 0.0)
        wanted, (by_known, *others) = ctx.needs_input_grad[: MAX_TERMS + 1], ctx.needs_input_grad[MAX_TERMS + 1 :]
        results: list[Tensor | None] = [
            (factor * moved).to(dtype) if need and factor is not None else None
            for factor, dtype, need in zip(factors, ctx.dtypes, wanted, strict=True)
        ]
        into_known = by_known and mask is not None
        results.append(gradient.masked_fill(~mask, 0.0).to(ctx.known_dtype) if into_known else None)
        return *results, *(None for _ in others)


def _differentiated(update: Update, impl: str) -> Tensor:
    """An update whose gradient is asked for. In a compiled program its draws are tensors, as its numbers are."""
    slots: list[Tensor | None] = [term.slot for term in update.terms]
    factors: list[Coefficient | None] = [term.a for term in update.terms]
    missing = [None] * (MAX_TERMS - len(slots))
    draws = update.draws
    weights = numbers = None
    if isinstance(draws, DrawTable):
        (weights, numbers), draws = draws, ONE_DRAW
    operands = (*slots, *missing, update.noise, update.known, update.mask, update.b, *factors, *missing)
    result: Tensor = _Differentiable.apply(*operands, *update.address, weights, numbers, draws, impl)
    return result


def _differentiates(update: Update) -> bool:
    """Returns whether a gradient is asked for by anything that an update reads."""
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
    (_, x), *_ = update.terms
    if (
        update.draws is ONE_DRAW
        and len(update.terms) == 2
        # The quick request has one number for both, and a tensor is none.
        and type(update.number) is int
        and update.number == update.address.draw
        and update.noise is None
        and update.mask is None
        and (not update.freeze or update.fault is not None)
        and (out is None or out is x)
    ):
        (c, _), (a, score) = update.terms
        place, watch = quick.placed(update.address), (update.fault, update.freeze)
        done = quick.step(out, x, score, (c, a, update.b), place, watch, impl, resolved=True)
        if done is not None:
            return done
    return made(verified(update), impl, out, out is x)


def made(update: Update, impl: str, out: Tensor | None, in_place: bool = False) -> Tensor:
    """Makes an update that was checked.

    Args:
        update: whose state may be a copy of the user's, if that does not hold its values in its memory.
        impl: the implementation.
        out: None for a new tensor.
        in_place: whether ``out`` is the state that the user gave.
    """
    (_, x), *_ = update.terms
    if in_place and out is not None and out is not x:
        refuse_unwritable("x", out)
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
        return out.copy_(made(update, impl, None))
    if _differentiates(update) or (out.requires_grad and torch.is_grad_enabled()):
        _refuse_gradients("out")
    if observed():
        return out.copy_(_result(update, impl))
    return update_into(choose_for(impl, x.device.type)[1], out, update)
