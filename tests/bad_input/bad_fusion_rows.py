"""Bad calls of fuse."""

from __future__ import annotations

import warnings
from collections.abc import Callable

import torch
from bad_call_row import META, NAN, Row
from torch import Tensor, nn
from well_formed_calls import images, numbers

from fastlangevin.models.instance_norm import InstanceNormPlusPlus


class Returning(nn.Module):
    """A network with an output of its own."""

    def __init__(self, what: Callable[[Tensor], object]) -> None:
        super().__init__()
        self.norm, self.what = InstanceNormPlusPlus(3), what

    def forward(self, x: Tensor) -> object:
        return self.what(self.norm(x, x))


def _quietly(make: Callable[[], nn.Module]) -> nn.Module:
    """PyTorch warns that scripting is deprecated, and of its own uses of what is."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return make()


def _compiled_in_place() -> nn.Module:
    net = images()
    net[1].compile()
    return net


FUSION = [
    Row(
        "net is a function", "fuse", lambda k: {"net": torch.sin}, TypeError, ("net must be a torch.nn.Module", "got b")
    ),
    Row(
        "net scripted",
        "fuse",
        lambda k: {"net": _quietly(lambda: torch.jit.script(images()))},
        TypeError,
        ("net must be a plain torch.nn.Module", "RecursiveScriptModule", "fuse first"),
    ),
    Row(
        "net compiled",
        "fuse",
        lambda k: {"net": _quietly(lambda: nn.Sequential(torch.compile(images())))},
        TypeError,
        ("net must not be compiled yet", "but 0 is", "fuse the network first"),
    ),
    Row(
        "net compiled in place",
        "fuse",
        lambda k: {"net": _quietly(_compiled_in_place)},
        TypeError,
        ("net must not be compiled yet", "but 1 is"),
    ),
    Row("no probe", "fuse", lambda k: {"inputs": []}, TypeError, ("fuse needs a probe", "fuse(net, x, labels)")),
    Row(
        "probe of another shape",
        "fuse",
        lambda k: {"inputs": [numbers(2, 5, 6, 6)]},
        RuntimeError,
        ("net fails on the inputs of the probe", "float32 (2, 5, 6, 6) on cpu", "RuntimeError", "pass inputs that"),
    ),
    Row(
        "probe with a name too many",
        "fuse",
        lambda k: {"labels": torch.tensor([0, 1])},
        RuntimeError,
        ("net fails on the inputs of the probe", "labels=int64 (2,) on cpu", "TypeError"),
    ),
    Row(
        "probe NaN",
        "fuse",
        lambda k: {"inputs": [torch.full((2, 3, 6, 6), NAN)]},
        RuntimeError,
        ("not finite", "inputs of the probe"),
    ),
    Row("impl unknown", "fuse", lambda k: {"impl": "cuda"}, ValueError, ("impl must be one of", "'cuda'")),
    Row("net without numbers", "fuse", lambda k: {"net": images().to(META)}, ValueError, ("meta", "load its weights")),
    Row(
        "net returns None",
        "fuse",
        lambda k: {"net": Returning(lambda out: None)},
        RuntimeError,
        ("net must return floating-point tensors", "NoneType"),
        lambda k: {"net": Returning(lambda out: {"sample": out})},
    ),
    Row(
        "net returns integers",
        "fuse",
        lambda k: {"net": Returning(lambda out: (out.argmax(1),))},
        RuntimeError,
        ("net must return floating-point tensors", "tuple"),
        lambda k: {"net": Returning(lambda out: (out.argmax(1), out))},
    ),
]
