"""One move of a sampler: a weighted sum of states, scores and normals."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from fastlangevin.kernels.address import Address, Coefficient, DrawTable, Update
from fastlangevin.reference.random import rand, randn

__all__ = ["NO_FAULT", "combine", "noise", "normals", "sample_numbers", "step", "uniforms"]

NO_FAULT = 2**63 - 1


def sample_numbers(address: Address, batch: int, device: torch.device) -> Tensor:
    """The global ids of a batch, int64 ``(B,)``."""
    if address.sample_ids is not None:
        return address.sample_ids
    first = address.sample_offset
    return torch.arange(first, first + batch, dtype=torch.int64, device=device)


def normals(address: Address, shape: Sequence[int], device: torch.device) -> Tensor:
    """The normals of an address in fp32, as a tensor of a shape ``(B, ...)``; ``()`` is a batch of one."""
    return _values(randn, address, shape, device)


def uniforms(address: Address, shape: Sequence[int], device: torch.device) -> Tensor:
    """The uniforms of an address, likewise."""
    return _values(rand, address, shape, device)


def _values(make: object, address: Address, shape: Sequence[int], device: torch.device) -> Tensor:
    assert callable(make)
    ids = sample_numbers(address, shape[0] if shape else 1, device)
    elements = math.prod(shape[1:])
    values: Tensor = make(elements, ids, seed=address.seed, draw=address.draw, purpose=address.purpose)
    return values.view(tuple(shape))


def noise(update: Update) -> Tensor | None:
    """z in the computing dtype, or None where the update has no noise."""
    (_, state), *_ = update.terms
    address, draws = update.address, update.draws
    dtype = _computing(state)
    if update.b is None:
        return None
    if update.noise is not None:
        return update.noise.to(dtype)
    if isinstance(draws, DrawTable):
        pairs = [(weight, number) for weight, number in zip(draws.weights, draws.numbers, strict=True)]
    else:
        pairs = [
            (torch.tensor(each.weight, dtype=dtype, device=state.device), address.draw + each.offset) for each in draws
        ]
    z = None
    for weight, number in pairs:
        one = weight * normals(address._replace(draw=number), state.shape, state.device).to(dtype)
        z = one if z is None else z + one
    return z


def combine(
    terms: Sequence[tuple[Coefficient, Tensor]],
    b: Coefficient | None,
    z: Tensor | None,
    mask: Tensor | None = None,
    known: Tensor | None = None,
) -> Tensor:
    """a_0 s_0 + a_1 s_1 + ... + b z, left to right, in fp32 (fp64 if s_0 is), rounded once to the dtype of s_0.

    Args:
        terms: pairs of a coefficient, which is a float or broadcasts against the slots, and a slot, any shape.
        b: coefficient of the noise; None leaves it out.
        z: the noise, same shape; not used if ``b`` is None.
        mask: bool, broadcasts against the slots; where it is True the result is ``known``.
        known: shape and dtype of s_0.
    """
    (first, state), *others = terms
    dtype = _computing(state)

    def product(factor: Coefficient, value: Tensor) -> Tensor:
        return torch.as_tensor(factor, dtype=dtype, device=state.device) * value.to(dtype)

    moved = product(first, state)
    for factor, slot in others:
        moved = moved + product(factor, slot)
    if b is not None:
        assert z is not None
        moved = moved + product(b, z)
    result = moved.to(state.dtype)
    return result if mask is None or known is None else torch.where(mask, known, result)


def step(update: Update) -> Tensor:
    """The result of an update ``(B, ...)``; ``fault`` is written if there is one.

    A sample is frozen if its fault is below the step's number: its result is the state. A fault is lowered to that
    number where a result holds a NaN or an infinity.
    """
    result = combine(update.terms, update.b, noise(update), update.mask, update.known)
    fault = update.fault
    if fault is None:
        return result
    (_, state), *_ = update.terms
    number = torch.as_tensor(update.number, dtype=torch.int64, device=state.device)
    if update.freeze:
        earlier = (fault < number).reshape(-1, *(1,) * (state.ndim - 1))
        result = torch.where(earlier, state, result)
    finite = result.isfinite().flatten(1).all(1) if state.ndim > 1 else result.isfinite()
    fault.copy_(torch.where(finite, fault, fault.minimum(number)))
    return result


def _computing(state: Tensor) -> torch.dtype:
    return torch.float64 if state.dtype == torch.float64 else torch.float32
