"""The option that names a device."""

from __future__ import annotations

import os

import torch

from fastlangevin.processes import local_rank


def usable_device(name: str) -> torch.device:
    """The device of a name; plain "cuda" is each torchrun process's own."""
    if name == "cuda" and "LOCAL_RANK" in os.environ:
        name = f"cuda:{local_rank()}"
    try:
        device = torch.device(name)
        torch.empty(0, dtype=torch.float32, device=device)
    except (RuntimeError, AssertionError) as error:  # PyTorch without CUDA asserts
        raise ValueError(f"--device {name} cannot be used: {str(error).splitlines()[0]}; try --device cpu") from error
    return device
