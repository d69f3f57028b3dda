"""Chains on disk: a :class:`ChainState` as one file, for going on after a stop."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from fastlangevin.noise import MAX_DRAW, integer, resolve_sample_ids, resolve_seed
from fastlangevin.samplers import ChainState, Telemetry
from fastlangevin.storage import container

__all__ = ["load", "save"]

# Numbers of a record, such as its ladder, from which on they are a tensor of the file: its description has its limit.
LONG = 4096
# Before the names of the slots that a chain keeps beside its state.
SLOT = "slot."
MAX_NUMBERS = 2**20  # of those: as Python's they take five times their bytes


def save(path: str | os.PathLike[str], state: ChainState) -> None:
    """Write a chain's state, whole or not at all: see :func:`fastlangevin.container.write`.

    Args:
        path: file to write, replaced if it exists.
        state: of a chain that was stopped.

    Raises:
        TypeError: the state or its record cannot be written.
        ValueError: its record is too long, where ladders of 1,048,576 levels have room; or it is inside of a step.
        OSError: the folder cannot be written; an older file is left as it was.
    """
    if state.row:
        raise ValueError(
            f"state is inside of step {state.step}, before its row {state.row}, and a file holds a chain between two "
            "steps; advance it to the end of the step"
        )
    parts = {
        "x": state.x,
        "seed": state.seed,
        "sample_ids": state.sample_ids,
        "trajectory": state.trajectory,
        "fault": state.fault,
    }
    kept = state.telemetry
    if kept is not None:
        parts.update(score_norm=kept.score_norm, signal_to_noise=kept.signal_to_noise)
    tensors = {name: part for name, part in parts.items() if isinstance(part, Tensor)}
    tensors.update({f"{SLOT}{name}": slot for name, slot in state.carried.items()})
    record = dict(state.record)
    for name, value in state.record.items():
        if isinstance(value, list) and len(value) >= LONG and all(type(number) is float for number in value):
            tensors[f"record.{name}"] = torch.tensor(record.pop(name), dtype=torch.float64, device="cpu")
    _check_numbers(tensors)
    chain: dict[str, Any] = {
        "step": state.step,
        "seed": None if isinstance(state.seed, Tensor) else state.seed,
        "sample_offset": state.sample_offset,
        "record": record,
        "telemetry": None if kept is None else {"steps": list(kept.steps), "levels": list(kept.levels)},
    }
    if state.carried:
        chain["slots"] = list(state.carried)
    container.write(path, tensors, {"chain": chain})


def load(path: str | os.PathLike[str], device: torch.device | str = "cpu") -> ChainState:
    """Read a chain's state.

    Args:
        path: file that :func:`save` wrote.
        device: where the tensors of the state are put.

    Returns:
        The state, for ``resume=``.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is damaged, or not the state of a chain.
        OSError: it cannot be read.
    """
    source = Path(path)
    if source.is_dir():
        raise ValueError(f"{source} is a folder; name the file that a stopped run left")
    if not source.exists():
        raise FileNotFoundError(
            f"there is no stopped run to go on with: {source} does not exist; start without --resume"
        )
    try:
        tensors, description = container.read(source)
    except container.DamagedError as error:
        raise _refused(source, error.why) from error
    try:
        state = _state(tensors, description["chain"])
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise _refused(source, f"its content is of another kind, {error!r}") from error
    return _moved(state, device)


def _refused(source: Path, why: str) -> ValueError:
    return ValueError(f"{source} is not the state of a chain, or is damaged: {why}; delete it and start again")


def _state(tensors: dict[str, Tensor], chain: dict[str, Any]) -> ChainState:
    """The state that a file describes; what cannot be one raises."""
    x = tensors["x"]
    if not x.is_floating_point() or not x.ndim:
        raise ValueError(f"x is {x.dtype} of shape {tuple(x.shape)}")
    batch, where = len(x), x.device
    step = integer("step", chain["step"], 0, MAX_DRAW + 1)
    seed = resolve_seed(tensors["seed"] if chain["seed"] is None else chain["seed"], None, batch, where)
    ids, offset = resolve_sample_ids(tensors.get("sample_ids"), chain["sample_offset"], batch, where)
    if not isinstance(chain["record"], dict):
        raise TypeError(f"its record is {chain['record']!r}")
    record = dict(chain["record"])
    _check_numbers(tensors)
    for name, value in tensors.items():
        if name.startswith("record."):
            if value.dtype != torch.float64 or value.ndim != 1:
                raise ValueError(f"{name} is {value.dtype} of shape {tuple(value.shape)}")
            record[name.removeprefix("record.")] = value.tolist()
    trajectory, fault = tensors.get("trajectory"), tensors.get("fault")
    if trajectory is not None and (trajectory.dtype, trajectory.shape[1:]) != (x.dtype, x.shape):
        raise ValueError(f"the frames of its trajectory are {trajectory.dtype} of shape {tuple(trajectory.shape[1:])}")
    if fault is not None and (fault.dtype, fault.shape) != (torch.int64, (batch,)):
        raise ValueError(f"fault is {fault.dtype} of shape {tuple(fault.shape)}")
    telemetry = _telemetry(tensors, chain["telemetry"], batch) if chain.get("telemetry") is not None else None
    return ChainState(x, step, seed, ids, offset, trajectory, record, fault, telemetry, _slots(tensors, chain, x))


def _slots(tensors: dict[str, Tensor], chain: dict[str, Any], x: Tensor) -> dict[str, Tensor]:
    """The slots that a chain keeps beside its state, in their order."""
    names = chain.get("slots", [])
    found = {name.removeprefix(SLOT): slot for name, slot in tensors.items() if name.startswith(SLOT)}
    if not isinstance(names, list) or sorted(found) != sorted(names):
        raise ValueError(f"it names the slots {names!r}, but holds {sorted(found)!r}")
    for name, slot in found.items():
        if not slot.is_floating_point() or slot.shape != x.shape:
            raise ValueError(f"the slot {name!r} is {slot.dtype} of shape {tuple(slot.shape)}")
    return {name: found[name] for name in names}


def _check_numbers(tensors: dict[str, Tensor]) -> None:
    count = sum(value.numel() for name, value in tensors.items() if name.startswith("record."))
    if count > MAX_NUMBERS:
        raise ValueError(f"the record of the chain has {count} numbers, a file has room for {MAX_NUMBERS}")


def _telemetry(tensors: dict[str, Tensor], kept: dict[str, Any], batch: int) -> Telemetry:
    steps = tuple(integer("step", step, 0, MAX_DRAW) for step in kept["steps"])
    levels = tuple(None if level is None else integer("level", level, 0, MAX_DRAW) for level in kept["levels"])
    norm, ratio = tensors["score_norm"], tensors["signal_to_noise"]
    for name, value in (("score_norm", norm), ("signal_to_noise", ratio)):
        if not value.is_floating_point() or value.shape != (len(steps), batch) or len(levels) != len(steps):
            raise ValueError(f"{name} is {value.dtype} of shape {tuple(value.shape)} for {len(steps)} updates")
    return Telemetry(steps, levels, norm, ratio)


def _moved(state: ChainState, device: torch.device | str) -> ChainState:
    def to(value: Any) -> Any:
        return value.to(device) if isinstance(value, Tensor) else value

    kept = state.telemetry
    moved = None if kept is None else replace(kept, **{name: to(value) for name, value in vars(kept).items()})
    others = {"telemetry": moved, "carried": {name: to(slot) for name, slot in state.carried.items()}}
    return replace(state, **{name: to(value) for name, value in vars(state).items()} | others)
