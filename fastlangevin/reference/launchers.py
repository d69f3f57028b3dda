"""The reference as an implementation: the functions that :class:`fastlangevin.runtime.Launchers` names.

Each writes what it computes to the tensors that it is given, as the launchers of the kernels do.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from torch import Tensor

from fastlangevin import reference
from fastlangevin.kernels.address import Address, Update
from fastlangevin.kernels.operands import (
    ChainNetwork,
    ChainUpdates,
    GroupNorm,
    GroupNormGradients,
    InstanceNorm,
    InstanceNormGradients,
    Objective,
    Perturbation,
    SampleNorms,
    Statistics,
    Sums,
)

__all__ = [
    "add_elu",
    "dsm",
    "group_norm",
    "group_norm_backward",
    "instance_norm",
    "instance_norm_backward",
    "mixture_score",
    "mlp_chain",
    "norms",
    "perturb",
    "randn",
    "rescale",
    "step",
]


def _fill(results: Iterable[Tensor | None], found: Iterable[Tensor | None]) -> None:
    for to, value in zip(results, found, strict=True):
        if to is not None and value is not None:
            to.copy_(value)


def step(out: Tensor, update: Update) -> Tensor:
    """Writes the result of an update, which may be written over its state, and returns it."""
    return out.copy_(reference.step(update))


def randn(out: Tensor, address: Address, *, uniform: bool) -> None:
    """Fills a tensor with normals, or with uniforms on (0, 1)."""
    out.copy_((reference.uniforms if uniform else reference.normals)(address, out.shape, out.device))


def perturb(out: Tensor, drawn: Tensor | None, given: Perturbation) -> None:
    """Writes x + sigma z, and the labels if they are drawn."""
    _fill((out, drawn), reference.perturb(given))


def dsm(sums: Sums | None, gradient: Tensor | None, given: Objective, upstream: Tensor, segment: int) -> None:
    """Writes the objective's values, sums and gradient, those that are wanted."""
    found, derivative = reference.dsm(given, upstream, gradient=gradient is not None)
    _fill((*(sums or [None] * 4), gradient), (*found, derivative))


def norms(out: Tensor, given: SampleNorms, segment: int) -> None:
    """Writes the norms of samples, of their noise, or of both."""
    x, address, of_x, of_noise, noise = given
    if of_x:
        out[0] = reference.norms(x)
    if of_noise:
        z = reference.normals(address, x.shape, x.device) if noise is None else noise
        out[-1] = reference.norms(z.to(out.dtype))


def rescale(values: Tensor, factor: Tensor) -> None:
    """Multiplies values by a factor ``()`` in the dtype of the factor."""
    if values.dtype == factor.dtype:
        values.mul_(factor)
    else:
        values.copy_(values.to(factor.dtype) * factor)


def instance_norm(out: Tensor, total: Tensor | None, statistics: Statistics, given: InstanceNorm) -> None:
    """Writes InstanceNorm++, what it is of where that is a sum, and its statistics."""
    result, added, found = reference.instance_norm(given)
    _fill((out, total, *statistics), (result, added, *found))


def instance_norm_backward(
    gradients: InstanceNormGradients, grad_out: Tensor, given: InstanceNorm, statistics: Statistics
) -> None:
    """Writes the gradients of the norm."""
    _fill(gradients, reference.instance_norm_backward(grad_out, given, statistics))


def group_norm(out: Tensor, statistics: Statistics, given: GroupNorm, eps: float) -> None:
    """Writes GroupNorm and its statistics."""
    result, found = reference.group_norm(given, eps)
    _fill((out, *statistics), (result, *found))


def group_norm_backward(
    gradients: GroupNormGradients, grad_out: Tensor, given: GroupNorm, statistics: Statistics
) -> None:
    """Writes the gradients of the norm."""
    _fill(gradients, reference.group_norm_backward(grad_out, given, statistics))


def add_elu(out: Tensor, total: Tensor | None, terms: Sequence[Tensor]) -> None:
    """Writes ELU of a sum, and the sum."""
    _fill((total, out), reference.add_elu(terms))


def mixture_score(out: Tensor, x: Tensor, table: Tensor, labels: Tensor, *, diagonal: bool) -> None:
    """Writes the score of a mixture."""
    out.copy_(reference.mixture_score(x, table, labels, diagonal))


def mlp_chain(x: Tensor, network: ChainNetwork, updates: ChainUpdates, matmul: str) -> None:
    """Makes the updates of a chain on a small perceptron."""
    x.copy_(reference.mlp_chain(x, network, updates))
