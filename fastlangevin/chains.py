"""Chains on disk: a :class:`ChainState` as one safetensors file, for going on after a stop."""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
from dataclasses import replace
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save as to_bytes
from torch import Tensor

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
    tensors = {"x": state.x.cpu().contiguous()}
    if isinstance(state.seed, Tensor):
        tensors["seed"] = state.seed.cpu()
    if state.trajectory is not None:
        tensors["trajectory"] = state.trajectory.cpu().contiguous()
    seed = None if isinstance(state.seed, Tensor) else state.seed
    description = json.dumps({"step": state.step, "seed": seed, "record": state.record}, sort_keys=True)
    metadata = {"chain": description, "sha256": _digest(tensors, description)}
    target = Path(path)
    if target.exists() and not target.is_file():
        raise OSError(f"cannot write {target}: it is a folder or a device; name a file")
    handle, temporary = tempfile.mkstemp(dir=target.parent, prefix=f".{target.name}.")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(to_bytes(tensors, metadata))
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, target)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


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
        seed = tensors["seed"] if description["seed"] is None else description["seed"]
        state = ChainState(tensors["x"], description["step"], seed, tensors.get("trajectory"), description["record"])
    except (SafetensorError, KeyError, TypeError, ValueError) as error:
        raise ValueError(
            f"{source} is not the state of a chain, or is damaged: {error}; delete it and start again"
        ) from error
    if _digest(tensors, text) != digest:
        raise ValueError(f"{source} is damaged: its SHA-256 does not match; delete it and start again")
    moved = None if state.trajectory is None else state.trajectory.to(device)
    return replace(state, x=state.x.to(device), trajectory=moved)
