"""The option that names a device."""

from __future__ import annotations

import os

import torch

from fastlangevin.values import from_environment


def usable_device(name: str) -> torch.device:
    """The device of a name; plain "cuda" is each torchrun process's own."""
    if name == "cuda" and os.environ.get("LOCAL_RANK", "").strip():
        name = f"cuda:{from_environment('LOCAL_RANK', 0)}"
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:  # PyTorch without CUDA asserts
        raise ValueError(f"--device {name} cannot be used: {str(error).splitlines()[0]}; try --device cpu") from error
    return device
