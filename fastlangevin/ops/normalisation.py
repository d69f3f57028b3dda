"""Shared parts of the fused norms: the layout of results, and the cases in which plain PyTorch replaces the kernel."""

from __future__ import annotations

import torch
from torch import Tensor

from fastlangevin.memory import is_compiling, recorded, transforms
from fastlangevin.ops.arguments import compute_dtype

__all__ = ["empty_results", "layout_of", "needs_plain_backward"]


def layout_of(x: Tensor) -> torch.memory_format:
    """In which of the two layouts the kernels take ``x``, and leave the result."""
    if x.ndim == 4 and not x.is_contiguous() and x.is_contiguous(memory_format=torch.channels_last):
        return torch.channels_last
    return torch.contiguous_format


def empty_results(x: Tensor, layout: torch.memory_format, columns: int, count: int = 2) -> list[Tensor]:
    """A tensor as ``x``, and ``count`` with a row of so many columns for each sample, in the computing dtype."""
    size, dtype = (x.shape[0], columns), compute_dtype(x)
    return [torch.empty_like(x, memory_format=layout), *[x.new_empty(size, dtype=dtype) for _ in range(count)]]


def needs_plain_backward(grad_out: Tensor) -> bool:
    """Returns whether the gradients are to be differentiated or batched, which plain PyTorch alone can do."""
    if is_compiling():
        return False
    return torch.is_grad_enabled() or transforms() or not (recorded() or _has_memory(grad_out))


def _has_memory(tensor: Tensor) -> bool:
    """False of the batches that ``torch.autograd.grad(..., is_grads_batched=True)`` passes for one tensor."""
    try:
        tensor.data_ptr()
    except RuntimeError:
        return False
    return True
