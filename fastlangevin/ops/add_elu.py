"""A sum with ELU behind it in one operation: ``add_elu``."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from fastlangevin import reference
from fastlangevin.memory import observed, transforms
from fastlangevin.ops.arguments import floating, same_place
from fastlangevin.ops.normalisation import layout_of
from fastlangevin.ops.operation import Operation
from fastlangevin.runtime import Launchers, choose

__all__ = ["add_elu"]


def _launch(launchers: Launchers, terms: list[Tensor], keep: bool = True) -> tuple[Tensor | None, Tensor]:
    first, *_ = terms
    layout = layout_of(first)
    out = torch.empty_like(first, memory_format=layout)
    total = torch.empty_like(out) if keep else None
    launchers.add_elu(out, total, [term.contiguous(memory_format=layout) for term in terms])
    return total, out


def _plain(terms: list[Tensor]) -> tuple[Tensor, Tensor]:
    first, *_ = terms
    layout = layout_of(first)
    added, activated = (each.contiguous(memory_format=layout) for each in reference.add_elu(terms))
    return added, activated


def _fake(terms: list[Tensor], impl: str) -> tuple[Tensor, Tensor]:
    first, *_ = terms
    out = torch.empty_like(first, memory_format=layout_of(first))
    return torch.empty_like(out), out


_ADD_ELU = Operation("add_elu(Tensor[] terms) -> (Tensor, Tensor)", _launch, plain=_plain, fake=_fake)


class _AddElu(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, a: Tensor, b: Tensor | None, c: Tensor | None, impl: str) -> Any:
        # By name, since PyTorch 2.13 traces no function of any number of tensors.
        terms = [term for term in (a, b, c) if term is not None]
        total, out = _ADD_ELU(impl, a.device, terms)
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
    if torch.compiler.is_compiling() or (
        torch.is_grad_enabled() and any(term.requires_grad for term in terms) and not transforms()
    ):
        a, b, c = (*terms, None, None)[:3]
        total, out = _AddElu.apply(a, b, c, impl)
        return total, out
    if not keep and not observed():
        return _launch(choose(impl, first.device)[1], list(terms), keep)
    total, out = _ADD_ELU(impl, first.device, list(terms))
    return total, out
