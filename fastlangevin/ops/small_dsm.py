"""The objective of small plain batches, whose time is that of the calls on the way: :func:`loss`.

What :mod:`.dsm` computes, with the same bits, in less than half of its calls: the address was resolved when the samples
were perturbed, the tables belong to the caller, and nothing is looked at twice.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import torch
from torch import Tensor

from fastlangevin.kernels.operands import Objective, Sums
from fastlangevin.ops.dsm import differentiable_once
from fastlangevin.ops.quick import is_plain
from fastlangevin.ops.rescale import rescale_
from fastlangevin.ops.workspace import Workspace
from fastlangevin.reference import segment_elements
from fastlangevin.runtime import choose_for

__all__ = ["loss"]

_segment = lru_cache(maxsize=4096)(segment_elements)


def loss(given: Objective, share: Tensor, impl: str, workspace: Workspace | None = None) -> tuple[Tensor, Sums] | None:
    """The mean or the sum of the values over the batch, and the values with their sums.

    Args:
        given: the objective of samples that :func:`fastlangevin.ops.quick.perturb` perturbed, with a batch as theirs.
            Its tables are contiguous fp32, its address is of numbers in range and of ids that were looked at, and of
            ``clean`` no gradient is wanted.
        share: the derivative of the loss by the value of a sample, fp32 ``()``.
        impl: the implementation.
        workspace: where the gradient is written, claimed for this batch; None for new memory.

    Returns:
        None if the output is not as plain as the samples, before anything is computed.
    """
    output = given.output
    if not is_plain(output):
        return None
    if output.requires_grad and torch.is_grad_enabled():
        kept: list[Sums] = []
        # In one argument: PyTorch asks each of them some three times whether it is a tensor.
        total: Tensor = _Loss.apply(output, (given, share, impl, kept, workspace))
        return total, kept[0]
    found, _ = _computed(given, share, impl, sums=True, gradient=None)
    assert found is not None
    return found.total * share, found


def _computed(
    given: Objective, share: Tensor, impl: str, *, sums: bool, gradient: Tensor | None
) -> tuple[Sums | None, Tensor | None]:
    output = given.output
    kernel = choose_for(impl, "cpu")[1].quick_dsm
    assert kernel is not None
    segment = _segment(output.nbytes // (4 * output.shape[0]))
    done: Any = kernel(given, share, segment, given.address, sums, gradient)
    found: tuple[Sums | None, Tensor | None] = done
    return found


class _Loss(torch.autograd.Function):
    """As that of :mod:`.dsm`; the gradient is made in the same pass."""

    @staticmethod
    def forward(ctx: Any, output: Tensor, call: tuple[Objective, Tensor, str, list[Sums], Workspace | None]) -> Tensor:
        given, share, impl, kept, workspace = call
        ctx.pending = None if workspace is None else workspace.begin()
        memory = torch.empty_like(output) if workspace is None else workspace.gradient
        found, ctx.gradient = _computed(given, share, impl, sums=True, gradient=memory)
        assert found is not None
        kept.append(found)
        # Without the output, which is freed with what autograd saves.
        _, *ctx.others = given
        ctx.share, ctx.impl = share, impl
        ctx.save_for_backward(output)
        return found.total * share

    @staticmethod
    def backward(ctx: Any, derivative: Tensor) -> tuple[Tensor | None, ...]:
        differentiable_once(derivative)
        (output,) = ctx.saved_tensors
        gradient, ctx.gradient = ctx.gradient, None
        if gradient is None:  # a second backward pass: the first one's was given away
            given, memory = Objective(output, *ctx.others), torch.empty_like(output)
            _, gradient = _computed(given, ctx.share, ctx.impl, sums=False, gradient=memory)
        assert gradient is not None
        rescale_(gradient, derivative, ctx.impl)
        if ctx.pending is not None:
            ctx.pending.done = True
        return gradient, None
