"""An update from what a user gave: its options, and the one check of all arguments."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

import torch
from torch import Tensor

from fastlangevin.kernels.address import (
    MAX_DRAWS,
    MAX_TERMS,
    ONE_DRAW,
    Coefficient,
    Draw,
    DrawTable,
    Term,
    Update,
)
from fastlangevin.memory import in_memory, recorded
from fastlangevin.noise import MAX_DRAW, MAX_ELEMENTS, AddressOptions, Purpose, integer, resolve, resolve_draw
from fastlangevin.ops.arguments import (
    are_plain,
    coefficient,
    compute_dtype,
    elements_per_sample,
    floating,
    like_state,
    same_place,
)
from fastlangevin.values import real, shown

__all__ = ["Draws", "StepOptions", "checked_update", "refuse_unwritable", "verified"]

Draws = Sequence[tuple[float, int]] | tuple[Tensor, Tensor]


class StepOptions(AddressOptions, total=False):
    """Keyword arguments of an update.

    Attributes:
        seed, generator, draw, purpose, sample_ids, sample_offset: the address of the noise, as for
            :class:`fastlangevin.noise.AddressOptions`; the purpose is ``LANGEVIN`` by default.
        draws: what the noise z is made of, in place of the one draw of number ``draw``: 1 to 4 pairs
            ``(weight, offset)``, z = sum of weight times the normals of draw number ``draw + offset``; or a pair of
            tensors on the state's device, weights ``(N,)`` and the draw numbers themselves, int64 ``(N,)``. Summed
            left to right, each product rounded.
        number: number of the step, which ``fault`` and ``freeze`` compare; ``draw`` by default. An int or a 0-dim int64
            tensor.
        noise: the noise z itself, same shape, instead of a seed: for comparing with other code.
        mask: bool, broadcasts to the state; True where the result is ``known``.
        known: values for the mask, of the state's dtype, broadcast to the state.
        fault: int64 ``(B,)``, written: lowered to ``number`` for a sample whose result holds a NaN or an infinity once
            it is rounded to the state's dtype. Filled with ``fastlangevin.ops.NO_FAULT`` (2^63 - 1) before the first
            step, it ends as the number of each sample's first such step. The result's bits are not changed by it, no
            host waits, and no gradient may be asked for.
        freeze: leave a sample whose ``fault`` is of an earlier step as it is; the others go on.
    """

    draws: Draws | None
    number: int | Tensor | None
    noise: Tensor | None
    mask: Tensor | None
    known: Tensor | None
    fault: Tensor | None
    freeze: bool


MAX_FP32 = torch.finfo(torch.float32).max
MAX_FP64 = torch.finfo(torch.float64).max
_LANGEVIN = int(Purpose.LANGEVIN)
# The options that are not of the address.
_OWN = ("draws", "number", "noise", "mask", "known", "fault", "freeze")


def checked_update(
    x: Tensor, scores: Tensor | Sequence[Tensor], factors: tuple[Any, Any, Any], options: StepOptions
) -> Update:
    """The update c x + a_0 s_0 + a_1 s_1 + ... + b z of what a user gave; ``factors`` are c, a and b.

    Raises:
        TypeError, ValueError: as :func:`fastlangevin.step` says.
    """
    c, a, b = factors
    own: dict[str, Any] = {}
    samples: dict[str, Any] = {}
    for name in options:
        (own if name in _OWN else samples)[name] = options[name]  # type: ignore[literal-required]
    # Asked for by `in`, which is no call, since few give them.
    purpose = samples.pop("purpose") if "purpose" in samples else _LANGEVIN
    draw = samples.pop("draw") if "draw" in samples else 0
    draws, number = own.pop("draws", None) if own else None, own.pop("number", None) if own else None
    if own or draws is not None:
        _check_together(own, draws, number, samples)
    if type(x) is not Tensor:
        x = floating("x", x)
    drawn = b is not None and ("noise" not in own or own["noise"] is None)
    address = resolve(x, purpose, draw, drawn, **samples)
    return verified(
        Update(
            (Term(c, x), Term(a, scores)) if type(scores) is Tensor else _terms(x, scores, c, a),
            b,
            address,
            address.draw if number is None else resolve_draw(number, x.device, "number"),
            ONE_DRAW if draws is None else _draws(draws, x, address.draw),
            **own,
        )
    )


def _check_together(own: dict[str, Any], draws: Draws | None, number: object, place: dict[str, Any]) -> None:
    """Refuses options that exclude each other, and those that lack another."""
    if own.get("noise") is not None:
        if place.get("seed") is not None or place.get("generator") is not None:
            raise ValueError("noise= is the noise itself: give it, or a seed= or generator= to draw it from, not both")
        if draws is not None:
            raise ValueError("noise= is the noise itself, and draws= says what it is drawn from: give one of them")
    if own.get("fault") is not None and number is None and draws is not None:
        raise ValueError(
            "fault= and freeze= compare the number of the step, which is not that of its draws: with draws= give "
            "number= too, the count of steps made before this one"
        )


def verified(update: Update) -> Update:
    """An update whose address and draws are resolved, with the rest of it checked and brought into form.

    Raises:
        TypeError, ValueError: as :func:`fastlangevin.step` says.
    """
    (c, state), *others = update.terms
    extra = update.noise is not None or update.mask is not None or update.known is not None
    if not (extra or update.fault is not None or torch.compiler.is_dynamo_compiling()):
        # What a sampler passes at every step: numbers, and tensors alike.
        b, plain = update.b, are_plain(*(slot for _, slot in update.terms))
        shape, device = state.shape, state.device
        limit = MAX_FP64 if state.dtype is torch.float64 else MAX_FP32
        plain = plain and (b is None or (type(b) is float and -limit <= b <= limit)) and not update.freeze
        for a, slot in update.terms:
            plain = plain and slot.shape == shape and slot.device == device
            plain = plain and type(a) is float and -limit <= a <= limit
        # More bytes than that are looked at below, where elements are counted.
        if plain and state.nbytes <= MAX_ELEMENTS:
            return update
    x = floating("x", state)
    elements_per_sample(x.shape)
    several = len(others) > 1
    terms = [Term(_spread("c", c, x), x)]
    for place, (a, slot) in enumerate(others):
        where = f"[{place}]" if several else ""
        score = like_state(f"score{where}", slot, x)
        terms.append(Term(_spread(f"a{where}", a, x), score))
    b, noise, mask, known, fault = update.b, update.noise, update.mask, update.known, update.fault
    if (mask is None) != (known is None):
        raise ValueError("mask= and known= belong together: give both, or neither")
    if fault is None and update.freeze:
        raise ValueError("freeze=True leaves the samples of fault= as they are; give fault= too")
    return update._replace(
        terms=tuple(terms),
        b=None if b is None else _spread("b", b, x),
        noise=None if noise is None else like_state("noise", noise, x).to(compute_dtype(x)),
        mask=None if mask is None else _mask(mask, x),
        known=None if known is None else _known(known, x),
        fault=None if fault is None else _fault(fault, x),
        freeze=bool(update.freeze),
    )


def _spread(name: str, value: Coefficient, x: Tensor) -> Coefficient:
    """A coefficient that was checked, expanded to the state's shape if it is a tensor."""
    value = coefficient(name, value, x)
    return value.expand(x.shape) if isinstance(value, Tensor) else value


def _terms(
    x: Tensor, scores: Tensor | Sequence[Tensor], c: Coefficient, a: Coefficient | Sequence[Coefficient]
) -> tuple[Term, ...]:
    if isinstance(scores, Tensor | str) or not isinstance(scores, Sequence):
        return Term(c, x), Term(a, scores)  # type: ignore[arg-type]
    if isinstance(a, Tensor | str) or not isinstance(a, Sequence) or len(a) != len(scores):
        count = f"{len(a)} coefficients" if isinstance(a, Sequence) and not isinstance(a, str) else shown(a)
        raise ValueError(f"a must have one coefficient for each of the {len(scores)} scores, got {count}")
    if len(scores) + 1 > MAX_TERMS:
        raise ValueError(
            f"an update has at most {MAX_TERMS} terms, the state and {MAX_TERMS - 1} scores, got {len(scores)} scores; "
            "make it in two updates, or add up what is kept before"
        )
    return Term(c, x), *map(Term, a, scores)


def _draws(draws: Draws, x: Tensor, draw: int | Tensor) -> tuple[Draw, ...] | DrawTable:
    if isinstance(draws, Tensor | str) or not isinstance(draws, Sequence):
        raise TypeError(
            f"draws must be 1 to {MAX_DRAWS} pairs (weight, offset), or a pair of tensors (weights, numbers), got "
            f"{shown(draws)}"
        )
    if len(draws) == 2 and all(isinstance(each, Tensor) for each in draws):
        weights, numbers = (cast(Tensor, each) for each in draws)
        return _table(weights, numbers, x)
    if not 1 <= len(draws) <= MAX_DRAWS:
        raise ValueError(
            f"draws must be 1 to {MAX_DRAWS} pairs (weight, offset), got {len(draws)}; a pair of tensors (weights, "
            "numbers) takes any number"
        )
    found = []
    for pair in draws:
        if not isinstance(pair, Sequence) or len(pair) != 2:
            raise TypeError(f"each of draws must be a pair (weight, offset), got {shown(pair)}")
        weight, offset = pair
        value = real("a weight of draws", weight, "a finite number")
        if not abs(value) <= torch.finfo(compute_dtype(x)).max:
            raise ValueError(f"the weights of draws must be finite in {compute_dtype(x)}, got {shown(weight)}")
        last = MAX_DRAW if isinstance(draw, Tensor) else MAX_DRAW - draw
        found.append(Draw(value, integer("an offset of draws", offset, 0, last)))
    return tuple(found)


def _table(weights: Tensor, numbers: Tensor, x: Tensor) -> DrawTable:
    weights = floating("the weights of draws", weights)
    if weights.requires_grad and torch.is_grad_enabled():
        raise ValueError(
            "the weights of draws require a gradient, which is not computed for coefficients; pass weights.detach()"
        )
    for name, tensor in (("the weights of draws", weights), ("the numbers of draws", numbers)):
        same_place(name, tensor, x)
        if tensor.ndim != 1 or not tensor.numel() or tensor.shape != weights.shape:
            raise ValueError(
                "draws as tensors must be weights (N,) and numbers (N,) of one length, at least 1, got "
                f"{tuple(weights.shape)} and {tuple(numbers.shape)}"
            )
    if numbers.dtype != torch.int64:
        raise TypeError(f"the numbers of draws must be int64, got {numbers.dtype}; use .long()")
    weights, numbers = weights.detach().to(compute_dtype(x)).contiguous(), in_memory("draws", numbers).contiguous()
    # Values on a device are trusted: reading them would make the host wait.
    if numbers.device.type == "cpu" and not recorded():
        low, high = (int(each) for each in numbers.aminmax())
        if low < 0 or high > MAX_DRAW:
            raise ValueError(f"the numbers of draws must be from 0 to {MAX_DRAW}, got {low if low < 0 else high}")
        if not bool(weights.isfinite().all()):
            raise ValueError(f"the weights of draws must be finite in {weights.dtype}, got {shown(weights.tolist())}")
    return DrawTable(weights, numbers)


def _fault(fault: Tensor, x: Tensor) -> Tensor:
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
    refuse_unwritable("fault", fault)
    return fault


def refuse_unwritable(name: str, value: Tensor) -> None:
    """Raises for a tensor whose values are not those of its memory."""
    is_word = isinstance(value, Tensor) and value.dtype is torch.int64
    if (in_memory if is_word else floating)(name, value) is not value:
        raise ValueError(
            f"{name} is a view that PyTorch negates as it reads, or zeros without memory, so it cannot be written in "
            f"place; pass {name}.resolve_neg().clone()"
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
