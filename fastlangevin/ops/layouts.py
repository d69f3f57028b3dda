"""The memory formats that the operations of networks keep: contiguous and channels_last."""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["layout_of"]


def layout_of(x: Tensor) -> torch.memory_format:
    """Channels_last where a tensor is that alone, contiguous for all others."""
    if x.ndim == 4 and not x.is_contiguous() and x.is_contiguous(memory_format=torch.channels_last):
        return torch.channels_last
    return torch.contiguous_format
