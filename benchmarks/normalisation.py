"""The norms of the standard networks with their activations, forward, and forward with backward.

    python -m benchmarks.normalisation                       this machine's CPU, 2 threads
    python -m benchmarks.normalisation --device cuda         a GPU
    python -m benchmarks.normalisation --json results.json   also keep the numbers

Sizes are images in a batch, of 128x32x32 and 256x16x16. Conditional InstanceNorm++ with ELU, GroupNorm with SiLU:
    published      each operation of the formula by itself
    eager          as few passes as eager PyTorch allows
    torch.compile  the eager one compiled
    fused          fl.ops.instance_norm, fl.ops.group_norm
    copy           y.copy_(x): what the memory gives

Bytes are the algorithm's forward pass: the statistics need a pass of their own, so x is read twice and the result
written, 12 per element in fp32. The backward pass reads the upstream gradient and x twice and writes one result, 20
more. No time is printed for a provider whose output, or gradient by x, is more than 1e-5 of the largest off fp64.
"""

from __future__ import annotations

import sys
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

import fastlangevin as fl
from benchmarks.command import command
from benchmarks.harness import Benchmark, Trial
from benchmarks.unfused import eager_norm, published_norm

GROUPS = 32

Function = Callable[..., Tensor]


def instance_functions() -> dict[str, Function]:
    """(x, gamma, alpha, beta) to the activated norm."""

    def of(norm: Function) -> Function:
        return lambda *operands: norm(*operands, True)

    return {
        "published": of(published_norm),
        "eager": of(eager_norm),
        "torch.compile": torch.compile(of(eager_norm)),
        "fused": lambda *operands: fl.ops.instance_norm(*operands, activation=True),
    }


def group_functions() -> dict[str, Function]:
    """(x, weight, bias) to the activated norm."""

    def eager(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        return F.silu(F.group_norm(x, GROUPS, weight, bias))

    return {
        "eager": eager,
        "torch.compile": torch.compile(eager),
        "fused": lambda x, weight, bias: fl.ops.group_norm(x, GROUPS, weight, bias, activation=True),
    }


def both_passes(title: str, functions: dict[str, Function], x: Tensor, parameters: tuple[Tensor, ...]) -> Trial:
    """Forward calls, and forward with backward."""
    leaf = x.clone().requires_grad_()
    upstream = fl.randn(x.shape, seed=2, dtype=x.dtype, device=x.device)

    def forward(function: Function) -> Callable[[], Tensor]:
        return lambda: function(x, *parameters)

    def both(function: Function) -> Callable[[], Tensor]:
        return lambda: torch.autograd.grad(function(leaf, *parameters), leaf, upstream)[0]

    calls = {name: forward(function) for name, function in functions.items()}
    calls |= {f"{name} + backward": both(function) for name, function in functions.items()}
    out = torch.empty_like(x)
    calls["copy"] = lambda: out.copy_(x)

    wide = leaf.detach().double().requires_grad_()
    truth = functions["eager"](wide, *(each.double() for each in parameters))
    slope = torch.autograd.grad(truth, wide, upstream.double())[0]

    def wrong(name: str) -> str | None:
        got = calls[name]().double()
        want = x.double() if name == "copy" else slope if "backward" in name else truth.detach()
        error = float((got - want).abs().max() / want.abs().max())
        # A sum over a sample, and 16-bit results, are as exact as their dtype.
        limit = max(1e-5, 4 * torch.finfo(x.dtype).eps)
        return None if error < limit else f"is off by {error:.1e} of the largest value"

    size = x.numel() * x.element_size()
    passes = {name: 2 if name == "copy" else 8 if "backward" in name else 3 for name in calls}
    return Trial(
        title,
        calls,
        wrong,
        base="fused",
        elements=x.numel(),
        touched={name: number * size for name, number in passes.items()},
        rounds=31,
    )


def trial(kind: str, batch: int, dtype: torch.dtype, device: torch.device) -> Trial:
    norm, side = kind.split()
    shape = (batch, 4096 // int(side), int(side), int(side))
    x = fl.randn(shape, seed=0, dtype=dtype, device=device)
    rows = fl.randn((3, batch, shape[1]), seed=1, device=device).to(dtype)
    if norm == "instance":
        return both_passes(f"instance norm + ELU of {shape}", instance_functions(), x, tuple(rows))
    return both_passes(f"group norm + SiLU of {shape}", group_functions(), x, tuple(rows[:2, 0]))


FORWARD = ("published", "eager", "torch.compile", "fused")

BENCHMARK = Benchmark(
    "normalisation",
    __doc__,
    sizes={"cpu": (1, 16), "cuda": (1, 128)},
    trial=trial,
    providers=(*FORWARD, *(f"{name} + backward" for name in FORWARD), "copy"),
    kinds=("instance 32", "instance 16", "group 32", "group 16"),
    labels={"copy": "`y.copy_(x)`"},
)

if __name__ == "__main__":
    sys.exit(command(BENCHMARK))
