"""The score's Jacobian J as vector-Jacobian products: its trace, and quadratic forms v^T J v.

A product is one backward pass through the score, and the graph is kept: a training step holds the memory of the forward
pass and of all its products until its own backward pass.
"""

from __future__ import annotations

import torch
from torch import Tensor

from fastlangevin.losses.arguments import Score, check_returned
from fastlangevin.noise import MAX_ELEMENTS, integer


def check_chunk_size(chunk_size: int) -> int:
    return integer("chunk_size", chunk_size, 1, MAX_ELEMENTS)


def score_at(name: str, score: Score, x: Tensor) -> tuple[Tensor, Tensor]:
    """The score with its graph, whatever the caller's gradient mode, and the point that the graph begins at.

    The point is another tensor than ``x``, whose ``requires_grad`` stays as it is. Where ``x`` requires a gradient the
    point passes it on. The score gets a copy of it, which it may write to, as autograd lets nobody write to a leaf.
    """
    follows = x.requires_grad and torch.is_grad_enabled()
    with torch.inference_mode(False), torch.enable_grad():
        point = x.view_as(x) if follows else (x.clone() if x.is_inference() else x.detach()).requires_grad_()
        return check_returned(name, score(point.clone()), x), point


def quadratic_forms(score: Tensor, point: Tensor, vectors: Tensor, chunk_size: int) -> Tensor:
    """Mean over the K vectors ``(B, K, *)`` of v^T J v, ``(B,)``, in the dtype of the vectors. K products."""
    forms = [
        (_products(score, point, chunk.to(score.dtype)).to(chunk.dtype) * chunk).flatten(2).sum(2)
        for chunk in vectors.transpose(0, 1).split(chunk_size)
    ]
    return torch.cat(forms).mean(0)


def exact_trace(score: Tensor, point: Tensor, chunk_size: int, dtype: torch.dtype) -> Tensor:
    """The trace of J, ``(B,)``, of samples that the score treats apart. D products for D elements in a sample."""
    batch = len(point)
    elements = point[0].numel()
    diagonals = []
    for start in range(0, elements, chunk_size):
        column = torch.arange(start, min(start + chunk_size, elements), dtype=torch.int64, device=point.device)
        row = torch.arange(len(column), dtype=torch.int64, device=point.device)
        basis = torch.zeros(len(column), batch, elements, dtype=score.dtype, device=point.device)
        basis[row, :, column] = 1
        products = _products(score, point, basis.reshape(-1, *point.shape)).flatten(2)
        diagonals.append(products[row, :, column].to(dtype))
    return torch.cat(diagonals).sum(0)


def _products(score: Tensor, point: Tensor, vectors: Tensor) -> Tensor:
    """v^T J for each v of ``(C, B, *)``: one at a time where C is 1, else together with ``torch.vmap``."""
    differentiable = torch.is_grad_enabled()
    product: Tensor | None = None
    if score.requires_grad:
        batched = len(vectors) > 1
        with torch.inference_mode(False), torch.set_grad_enabled(differentiable):
            (product,) = torch.autograd.grad(
                score,
                point,
                vectors if batched else vectors[0],
                retain_graph=True,
                create_graph=differentiable,
                allow_unused=True,
                is_grads_batched=batched,
            )
        if product is not None and not batched:
            product = product[None]
    return torch.zeros_like(vectors) if product is None else product
