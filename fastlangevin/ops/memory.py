"""When an operation may read its tensors by their addresses: nothing sees its call, and their memory is their value."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd import forward_ad

from fastlangevin.kernels.address import Address
from fastlangevin.runtime import Launchers, choose_for

__all__ = ["address_in_memory", "in_memory", "lasting", "observed", "recorded", "transforms", "unseen"]

# A call less than torch.compiler.is_compiling; what only that sees, an export, has a dispatch mode at work.
_is_compiling = torch.compiler.is_dynamo_compiling
_functorch: Any = torch._C._functorch
_level = _functorch.maybe_current_level
_modes = torch._C._len_torch_dispatch_stack
_tracing = torch._C._get_tracing_state
_keys: Any = torch._C._dispatch_keys
_PYTHON: Any = torch._C.DispatchKey.Python


def recorded() -> bool:
    """Whether calls are recorded or intercepted where they are dispatched: by a compiler, a tracer or a dispatch mode.

    What is not ``torch.ops.fastlangevin.*`` then, nor plain PyTorch, is missing from the record.
    """
    return _is_compiling() or _modes() > 0 or _tracing() is not None


def transforms() -> bool:
    """Whether vmap, jvp and the like are at work, which see into plain PyTorch alone."""
    # A compiler has its own way through them, and does not look into these two.
    return not _is_compiling() and (_level() is not None or forward_ad._current_level >= 0)


def observed() -> bool:
    """:func:`recorded` or :func:`transforms`, in one call: it is asked before every small update."""
    return (
        _is_compiling()
        or _modes() > 0
        or _level() is not None
        or forward_ad._current_level >= 0
        or _tracing() is not None
    )


def unseen(impl: str, device_type: str) -> Launchers | None:
    """The launchers that a call may go to directly; None if something sees it, or is to see into it."""
    if observed():
        return None
    return choose_for(impl, device_type)[1]


def lasting() -> bool:
    """Whether a tensor made now may be kept for later calls: those of a mode or a tracer may have no numbers."""
    # A compiler has its own way with what is kept.
    return _is_compiling() or not observed()


def in_memory(name: str, value: Tensor) -> Tensor:
    """A tensor whose memory holds its value: itself, or a copy where PyTorch changes values as it reads them.

    Raises:
        TypeError: it is of a class that holds its values elsewhere, and no mode is at work that could say where.
    """
    if _is_compiling():
        return value
    if type(value) is not Tensor and type(value) is not nn.Parameter and _keys(value).has(_PYTHON):
        if recorded():
            return value
        raise TypeError(
            f"{name} is a {type(value).__name__}, which keeps its values apart from its own memory; pass the plain "
            "tensor that it stands for, and fake tensors inside of their FakeTensorMode"
        )
    if value._is_zerotensor():
        return value.clone()
    return value.resolve_neg() if value.is_neg() else value


def address_in_memory(address: Address) -> Address:
    """An address whose tensors have their values in memory, as :func:`in_memory` says."""
    seed, draw, ids = address.seed, address.draw, address.sample_ids
    plain = ids is None or (not _is_compiling() and type(ids) is Tensor and not (ids.is_neg() or ids._is_zerotensor()))
    if plain and type(seed) is int and type(draw) is int:
        return address
    return address._replace(
        seed=in_memory("seed", seed) if isinstance(seed, Tensor) else seed,
        draw=in_memory("draw", draw) if isinstance(draw, Tensor) else draw,
        sample_ids=None if ids is None else in_memory("sample_ids", ids),
    )
