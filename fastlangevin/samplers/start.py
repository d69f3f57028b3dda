"""Where a chain begins: its initial state, its address, or the state that it goes on from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from fastlangevin.calling import counted
from fastlangevin.noise import Generators, Purpose, Seed, integer, resolve_sample_ids, resolve_seed
from fastlangevin.ops import rand, randn
from fastlangevin.ops.arguments import FLOAT_NAMES, FLOATS, elements_per_sample, floating, sizes
from fastlangevin.runtime import choose
from fastlangevin.samplers.chain import ChainState
from fastlangevin.samplers.options import Init, Options, SampleIds
from fastlangevin.samplers.plan import Plan

__all__ = ["begin"]

UNUSUAL = ("temperature", "order", "clamp", "clamp_denoised", "drift", "inpainting", "matmul")


def begin(plan: Plan, spread: float, options: Options) -> ChainState:
    """The state that a chain begins with; ``spread`` is the standard deviation of a normal one."""
    init, shape, resume, impl = options.init, options.shape, options.resume, options.impl
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
        if options.dtype not in FLOATS:
            raise TypeError(f"dtype must be {FLOAT_NAMES}, got {options.dtype}")
        size = () if shape is None else sizes(shape)
        if not size and resume is None:
            raise ValueError("give shape=, such as shape=(64, 3, 32, 32), or init= as a tensor of initial states")
        where = torch.empty(0, dtype=torch.float32, device=options.device).device
    choose(impl, resume.x.device if isinstance(resume, ChainState) else where)
    if resume is not None:
        return _resumed(resume, plan, size, options.seed, options.generator, options.sample_ids, options.sample_offset)
    elements_per_sample(size)
    ids, offset = resolve_sample_ids(options.sample_ids, options.sample_offset, size[0], where)
    word = resolve_seed(options.seed, options.generator, size[0], where)
    with counted():
        x = _initial_state(init, size, spread, word, ids, offset, options.dtype, where, impl)
    return ChainState(x, 0, word, ids, offset, None, plan.record)


def _initial_state(
    init: Init,
    size: tuple[int, ...],
    spread: float,
    seed: Seed,
    ids: Tensor | None,
    offset: int,
    dtype: torch.dtype,
    device: torch.device,
    impl: str,
) -> Tensor:
    if isinstance(init, Tensor):
        return init.detach().clone()
    make = rand if init == "uniform" else randn
    x = make(
        size,
        seed=seed,
        purpose=Purpose.INITIAL_STATE,
        sample_ids=ids,
        sample_offset=offset,
        dtype=dtype,
        device=device,
        impl=impl,
    )
    return x if init == "uniform" else x.mul_(spread)


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


def _resumed(
    resume: ChainState,
    plan: Plan,
    size: tuple[int, ...],
    seed: Seed | None,
    generator: Generators | None,
    sample_ids: SampleIds | None,
    sample_offset: int,
) -> ChainState:
    """A copy of the state to go on from; what the caller says of it again must agree."""
    _check_resume(resume, plan.record, plan.total)
    if size and size != tuple(resume.x.shape):
        raise ValueError(f"resume= is a state of shape {tuple(resume.x.shape)}, not {size}; leave shape= out")
    if generator is not None or (seed is not None and not _same(seed, resume.seed)):
        raise ValueError("resume= goes on with its own seed; leave seed= and generator= out")
    if sample_ids is not None or sample_offset:
        ids, offset = resolve_sample_ids(sample_ids, sample_offset, resume.x.shape[0], resume.x.device)
        if offset != resume.sample_offset or not _same(ids, resume.sample_ids):
            raise ValueError("resume= goes on with its own samples; leave sample_ids= and sample_offset= out")
    with counted():
        return replace(resume, x=resume.x.detach().clone())


def _same(one: Seed | Sequence[int] | None, other: Seed | Sequence[int] | None) -> bool:
    if isinstance(one, Tensor) or isinstance(other, Tensor):
        return isinstance(one, Tensor) and isinstance(other, Tensor) and torch.equal(one, other)
    return one == other
