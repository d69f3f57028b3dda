"""Denoising score matching: the perturbed data, and the objective with its gradient.

For a sample x of level i and the normal z at its address, in fp32 (fp64 for fp64 tensors, z being the fp32 normal
widened), each operation rounded once:

    perturbed = fl(x + fl(sigma_i z))                          then rounded to the dtype of x

    residual  r = fl(fl(p_i h) + z)      h the network's output; p is sigma for a score, 1 for sigma times the score,
                                         -1 for a prediction of z
    residual  r = fl(p_i fl(h - x))      for a prediction of the clean data, p = 1 / sigma
    value     v = fl(fl(1/2 sum r^2) w_i)
    gradient  g = fl(fl(k_i u) r)        k = w p, u the derivative of the caller's loss by v; then rounded to h's dtype

In every case r = sigma s + z for the score s that h stands for, so that v is the objective with the weight
lambda(sigma) = w sigma^2, and nothing is divided by sigma where the network is not asked for the data themselves.

A sum has one order, whatever the machine. Four neighbours: (e0 + e1) + (e2 + e3). A segment of them, by halves:
the upper half of its groups onto the lower, until one is left. The segments of a sample, the values of a batch: 256
lanes, each of which takes its entries in turn, then the lanes by halves. What a segment or the lanes lack is zero, and
zero added to a square changes no bit.
"""

from __future__ import annotations

import torch
from torch import Tensor

from fastlangevin.kernels.address import Address
from fastlangevin.kernels.operands import Objective, Perturbation, Sums
from fastlangevin.reference.update import normals, uniforms

__all__ = ["drawn_levels", "dsm", "level_of", "perturb", "segment_elements", "sum_of_squares"]

LANES = 256
LARGEST_SEGMENT = 1024
SMALLEST_CUT = 128


def segment_elements(elements: int) -> int:
    """Elements of a segment, for samples of ``elements``: a power of two from 4 to 1024.

    Up to 128 elements a sample is one segment. Longer ones are cut into the longest segments that leave at most an
    eighth of their places empty, or into those that leave the fewest: a kernel's lanes stand idle there.
    """
    size = 4
    while size < elements and size < SMALLEST_CUT:
        size *= 2
    if size >= elements:
        return size
    choices = [size << more for more in range((LARGEST_SEGMENT // size).bit_length())]
    padded = {each: -(-elements // each) * each for each in choices}
    near = [each for each in choices if 8 * (padded[each] - elements) <= padded[each]]
    return max(near) if near else min(choices, key=lambda each: (padded[each], -each))


def level_of(uniform: Tensor, levels: int) -> Tensor:
    """The level that a uniform chooses: floor(levels u), int64.

    A uniform is an odd multiple of 2^-24, so the floor is exact in integers; in fp32 the product could round up.
    """
    return (uniform * 2.0**24).long() * levels >> 24


def _per_sample(table: Tensor, labels: Tensor, like: Tensor) -> Tensor:
    return table[labels].reshape(-1, *(1,) * (like.ndim - 1))


def drawn_levels(address: Address, batch: int, levels: int, device: torch.device) -> Tensor:
    """Levels at the samples' addresses, uniform on 0 .. levels - 1; int64 ``(B,)``."""
    return level_of(uniforms(address, (batch, 1), device)[:, 0], levels)


def perturb(given: Perturbation) -> tuple[Tensor, Tensor]:
    """x + sigma z, and the level of each sample."""
    x, sigmas, labels, address, level_purpose, noise = given
    if labels is None:
        labels = drawn_levels(address._replace(purpose=level_purpose), x.shape[0], sigmas.numel(), x.device)
    z = normals(address, x.shape, x.device) if noise is None else noise
    return (x.to(sigmas.dtype) + _per_sample(sigmas, labels, x) * z.to(sigmas.dtype)).to(x.dtype), labels


def _fold(values: Tensor) -> Tensor:
    """The sum over the last dimension, a power of two, by halves."""
    while (half := values.shape[-1] // 2) > 0:
        values = values[..., :half] + values[..., half:]
    return values[..., 0]


def _padded(values: Tensor, multiple: int) -> Tensor:
    return torch.nn.functional.pad(values, (0, -values.shape[-1] % multiple))


def _across(values: Tensor) -> Tensor:
    """The sum over the last dimension: 256 lanes in turn, then the lanes by halves."""
    turns = _padded(values, LANES).unflatten(-1, (-1, LANES)).unbind(-2)
    lanes = turns[0]
    for turn in turns[1:]:
        lanes = lanes + turn
    return _fold(lanes)


def sum_of_squares(residual: Tensor) -> Tensor:
    """``(B, D)`` to ``(B,)``, in the written order."""
    segment = segment_elements(residual.shape[1])
    groups = _padded(residual * residual, segment).unflatten(-1, (-1, segment // 4, 4))
    return _across(_fold((groups[..., 0] + groups[..., 1]) + (groups[..., 2] + groups[..., 3])))


def dsm(given: Objective, upstream: Tensor, *, gradient: bool) -> tuple[Sums, Tensor | None]:
    """The objective's values and sums, and its gradient by the network's output, or None.

    Args:
        given: the objective.
        upstream: u, ``()`` or ``(B,)``, in the computing dtype.
        gradient: whether it is wanted.
    """
    output, labels, (scale, weight, slope), address, noise, clean = given
    dtype = scale.dtype
    p = _per_sample(scale, labels, output)
    if clean is not None:
        residual = p * (output.to(dtype) - clean.to(dtype))
    else:
        z = normals(address, output.shape, output.device) if noise is None else noise
        residual = p * output.to(dtype) + z.to(dtype)
    values = sum_of_squares(residual.flatten(1)) * 0.5 * weight[labels]
    own = labels == torch.arange(scale.numel(), dtype=torch.int64, device=labels.device)[:, None]
    sums = Sums(values, _across(torch.where(own, values, 0.0)), own.sum(1), _across(values))
    derivative = None
    if gradient:
        factor = (slope[labels] * upstream).reshape(-1, *(1,) * (output.ndim - 1))
        derivative = (factor * residual).to(output.dtype)
    return sums, derivative
