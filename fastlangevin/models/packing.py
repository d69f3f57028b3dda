"""Convolutions whose weights wait in the blocks that oneDNN computes with.

PyTorch hands oneDNN the weights as they are stored, and at every call they are brought into its blocks anew, an eighth
of a forward pass of NCSN at batch 1. The operations that keep them there are those that PyTorch's own compiler emits;
they are not public, so what they compute is compared with the convolution before they are used.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

__all__ = ["PackedConv2d", "can_pack"]

DTYPES = (torch.float32, torch.bfloat16)


def _pack(weight: Tensor, conv: nn.Conv2d, shape: torch.Size) -> Tensor:
    operation: Any = torch.ops.mkldnn._reorder_convolution_weight
    packed: Tensor = operation(
        weight, list(conv.padding), list(conv.stride), list(conv.dilation), conv.groups, list(shape)
    )
    return packed


def _convolve(x: Tensor, packed: Tensor, conv: nn.Conv2d) -> Tensor:
    operation: Any = torch.ops.mkldnn._convolution_pointwise
    sizes = list(conv.padding), list(conv.stride), list(conv.dilation), conv.groups
    out: Tensor = operation(x, packed, conv.bias, *sizes, "none", [], "")
    return out


class PackedConv2d(nn.Conv2d):
    """A convolution that keeps its weights in blocks, for the shape that it saw last; without gradients, on CPUs.

    The blocks are made anew where the weights' memory or version is another, neither of which a write by ``.data``
    changes: after one, :meth:`repack`.
    """

    @classmethod
    def of(cls, conv: nn.Conv2d) -> PackedConv2d:
        """The same convolution, with the same parameters."""
        packed = cls.__new__(cls)
        nn.Module.__init__(packed)
        packed.__dict__.update(conv.__dict__)
        packed.packed = packed.packed_from = None
        return packed

    packed: Tensor | None
    packed_from: tuple[Any, ...] | None

    def repack(self) -> None:
        """Has the blocks made anew by the next call."""
        self.packed = self.packed_from = None

    def forward(self, x: Tensor) -> Tensor:
        weight = self.weight
        if x.device.type != "cpu" or torch.is_grad_enabled() or torch.compiler.is_compiling():
            return super().forward(x)
        if x.ndim != 4 or weight.dtype not in DTYPES:
            return super().forward(x)
        x = x.to(weight.dtype)
        version = 0 if weight.is_inference() else weight._version
        packed_from = (x.shape, weight.dtype, weight.data_ptr(), version)
        if self.packed is None or packed_from != self.packed_from:
            self.packed, self.packed_from = _pack(weight, self, x.shape), packed_from
        return _convolve(x, self.packed, self)

    def __getstate__(self) -> dict[str, Any]:
        # The blocks cannot be copied, and are made anew.
        return {**self.__dict__, "packed": None, "packed_from": None}


def can_pack(conv: nn.Module) -> bool:
    """Whether a convolution can be packed here, and then computes what it did."""
    if (
        type(conv) is not nn.Conv2d
        or conv.weight.device.type != "cpu"
        or conv.weight.dtype not in DTYPES
        or conv.padding_mode != "zeros"
        or isinstance(conv.padding, str)
        or not torch.backends.mkldnn.is_available()
    ):
        return False
    reach = [dilation * (size - 1) + 1 for dilation, size in zip(conv.dilation, conv.kernel_size, strict=True)]
    with torch.no_grad():
        x = torch.linspace(-1, 1, conv.in_channels * reach[0] * reach[1], dtype=torch.float32, device="cpu")
        x = x.view(1, -1, *reach).to(conv.weight.dtype)
        try:
            got = _convolve(x, _pack(conv.weight, conv, x.shape), conv)
        except (RuntimeError, AttributeError, TypeError, NotImplementedError):
            return False
        want = F.conv2d(x, conv.weight, conv.bias, conv.stride, conv.padding, conv.dilation, conv.groups)
        # Two orders of a sum of as many roundings as it has terms.
        terms = conv.weight[0].numel()
        scale = F.conv2d(x.abs(), conv.weight.abs(), None, conv.stride, conv.padding, conv.dilation, conv.groups)
        bound = (terms * 2.0**-24 + torch.finfo(got.dtype).eps) * scale.float().max()
        return got.shape == want.shape and bool((got.float() - want.float()).abs().max() <= bound)
