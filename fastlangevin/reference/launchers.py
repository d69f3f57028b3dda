"""The reference as an implementation: the functions that :class:`fastlangevin.runtime.Launchers` names.

Each writes what it computes to the tensors that it is given, as the launchers of the kernels do.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from torch import Tensor

from fastlangevin import reference
from fastlangevin.kernels.address import Address, Update

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


def perturb(
    out: Tensor,
    x: Tensor,
    address: Address,
    *,
    sigmas: Tensor,
    labels: Tensor,
    draws_labels: bool,
    level_purpose: int,
    noise: Tensor | None,
) -> None:
    """Writes x + sigma z, and the labels if they are drawn."""
    if draws_labels:
        labels.copy_(
            reference.drawn_levels(address._replace(purpose=level_purpose), x.shape[0], sigmas.numel(), x.device)
        )
    z = reference.normals(address, x.shape, x.device) if noise is None else noise
    out.copy_(reference.perturb(x, sigmas, labels, z))


def dsm(
    values: Tensor | None,
    level_sums: Tensor | None,
    level_counts: Tensor | None,
    total: Tensor | None,
    gradient: Tensor | None,
    output: Tensor,
    address: Address,
    *,
    clean: Tensor | None,
    labels: Tensor,
    noise: Tensor | None,
    segment: int,
    **tables: Any,
) -> None:
    """Writes the objective's values, sums and gradient, those that are wanted."""
    if noise is None and clean is None:
        noise = reference.normals(address, output.shape, output.device)
    wanted = values, level_sums, level_counts, total, gradient
    options: dict[str, Any] = {"clean": clean, "noise": noise, "gradient": gradient is not None}
    _fill(wanted, reference.dsm(output, labels, **tables, **options))


def norms(
    out: Tensor, x: Tensor, address: Address, *, of_x: bool, of_noise: bool, noise: Tensor | None, segment: int
) -> None:
    """Writes the norms of samples, of their noise, or of both."""
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


def instance_norm(
    out: Tensor,
    x: Tensor,
    residual: Tensor | None,
    total: Tensor | None,
    gamma: Tensor,
    alpha: Tensor,
    beta: Tensor,
    mean: Tensor,
    rstd: Tensor,
    *,
    activation: bool,
    labels: Tensor | None = None,
) -> None:
    """Writes InstanceNorm++ of a sum, the sum, and its statistics."""
    if labels is not None:
        gamma, alpha, beta = gamma[labels], alpha[labels], beta[labels]
    added = x if residual is None else x + residual
    found = reference.instance_norm(added, gamma, alpha, beta, activation=activation)
    _fill((total, out, mean, rstd), (added, *found))


def instance_norm_backward(
    by_x: Tensor, by_gamma: Tensor, by_alpha: Tensor, by_beta: Tensor, *operands: Tensor, activation: bool
) -> None:
    """Writes the gradients of the norm."""
    found = reference.instance_norm_backward(*operands, activation=activation)
    _fill((by_x, by_gamma, by_alpha, by_beta), found)


def group_norm(
    out: Tensor,
    x: Tensor,
    weight: Tensor,
    bias: Tensor,
    mean: Tensor,
    rstd: Tensor,
    *,
    groups: int,
    eps: float,
    activation: bool,
) -> None:
    """Writes GroupNorm and its statistics."""
    _fill((out, mean, rstd), reference.group_norm(x, groups, weight, bias, eps=eps, activation=activation))


def group_norm_backward(
    by_x: Tensor, by_weight: Tensor, by_bias: Tensor, *operands: Tensor, groups: int, activation: bool
) -> None:
    """Writes the gradients of the norm."""
    found = reference.group_norm_backward(*operands, groups=groups, activation=activation)
    _fill((by_x, by_weight, by_bias), found)


def add_elu(out: Tensor, total: Tensor | None, terms: Sequence[Tensor]) -> None:
    """Writes ELU of a sum, and the sum."""
    _fill((total, out), reference.add_elu(terms))


def mixture_score(out: Tensor, x: Tensor, table: Tensor, labels: Tensor, *, diagonal: bool) -> None:
    """Writes the score of a mixture."""
    out.copy_(reference.mixture_score(x, table, labels, diagonal))


def mlp_chain(
    x: Tensor,
    weights: Sequence[Tensor],
    biases: Tensor,
    head: Tensor,
    frame: Tensor,
    address: Address,
    *,
    mean: float,
    activation: str,
    levels: Tensor,
    coefficients: Tensor,
    noisy: Tensor,
    every: int,
    frames: Tensor | None,
    matmul: str,
) -> None:
    """Makes the updates of a chain on a small perceptron."""
    network = reference.ChainNetwork(tuple(weights), biases, head, frame, mean, activation)
    x.copy_(reference.mlp_chain(x, network, levels, coefficients, noisy, address, every=every, frames=frames))
