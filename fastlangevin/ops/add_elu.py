"""A sum with ELU behind it in one operation: ``add_elu``."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from fastlangevin import reference
from fastlangevin.ops.arguments import floating, same_place
from fastlangevin.ops.memory import recorded, transforms
from fastlangevin.ops.normalisation import layout_of
from fastlangevin.ops.operation import register
from fastlangevin.runtime import choose

__all__ = ["add_elu"]


def _forward(terms: list[Tensor], keep: bool, impl: str) -> tuple[Tensor | None, Tensor]:
    launchers = choose(impl, terms[0].device)[1]
    layout = layout_of(terms[0])
    if launchers is None or launchers.add_elu is None:
        added, activated = reference.add_elu(terms)
        return added.contiguous(memory_format=layout) if keep else None, activated.contiguous(memory_format=layout)
    out = torch.empty_like(terms[0], memory_format=layout)
    total = torch.empty_like(out) if keep else None
    launchers.add_elu(out, total, [term.contiguous(memory_format=layout) for term in terms])
    return total, out


def _both(terms: list[Tensor], impl: str) -> tuple[Tensor, Tensor]:
    total, out = _forward(terms, True, impl)
    assert total is not None
    # A single term is its own sum, which an operation must not return.
    return (total.clone() if total is terms[0] else total), out


def _fake(terms: list[Tensor], impl: str) -> tuple[Tensor, Tensor]:
    out = torch.empty_like(terms[0], memory_format=layout_of(terms[0]))
    return torch.empty_like(out), out


register("add_elu(Tensor[] terms, str impl) -> (Tensor, Tensor)", _both, _fake)


class _AddElu(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, a: Tensor, b: Tensor | None, c: Tensor | None, impl: str) -> Any:
        # By name, since PyTorch 2.13 traces no function of any number of tensors.
        terms = [term for term in (a, b, c) if term is not None]
        operation = torch.ops.fastlangevin.add_elu if recorded() else _both
        total, out = operation(terms, impl)
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(total)
        return total, out

    @staticmethod
    def backward(ctx: Any, *derivatives: Tensor | None) -> tuple[Tensor | None, ...]:
        by_total, by_out = derivatives
        if by_out is not None:
            (total,) = ctx.saved_tensors
            by_sum = torch.ops.aten.elu_backward(by_out, 1.0, 1.0, 1.0, False, total)
            by_total = by_sum if by_total is None else by_sum + by_total
        return *[by_total if wanted else None for wanted in ctx.needs_input_grad[:3]], None


def add_elu(*terms: Tensor, keep: bool = True, impl: str = "auto") -> tuple[Tensor | None, Tensor]:
    """ELU of a sum, and the sum itself: what stands between the convolutions of the standard networks.

    Args:
        terms: one to three tensors of one shape and dtype, added first to last; each addition is rounded to that dtype.
        keep: whether the sum is wanted.
        impl: ``"auto"``, ``"triton"``, ``"cpp"`` or ``"reference"``.

    Returns:
        The sum, or None with ``keep=False`` where no gradient is wanted; and its ELU, y where y > 0 and exp(y) - 1
        otherwise. Channels_last where the first term is and contiguous otherwise.

    Raises:
        TypeError, ValueError: a term is of the wrong kind, shape or device.
        RuntimeError: ``impl`` cannot run here.
    """
    if not 1 <= len(terms) <= 3:
        raise ValueError(f"add_elu takes one to three terms, got {len(terms)}; add the others first")
    first, *others = terms = tuple(floating(f"terms[{index}]", term) for index, term in enumerate(terms))
    for index, term in enumerate(others, 1):
        same_place(f"terms[{index}]", term, first)
        if term.shape != first.shape or term.dtype != first.dtype:
            raise ValueError(
                f"terms[{index}] must match the first, {tuple(first.shape)} and {first.dtype}, got "
                f"{tuple(term.shape)} and {term.dtype}"
            )
    if transforms():
        choose(impl, first.device)
        layout = layout_of(first)
        added, activated = (each.contiguous(memory_format=layout) for each in reference.add_elu(terms))
        return added, activated
    differentiable = torch.is_grad_enabled() and any(term.requires_grad for term in terms)
    if differentiable or torch.compiler.is_compiling():
        a, b, c = (*terms, None, None)[:3]
        total, out = _AddElu.apply(a, b, c, impl)
        return total, out
    if recorded():
        total, out = torch.ops.fastlangevin.add_elu(list(terms), impl)
        return total, out
    return _forward(list(terms), keep, impl)
