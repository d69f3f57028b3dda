"""SHA-256 of samples and of networks."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable

import torch
from torch import Tensor, nn

__all__ = ["digest_of", "network_digest"]


def digest_of(samples: Tensor | Iterable[Tensor]) -> str:
    """SHA-256 of the bytes of samples in the order of their ids, the same however they are divided into parts.

    Args:
        samples: ``(N, ...)``, or its parts in order.

    Returns:
        64 hexadecimal digits.
    """
    digest = hashlib.sha256()
    for part in (samples,) if isinstance(samples, Tensor) else samples:
        digest.update(_memory(part))
    return digest.hexdigest()


def network_digest(net: nn.Module) -> str:
    """SHA-256 of what a network computes with: its class and configuration, its parameters and buffers by name.

    Not of its code: another version of the class has the same digest.

    Args:
        net: any module.

    Returns:
        64 hexadecimal digits.
    """
    digest = hashlib.sha256(f"{type(net).__name__} {getattr(net, 'config', None)!r} ".encode())
    for name, tensor in (*net.named_parameters(), *net.named_buffers()):
        digest.update(f"{name} {tensor.dtype} {list(tensor.shape)} ".encode())
        digest.update(_memory(tensor))
    return digest.hexdigest()


def _memory(tensor: Tensor) -> memoryview:
    return tensor.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy().data
