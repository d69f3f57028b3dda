"""Chains on disk: a :class:`ChainState` as one safetensors file, for going on after a stop."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save as to_bytes
from torch import Tensor

from fastlangevin.files import write_whole
from fastlangevin.samplers import ChainState

__all__ = ["load", "save"]


def _digest(tensors: dict[str, Tensor], description: str) -> str:
    digest = hashlib.sha256(description.encode())
    for name in sorted(tensors):
        digest.update(name.encode())
        digest.update(tensors[name].contiguous().flatten().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def save(path: str | os.PathLike[str], state: ChainState) -> None:
    """Write a chain's state, whole or not at all: a temporary file, flushed to disk, then renamed.

    Raises:
        OSError: the folder cannot be written; an older file is left as it was.
    """
    parts = {"x": state.x, "seed": state.seed, "sample_ids": state.sample_ids, "trajectory": state.trajectory}
    tensors = {name: part.cpu().contiguous() for name, part in parts.items() if isinstance(part, Tensor)}
    description = json.dumps(
        {
            "step": state.step,
            "seed": None if isinstance(state.seed, Tensor) else state.seed,
            "sample_offset": state.sample_offset,
            "record": state.record,
        },
        sort_keys=True,
    )
    metadata = {"chain": description, "sha256": _digest(tensors, description)}
    write_whole(path, to_bytes(tensors, metadata))


def load(path: str | os.PathLike[str], device: torch.device | str = "cpu") -> ChainState:
    """Read a chain's state.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is damaged, or not the state of a chain.
    """
    source = Path(path)
    if source.is_dir():
        raise ValueError(f"{source} is a folder; name the file that a stopped run left")
    if not source.is_file():
        raise FileNotFoundError(
            f"there is no stopped run to go on with: {source} does not exist; start without --resume"
        )
    try:
        with safe_open(str(source), framework="pt") as file:
            metadata = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  (not a mapping)
        text, digest = metadata["chain"], metadata["sha256"]
        description = json.loads(text)
        on_device = {name: tensor.to(device) for name, tensor in tensors.items()}
        state = ChainState(
            x=on_device["x"],
            step=description["step"],
            seed=on_device["seed"] if description["seed"] is None else description["seed"],
            sample_ids=on_device.get("sample_ids"),
            sample_offset=description["sample_offset"],
            trajectory=on_device.get("trajectory"),
            record=description["record"],
        )
    except (SafetensorError, KeyError, TypeError, ValueError) as error:
        raise ValueError(
            f"{source} is not the state of a chain, or is damaged: {error}; delete it and start again"
        ) from error
    if _digest(tensors, text) != digest:
        raise ValueError(f"{source} is damaged: its SHA-256 does not match; delete it and start again")
    return state
