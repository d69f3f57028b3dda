"""Rows of samples that begin in one state and share their noise (Song and Ermon 2020)."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from fastlangevin.ladders import evenly
from fastlangevin.noise import Address, Purpose
from fastlangevin.ops.arguments import floating, sizes
from fastlangevin.ops.random import random_at
from fastlangevin.samplers.options import ChainOptions
from fastlangevin.samplers.start import initial_address
from fastlangevin.samplers.stepping import Noise
from fastlangevin.schemes import Scheme

__all__ = ["RowNoise", "in_rows"]


def in_rows(scheme: Scheme, options: ChainOptions) -> tuple[ChainOptions, Noise]:
    """The options of a chain of rows, whose initial states are of all their samples, and its noise.

    Args:
        scheme: of ``points`` samples in each row.
        options: the caller's. Of an ``init`` or a ``shape`` the first dimension is that of the rows.

    Raises:
        TypeError, ValueError: they name samples, whose noise is that of their row, or do not say where rows begin.
    """
    for name, given in (("sample_ids", options["sample_ids"]), ("resume", options["resume"])):
        if given is not None:
            raise ValueError(f"interpolation takes no {name}=: its rows are numbered from sample_offset= on")
    rows, *rest, device = _rows(options)
    begun, impl, count = options["init"], options["impl"], scheme.points
    first = begun if isinstance(begun, Tensor) else torch.empty((rows, *rest), dtype=options["dtype"], device=device)
    address = initial_address(first, options)
    if isinstance(address.seed, Tensor) and address.seed.ndim:
        raise ValueError("interpolation takes one seed: two samples of a row share what they draw")
    if first is not begun:
        first = random_at(first, _of_rows(address, rows, device), uniform=begun == "uniform", impl=impl)
        if begun == "normal":
            first.mul_(scheme.spread)
    init = first.detach().repeat_interleave(count, 0)
    # Samples, whose numbers the noise of an inpainting has, go on from those of the rows before.
    started: ChainOptions = {
        **options,
        "init": init,
        "shape": None,
        "seed": address.seed,
        "generator": None,
        "sample_offset": count * address.sample_offset,
    }
    return started, Noise(RowNoise(init, count, address, impl), shared=True)


def _rows(chosen: ChainOptions) -> tuple[Any, ...]:
    """The shape ``(rows, ...)`` of the states that rows begin in, and their device."""
    init, shape = chosen["init"], chosen["shape"]
    if isinstance(init, Tensor):
        floating("init", init)
        extents = tuple(init.shape)
        if not extents or (shape is not None and sizes(shape) != extents):
            raise ValueError(f"init must be (rows, ...), and shape= the same or left out; got init of shape {extents}")
        return *extents, init.device
    if init not in ("uniform", "normal"):
        raise ValueError(f"init must be 'uniform', 'normal' or a tensor of initial states, got {init!r}")
    if shape is None:
        raise ValueError("give shape=, (rows, ...) such as shape=(4, 3, 32, 32), or init= as a tensor of that shape")
    return *sizes(shape), torch.empty(0, dtype=torch.float32, device=chosen["device"]).device


def _of_rows(address: Address, rows: int, device: torch.device) -> Address:
    """The address of the first of the two states that a row goes between; the second's ids are one more."""
    ids = 2 * (address.sample_offset + torch.arange(rows, dtype=torch.int64, device=device))
    return address._replace(sample_ids=ids, sample_offset=0)


class RowNoise:
    """The noise of rows of samples by the number of its draw: cos(phi_k) p + sin(phi_k) q.

    Args:
        like: the samples, ``(rows * points, ...)``, whose shape, dtype and device are taken.
        points: samples in each row.
        address: one seed, and the number of the first row as the sample offset.
        impl: as for :func:`fastlangevin.randn`.
    """

    def __init__(self, like: Tensor, points: int, address: Address, impl: str = "auto") -> None:
        self.dtype = like.dtype
        self.shape = like.shape[0] // points, *like.shape[1:]
        self.device = like.device
        self.address = _of_rows(address, self.shape[0], like.device)._replace(purpose=int(Purpose.LANGEVIN))
        self.impl = impl
        angles = evenly(0.0, math.pi / 2, points)
        self.cosine, self.sine = (
            torch.tensor(values, dtype=torch.float32, device=like.device).view(1, -1, *[1] * (like.ndim - 1))
            for values in (list(map(math.cos, angles)), list(map(math.sin, angles)))
        )

    def __call__(self, draw: int) -> Tensor:
        first = self.address._replace(draw=draw)
        assert first.sample_ids is not None
        p, q = (self._normals(each) for each in (first, first._replace(sample_ids=first.sample_ids + 1)))
        return (self.cosine * p[:, None] + self.sine * q[:, None]).flatten(0, 1).to(self.dtype)

    def _normals(self, address: Address) -> Tensor:
        return random_at(torch.empty(self.shape, dtype=torch.float32, device=self.device), address, impl=self.impl)
