"""A network made ready for sampling: ``for_sampling``."""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import Tensor, nn

from fastlangevin.models.packing import PackedConv2d, can_pack

__all__ = ["SamplingNet", "for_sampling"]

HALVES = (torch.bfloat16, torch.float16)


class SamplingNet(nn.Module):
    """The result of :func:`for_sampling`, called as the network was, without gradients."""

    def __init__(self, net: nn.Module, dtype: torch.dtype | None) -> None:
        super().__init__()
        self.net = net
        self.dtype = dtype

    def forward(self, x: Tensor, *args: Any, **options: Any) -> Any:
        """As the network itself; a result of its half precision is brought back to the dtype of ``x``."""
        with torch.no_grad():
            if self.dtype is None:
                return self.net(x, *args, **options)
            with torch.autocast(x.device.type, dtype=self.dtype):
                out = self.net(x, *args, **options)
        return out.to(x.dtype) if isinstance(out, Tensor) and out.dtype == self.dtype else out

    def repack(self) -> None:
        """Has the weights of convolutions read anew by the next call.

        Only writes to the bare address of a weight need this, by ``ctypes`` or an extension that kept it: all others
        are noticed.
        """
        for module in self.modules():
            if isinstance(module, PackedConv2d):
                module.repack()

    def chain_kernel(self, x: Tensor, impl: str) -> Any:
        """The network's own, where it has one and nothing is rounded to half precision."""
        hooked = self._forward_hooks or self._forward_pre_hooks
        kernel_for = None if self.dtype is not None or hooked else getattr(self.net, "chain_kernel", None)
        return None if kernel_for is None else kernel_for(x, impl)


def for_sampling(
    net: nn.Module, *, dtype: torch.dtype | None = None, channels_last: bool = True, compile: bool = False
) -> SamplingNet:
    """A copy of a network that is faster to sample from; the network itself stays as it is.

    In evaluation mode and without gradients. On a CPU the weights of convolutions are kept a second time, in the blocks
    that oneDNN computes with, for the shape that was seen last. The result always computes with the weights that it
    has, however they are written or replaced: ``load_state_dict``, ``parameter.data``, NumPy, an optimiser,
    ``torch.func.functional_call``. While anything outside of it shares the memory of a weight, such as a
    ``state_dict()`` that is kept, that convolution goes without blocks, as those of ``net`` do. Writes to ``net`` do
    not reach its copy.

    Autocast of the caller is followed, unless ``dtype`` is given, which takes its place.

    With ``dtype=torch.bfloat16`` it computes under autocast, and the weights of its convolutions and linear layers are
    stored in that dtype, which saves converting them at every call. The state of a chain stays in its own dtype: only
    the score is rounded, to 8 bits, so that single samples differ from those of fp32 while their law is the same to
    that precision.

    Args:
        net: a network of :mod:`fastlangevin.models`, or any module whose first argument is the state.
        dtype: ``torch.bfloat16``, ``torch.float16``, or None for that of the weights.
        channels_last: lay the weights of convolutions out in channels_last, which their outputs then have, too.
        compile: pass the copy through ``torch.compile``, which compiles at the first call for each shape.

    Returns:
        A module called as ``net`` is.

    Raises:
        TypeError, ValueError: an argument is of the wrong kind.
    """
    if not isinstance(net, nn.Module):
        raise TypeError(f"net must be a torch.nn.Module, got {type(net).__name__}")
    if dtype is not None and dtype not in HALVES:
        raise ValueError(
            f"dtype must be torch.bfloat16, torch.float16 or None, got {dtype}; None keeps that of the weights"
        )
    ready = copy.deepcopy(net).eval().requires_grad_(False)
    for module in ready.modules():
        if dtype is not None and isinstance(module, (nn.modules.conv._ConvNd, nn.Linear)):
            module.to(dtype)
        if channels_last and isinstance(module, nn.Conv2d):
            module.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    if compile:
        return SamplingNet(torch.compile(ready), dtype)  # type: ignore[arg-type]
    for module in list(ready.modules()):
        for name, child in list(module.named_children()):
            if can_pack(child):
                module.register_module(name, PackedConv2d.of(child))  # type: ignore[arg-type]
    return SamplingNet(ready, dtype)
