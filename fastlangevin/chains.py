"""Chains on disk: a :class:`ChainState` as one file, for going on after a stop."""

from __future__ import annotations

import os
from pathlib import Path

import torch
from torch import Tensor

from fastlangevin import container
from fastlangevin.samplers import ChainState, Telemetry

__all__ = ["load", "save"]


def save(path: str | os.PathLike[str], state: ChainState) -> None:
    """Write a chain's state, whole or not at all: see :func:`fastlangevin.container.write`.

    Raises:
        TypeError: the state or its record cannot be written.
        OSError: the folder cannot be written; an older file is left as it was.
    """
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
    chain = {
        "step": state.step,
        "seed": None if isinstance(state.seed, Tensor) else state.seed,
        "sample_offset": state.sample_offset,
        "record": state.record,
        "telemetry": None if kept is None else {"steps": list(kept.steps), "levels": list(kept.levels)},
    }
    container.write(path, tensors, {"chain": chain})


def load(path: str | os.PathLike[str], device: torch.device | str = "cpu") -> ChainState:
    """Read a chain's state.

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
        chain = description["chain"]
        kept = chain.get("telemetry")  # states of earlier versions have none
        on_device = {name: tensor.to(device) for name, tensor in tensors.items()}
        return ChainState(
            x=on_device["x"],
            step=chain["step"],
            seed=on_device["seed"] if chain["seed"] is None else chain["seed"],
            sample_ids=on_device.get("sample_ids"),
            sample_offset=chain["sample_offset"],
            trajectory=on_device.get("trajectory"),
            record=chain["record"],
            fault=on_device.get("fault"),
            telemetry=None
            if kept is None
            else Telemetry(
                tuple(kept["steps"]), tuple(kept["levels"]), on_device["score_norm"], on_device["signal_to_noise"]
            ),
        )
    except (KeyError, TypeError, container.DamagedError) as error:
        why = error.why if isinstance(error, container.DamagedError) else f"its content is of another kind, {error!r}"
        raise ValueError(
            f"{source} is not the state of a chain, or is damaged: {why}; delete it and start again"
        ) from error
