"""Checks numerically that a module computes a formula.

Two trials, since either alone can mislead. On what the module sees in the network, its result and the fused
operation's must be the formula's to rounding. And a twin of it, filled with numbers that no two terms share, must be
the formula's on an input so small that the epsilons under the roots count: there parameters that happen to be equal,
another epsilon, or another variance, show.
"""

from __future__ import annotations

import copy
import math
from collections import OrderedDict
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from fastlangevin.fusion.formulas import Formula
from fastlangevin.fusion.probe import generators_kept
from fastlangevin.ops.random import rand, randn
from fastlangevin.reference.instance_norm import EPSILON

__all__ = ["DisagreementError", "agreed", "deviation"]

SMALL = math.sqrt(EPSILON)
OTHER_EPSILONS = (1e-3, 1e-4, 1e-6, 1e-8, 1e-12)


class DisagreementError(Exception):
    """The module computes something else: the message says what was seen."""


def agreed(readings: Sequence[Formula], module: nn.Module, inputs: tuple[Tensor, ...]) -> Formula:
    """The formula among the readings that the module computes, by its twin.

    Args:
        readings: formulas that its parameters fit.
        module: a norm of the user's.
        inputs: of a call of it; of x only shape, dtype and device matter.

    Raises:
        DisagreementError: it is none of them.
    """
    x, *rest = inputs
    dtype = torch.float64 if x.dtype == torch.float64 else torch.float32
    sizes = (*x.shape[:2], *(min(size, 8) for size in x.shape[2:]))
    planted = randn(sizes, seed=0, dtype=dtype, device=x.device)
    planted += randn((*sizes[:2], *[1] * (x.ndim - 2)), seed=1, dtype=dtype, device=x.device)
    trial = (SMALL * planted, *rest)
    twin = _twin(module, lambda place, value: 0.5 + rand(value.shape, seed=2, draw=place, dtype=dtype, device=x.device))
    found = []
    with generators_kept([x.device]):
        for training in (False, True):
            for part in twin.modules():
                part.training = training
            try:
                found.append(twin.forward(*trial))
            except Exception as error:
                raise DisagreementError(f"it cannot be tried by itself: {type(error).__name__}: {error}") from error
    excess: dict[Formula, float] = {}
    for reading in readings:
        excess[reading] = max(_excess(reading, twin, trial, out) for out in found)
        if excess[reading] <= 1:
            return reading
    best = min(readings, key=lambda reading: excess[reading])
    for epsilon in OTHER_EPSILONS:
        # The formula with another epsilon is the formula of an input scaled by the root of their ratio.
        scaled = (trial[0] * math.sqrt(EPSILON / epsilon), *rest)
        if any(_excess(reading, twin, scaled, found[0]) <= 1 for reading in readings):
            raise DisagreementError(f"it is {best.kind} with epsilon {epsilon:g}; the fused operation has {EPSILON:g}")
    if excess[best] == math.inf:
        raise DisagreementError(f"it is not {best.kind}: its result is of another kind")
    raise DisagreementError(
        f"it is not {best.kind}: on planted numbers it differs from the formula by {excess[best]:.1e} times the "
        "rounding allowed"
    )


def deviation(formula: Formula, module: nn.Module, inputs: tuple[Tensor, ...], out: Tensor, impl: str) -> Tensor:
    """Returns how far the fused operation is from what the module returned, ``(B, C)``: at least one rounding of it.

    Raises:
        DisagreementError: one of the two is not the formula's value to rounding.
    """
    x = inputs[0]
    wide = (x if x.dtype == torch.float64 else x.float(), *inputs[1:])
    exact = _twin(module, lambda place, value: value.to(wide[0].dtype))
    try:
        fused = formula.apply(_twin(module, lambda place, value: value), *inputs, activation=False, impl=impl)
    except (TypeError, ValueError, RuntimeError) as error:
        raise DisagreementError(f"the fused operation does not take its input: {error}") from error
    for result, whose in ((out, "it"), (fused, "the fused operation")):
        excess = _excess(formula, exact, wide, result)
        if not excess <= 1:
            raise DisagreementError(
                f"{whose} differs from {formula.kind} by {excess:.1e} times the rounding allowed on its input"
            )
    difference = (fused.to(wide[0].dtype) - out).abs()
    largest = out.to(wide[0].dtype).abs()
    if out.ndim > 2:
        difference, largest = difference.flatten(2).amax(2), largest.flatten(2).amax(2)
    return torch.maximum(difference, torch.finfo(out.dtype).eps / 2 * largest)


def _excess(formula: Formula, module: nn.Module, inputs: tuple[Tensor, ...], out: Tensor) -> float:
    """The largest difference from the formula, as a multiple of what rounding explains; infinite for NaN."""
    x = inputs[0]
    try:
        want = formula.apply(module, *inputs, activation=False, impl="reference")
        units = formula.roundings(module, *inputs)
    except (TypeError, ValueError, RuntimeError):
        return math.inf
    if not isinstance(out, Tensor) or out.shape != x.shape or not out.is_floating_point():
        return math.inf
    # A unit of what the result is rounded to, and one of what the formula is computed in here.
    epsilon = torch.finfo(out.dtype).eps + torch.finfo(x.dtype).eps
    difference = (out - want).abs()
    bound = epsilon * units.view(*units.shape, *[1] * (x.ndim - 2))
    # A norm that starts at zero has nothing to round.
    ratio = torch.where(difference == 0, 0.0, difference / bound)
    largest = ratio.max().item() if ratio.numel() else 0.0
    return largest if math.isfinite(largest) else math.inf


def _twin(module: nn.Module, numbers: Callable[[int, Tensor], Tensor]) -> nn.Module:
    """A copy without hooks.

    Args:
        module: what is copied.
        numbers: gives each parameter's numbers in the copy, from its place among the module's and those it has.
    """
    twin = copy.copy(module)
    state = twin.__dict__
    hooks = [name for name, value in state.items() if name.endswith("_hooks") and isinstance(value, dict)]
    state.update({name: OrderedDict() for name in hooks})
    state["_parameters"] = {
        name: None if value is None else nn.Parameter(numbers(place, value.detach()), requires_grad=False)
        for place, (name, value) in enumerate(module._parameters.items())
    }
    state["_modules"] = {
        name: None if child is None else _twin(child, numbers) for name, child in module._modules.items()
    }
    return twin
