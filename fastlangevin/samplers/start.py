"""The start of a chain: its initial state and its address, or the state that it resumes from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from fastlangevin.calling import counted
from fastlangevin.noise import Address, Purpose, Seed, integer, resolve, resolve_sample_ids
from fastlangevin.ops.arguments import FLOAT_NAMES, FLOATS, elements_per_sample, floating, sizes
from fastlangevin.ops.random import random_at
from fastlangevin.runtime import choose
from fastlangevin.samplers.chain import ChainState
from fastlangevin.samplers.options import ChainOptions
from fastlangevin.schemes import Scheme

__all__ = ["begin", "initial_address"]

UNUSUAL = ("temperature", "order", "clamp", "clamp_denoised", "drift", "inpainting", "matmul")


def begin(scheme: Scheme, options: ChainOptions) -> ChainState:
    """The state that a chain begins with."""
    init, shape, resume, impl = options["init"], options["shape"], options["resume"], options["impl"]
    dtype = options["dtype"]
    if isinstance(init, Tensor):
        floating("init", init)
        if not init.ndim:
            raise ValueError("init must have a batch dimension, (B, ...), got a tensor without dimensions")
        if shape is not None and sizes(shape) != tuple(init.shape):
            raise ValueError(f"shape {tuple(shape)} does not match init of shape {tuple(init.shape)}; leave shape= out")
        size, where = tuple(init.shape), init.device
    else:
        if init not in ("uniform", "normal"):
            raise ValueError(f"init must be 'uniform', 'normal' or a tensor of initial states, got {init!r}")
        if dtype not in FLOATS:
            raise TypeError(f"dtype must be {FLOAT_NAMES}, got {dtype}")
        size = () if shape is None else sizes(shape)
        if not size and resume is None:
            raise ValueError("give shape=, such as shape=(64, 3, 32, 32), or init= as a tensor of initial states")
        where = torch.empty(0, dtype=torch.float32, device=options["device"]).device
    choose(impl, resume.x.device if isinstance(resume, ChainState) else where)
    if resume is not None:
        return _resumed(resume, scheme, size, options)
    elements_per_sample(size)
    with counted():
        first = init if isinstance(init, Tensor) else torch.empty(size, dtype=dtype, device=where)
    address = initial_address(first, options)
    with counted():
        if first is init:
            x = first.detach().clone()
        else:
            x = random_at(first, address, uniform=init == "uniform", impl=impl)
            if init == "normal":
                x.mul_(scheme.spread)
    return ChainState(x, 0, address.seed, address.sample_ids, address.sample_offset, None, scheme.record)


def initial_address(first: Tensor, options: ChainOptions) -> Address:
    """The address of the initial states of a batch, whose seed and samples are those of the whole chain.

    Args:
        first: of the batch and the device of these states.
        options: of the chain.
    """
    return resolve(
        first,
        Purpose.INITIAL_STATE,
        seed=options["seed"],
        generator=options["generator"],
        sample_ids=options["sample_ids"],
        sample_offset=options["sample_offset"],
    )


def _check_resume(resume: ChainState, record: dict[str, Any], total: int) -> None:
    if not isinstance(resume, ChainState):
        raise TypeError(f"resume must be a ChainState, got {type(resume).__name__}")
    # A record may have more, which its owner checks; these stand in it only where they are not as usual.
    names = dict.fromkeys([*record, *(name for name in UNUSUAL if name in resume.record)])
    different = [
        f"{name} was {resume.record.get(name)!r} and is now {record.get(name)!r}"
        for name in names
        if resume.record.get(name) != record.get(name)
    ]
    if different:
        raise ValueError("resume= is a state of another chain: " + "; ".join(different))
    integer("resume.step", resume.step, 0, total)


def _resumed(resume: ChainState, scheme: Scheme, size: tuple[int, ...], options: ChainOptions) -> ChainState:
    """A copy of the state to go on from; what the caller says of it again must agree."""
    _check_resume(resume, scheme.record, scheme.total)
    if resume.step and len(scheme.carries) > 1 and not resume.carried:
        raise ValueError(f"resume= must hold the slots that {scheme.name} carries, {', '.join(scheme.carries[1:])}")
    strange = [name for name in resume.carried if name not in scheme.carries[1:]]
    if strange:
        raise ValueError(f"resume= holds the slot {strange[0]!r}, which {scheme.name} does not carry")
    if resume.row:
        raise ValueError(
            f"resume= is inside of step {resume.step}, at its row {resume.row}; advance it to the step's end"
        )
    if size and size != tuple(resume.x.shape):
        raise ValueError(f"resume= is a state of shape {tuple(resume.x.shape)}, not {size}; leave shape= and init= out")
    seed, ids, offset = options["seed"], options["sample_ids"], options["sample_offset"]
    if options["generator"] is not None or (seed is not None and not _same(seed, resume.seed)):
        raise ValueError("resume= goes on with its own seed; leave seed= and generator= out")
    if ids is not None or offset:
        ids, offset = resolve_sample_ids(ids, offset, resume.x.shape[0], resume.x.device)
        if offset != resume.sample_offset or not _same(ids, resume.sample_ids):
            raise ValueError("resume= goes on with its own samples; leave sample_ids= and sample_offset= out")
    with counted():
        carried = {name: slot.detach().clone() for name, slot in resume.carried.items()}
        return replace(resume, x=resume.x.detach().clone(), carried=carried)


def _same(one: Seed | Sequence[int] | None, other: Seed | Sequence[int] | None) -> bool:
    if isinstance(one, Tensor) or isinstance(other, Tensor):
        return isinstance(one, Tensor) and isinstance(other, Tensor) and torch.equal(one, other)
    return one == other
