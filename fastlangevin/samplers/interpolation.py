"""Interpolation between samples: annealed Langevin dynamics with shared noise (Song and Ermon 2020)."""

from __future__ import annotations

import math
from typing import Any, Literal, Unpack, overload

import torch
from torch import Tensor

from fastlangevin import schemes
from fastlangevin.ladders import Sigmas, evenly
from fastlangevin.noise import Address, Purpose, integer
from fastlangevin.ops.arguments import floating, sizes
from fastlangevin.ops.random import random_at
from fastlangevin.rules import Corrector
from fastlangevin.samplers.calls import Score, check_score
from fastlangevin.samplers.chain import SamplingResult
from fastlangevin.samplers.options import DEFAULTS, ChainOptions, complete, takes
from fastlangevin.samplers.sample import run
from fastlangevin.samplers.start import initial_address
from fastlangevin.samplers.stepping import Noise
from fastlangevin.scores import check_ladder

__all__ = ["RowNoise", "interpolation"]


@overload
def interpolation(score: Score, sigmas: Sigmas, *, full_output: Literal[False] = False, **options: Any) -> Tensor: ...
@overload
def interpolation(score: Score, sigmas: Sigmas, *, full_output: Literal[True], **options: Any) -> SamplingResult: ...
@takes(ChainOptions, DEFAULTS)  # type: ignore[misc]  # the overloads name only what changes the result
def interpolation(
    score: Score,
    sigmas: Sigmas,
    *,
    points: int,
    epsilon: float | None = None,
    step_lr: float | None = None,
    steps_per_level: int = 100,
    corrector: Corrector = "langevin",
    temperature: float = 1.0,
    denoise: bool = False,
    **options: Unpack[ChainOptions],
) -> Tensor | SamplingResult:
    """Rows of samples that change gradually from one to another.

    All ``points`` samples of a row begin in one state, and sample k of it has the noise cos(phi_k) p + sin(phi_k) q,
    phi_k from 0 to pi/2, p and q being the noise of two sample ids. So the first sample of row r is that of the id 2r,
    and the last follows the noise of 2r + 1 from the same beginning. The noise of an ``inpainting=`` is each sample's
    own, by its number ``points * r + k``.

    Here ``shape``, or ``init`` as a tensor, is ``(rows, ...)``, and ``sample_offset`` is the number of the first row.
    Neither ``sample_ids`` nor ``resume`` nor a seed for each sample can be given.

    Args:
        score: as for :func:`fastlangevin.annealed_langevin`; it sees ``(rows * points, ...)``.
        sigmas, epsilon, step_lr, steps_per_level, corrector, temperature, denoise: as there.
        points: samples in each row, at least 2.
        options: those of :class:`fastlangevin.samplers.ChainOptions`.

    Returns:
        ``(rows * points, ...)``, the points of a row neighbours; or a :class:`SamplingResult` of it.

    Raises:
        TypeError, ValueError: an argument is of the wrong kind or out of range.
        NonFiniteError: a state is not finite, with ``non_finite="raise"``.
    """
    count = integer("points", points, 2, 2**20)
    chosen = complete(options, ChainOptions)
    for name, given in (("sample_ids", chosen["sample_ids"]), ("resume", chosen["resume"])):
        if given is not None:
            raise ValueError(f"interpolation takes no {name}=: its rows are numbered from sample_offset= on")
    scheme = schemes.annealed_langevin(
        sigmas,
        epsilon=epsilon,
        step_lr=step_lr,
        steps_per_level=steps_per_level,
        corrector=corrector,
        temperature=temperature,
        denoise=denoise,
    )
    check_score(score, scheme)
    check_ladder(score, scheme.ladder, chosen["strict_ladder"])
    rows, *rest, device = _rows(chosen)
    begun, impl = chosen["init"], chosen["impl"]
    first = begun if isinstance(begun, Tensor) else torch.empty((rows, *rest), dtype=chosen["dtype"], device=device)
    address = initial_address(first, chosen)
    if isinstance(address.seed, Tensor) and address.seed.ndim:
        raise ValueError("interpolation takes one seed: two samples of a row share what they draw")
    if first is not begun:
        first = random_at(first, _of_rows(address, rows, device), uniform=begun == "uniform", impl=impl)
        if begun == "normal":
            first.mul_(scheme.spread)
    init = first.detach().repeat_interleave(count, 0)

    scheme = scheme._replace(
        name="interpolation", record={**scheme.record, "sampler": "interpolation", "points": count}
    )
    # Samples, whose numbers the noise of an inpainting has, go on from those of the rows before. The ladder is checked.
    started: ChainOptions = {
        **chosen,
        "init": init,
        "shape": None,
        "seed": address.seed,
        "generator": None,
        "sample_offset": count * address.sample_offset,
        "strict_ladder": False,
    }
    return run(score, scheme, started, Noise(RowNoise(init, count, address, impl), shared=True))


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
