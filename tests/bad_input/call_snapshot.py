"""Everything that a call could change, taken before and after it."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import torch
from bad_call_row import META
from torch import Tensor
from well_formed_calls import Arguments

import fastlangevin as fl


def tensors_in(value: Any) -> list[Tensor]:
    if isinstance(value, Tensor):
        return [value]
    if isinstance(value, torch.nn.Module):
        return list(value.state_dict().values())
    if isinstance(value, fl.ChainState):
        return tensors_in([value.x, value.seed, value.trajectory])
    if isinstance(value, dict):
        value = list(value.values())
    return [tensor for each in value for tensor in tensors_in(each)] if isinstance(value, list | tuple) else []


def _bits(tensor: Tensor) -> tuple[object, ...]:
    """Everything of a tensor that a call could change, the whole memory behind a view included."""
    described = (tensor.shape, tensor.dtype, tensor.requires_grad, tensor.grad is None if tensor.is_leaf else None)
    if tensor.is_sparse:
        return (*described, *(bytes(part.numpy()) for part in (tensor._indices(), tensor._values())))
    memory = tensor.untyped_storage()
    raw = b"" if tensor.device == META else bytes(torch.tensor([], dtype=torch.uint8).set_(memory).numpy())
    return (*described, tensor.stride(), tensor._version, raw)


def files_in(folder: Path) -> dict[str, bytes | None]:
    return {str(path.relative_to(folder)): path.read_bytes() if path.is_file() else None for path in folder.rglob("*")}


def snapshot(arguments: Arguments, folder: Path) -> tuple[object, ...]:
    tensors = tensors_in(arguments)
    generator = arguments.get("generator")
    generators = generator if isinstance(generator, list | tuple) else [generator]
    states = [bytes(each.get_state().numpy()) for each in generators if isinstance(each, torch.Generator)]
    return (
        [_bits(tensor) for tensor in tensors],
        files_in(folder),
        bytes(torch.get_rng_state().numpy()),
        states,
        (torch.is_grad_enabled(), torch.get_default_dtype(), torch.get_num_threads(), sorted(os.environ)),
    )
