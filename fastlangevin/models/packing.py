"""Convolutions whose weights wait in the blocks that oneDNN computes with.

PyTorch hands oneDNN the weights as they are stored, and at every call they are brought into its blocks anew, an eighth
of a forward pass of NCSN at batch 1. The operations that keep them there are those that PyTorch's own compiler emits;
they are not public, so what they compute is compared with the convolution before they are used.
"""

from __future__ import annotations

import sys
import weakref
from functools import cache
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fastlangevin.memory import observed

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

    Writes through ``parameter.data``, NumPy, a fused optimiser or in inference mode leave no trace on a tensor, and
    freed memory comes back at its old address. So neither a version nor an address says whether blocks are those of the
    weights. Instead the module notes when its weights are looked up, and drops its blocks. It makes new ones once no
    tensor, array or storage outside of it shares the weights' memory; until then it computes as ``nn.Conv2d`` does.
    """

    @classmethod
    def of(cls, conv: nn.Conv2d) -> PackedConv2d:
        """The same convolution, which :func:`can_pack`, with the same parameters."""
        packed = cls.__new__(cls)
        packed.__dict__.update(conv.__dict__)
        packed.__dict__.update(_parameters=dict(conv._parameters), packable={conv.weight.dtype: True})
        packed.repack()
        return packed

    packed: Tensor | None
    packed_for: torch.Size
    lent: bool
    packable: dict[torch.dtype, bool]

    @property  # type: ignore[override]
    def _parameters(self) -> dict[str, nn.Parameter | None]:
        # Whatever lists, loads, converts or replaces parameters comes by here.
        self.__dict__["lent"] = True
        parameters: dict[str, nn.Parameter | None] = self.__dict__["_parameters"]
        return parameters

    @_parameters.setter
    def _parameters(self, parameters: dict[str, nn.Parameter | None]) -> None:
        self.__dict__["lent"] = True
        self.__dict__["_parameters"] = parameters

    def __getattr__(self, name: str) -> Any:
        if name == "weight":
            self.__dict__["lent"] = True
        return super().__getattr__(name)

    def repack(self) -> None:
        """Drops the blocks, so that the next call makes them anew."""
        self.__dict__.update(packed=None, packed_for=torch.Size(), lent=True)

    def forward(self, x: Tensor) -> Tensor:
        if type(x) is not Tensor or x.device.type != "cpu" or torch.is_grad_enabled() or observed():
            return super().forward(x)
        parameters = self.__dict__["_parameters"]
        weight = parameters.get("weight")
        if type(weight) is not nn.Parameter or weight.dtype not in DTYPES or weight.device.type != "cpu":
            return super().forward(x)
        if torch.is_autocast_enabled("cpu") and torch.get_autocast_dtype("cpu") != weight.dtype:
            return super().forward(x)
        x = x.to(weight.dtype)
        # A local name would count as one that shares it.
        del weight
        if x.ndim != 4 or not x.numel() or not self._settle(parameters):
            return super().forward(x)
        if self.packed is None or self.packed_for != x.shape:
            self.packed, self.packed_for = _pack(parameters["weight"], self, x.shape), x.shape
        return _convolve(x, self.packed, self)

    def _settle(self, parameters: dict[str, nn.Parameter]) -> bool:
        """Returns whether there may be blocks: nobody else has the weights, and packed ones compute the same."""
        if not self.lent:
            return True
        self.packed = None
        if _shares(parameters) != _alone():
            return False
        dtype = parameters["weight"].dtype
        if dtype not in self.packable:
            self.packable[dtype] = _computes_the_same(self)
        self.lent = not self.packable[dtype]
        return not self.lent

    def __getstate__(self) -> dict[str, Any]:
        # The blocks cannot be copied, and are made anew.
        return {**self.__dict__, "_parameters": dict(self._parameters), "packed": None, "lent": True}


def _shares(parameters: dict[str, nn.Parameter]) -> tuple[int | bool, ...]:
    """Counts references to the weight's object, tensor and memory, through which others can write to it."""
    return (
        sys.getrefcount(parameters["weight"]),
        weakref.getweakrefcount(parameters["weight"]),
        parameters["weight"]._use_count(),  # type: ignore[attr-defined]
        sys.getrefcount(parameters["weight"].untyped_storage()),
        torch._C._storage_Use_Count(parameters["weight"].untyped_storage()._cdata),
        parameters["weight"].untyped_storage().resizable(),
        parameters["weight"].is_shared(),
    )


@cache
def _alone() -> tuple[int | bool, ...]:
    """The result of :func:`_shares` for a weight that nobody else has."""
    return _shares({"weight": nn.Parameter(torch.empty(1, dtype=torch.float32, device="cpu"), requires_grad=False)})


def can_pack(conv: nn.Module) -> bool:
    """Returns whether a convolution can be packed here, and then computes what it did."""
    if (
        type(conv) is not nn.Conv2d
        or conv.weight.device.type != "cpu"
        or conv.weight.dtype not in DTYPES
        or conv.padding_mode != "zeros"
        or isinstance(conv.padding, str)
        or not torch.backends.mkldnn.is_available()
    ):
        return False
    return _computes_the_same(conv)


def _computes_the_same(conv: nn.Conv2d) -> bool:
    """Returns whether the packed convolution exists for this dtype and processor, and is right."""
    reach = [dilation * (size - 1) + 1 for dilation, size in zip(conv.dilation, conv.kernel_size, strict=True)]
    with torch.no_grad():
        x = torch.linspace(-1, 1, conv.in_channels * reach[0] * reach[1], dtype=torch.float32, device="cpu")
        x = x.view(1, -1, *reach).to(conv.weight.dtype)
        try:
            _alone()
            got = _convolve(x, _pack(conv.weight, conv, x.shape), conv)
        except (RuntimeError, AttributeError, TypeError, NotImplementedError):
            return False
        want = F.conv2d(x, conv.weight, conv.bias, conv.stride, conv.padding, conv.dilation, conv.groups)
        # Two orders of a sum of as many roundings as it has terms.
        terms = conv.weight[0].numel()
        scale = F.conv2d(x.abs(), conv.weight.abs(), None, conv.stride, conv.padding, conv.dilation, conv.groups)
        bound = (terms * 2.0**-24 + torch.finfo(got.dtype).eps) * scale.float().max()
        return got.shape == want.shape and bool((got.float() - want.float()).abs().max() <= bound)
