"""The standard networks' forward pass, width 128: as published, eager, compiled and fused.

    python -m benchmarks.network                       this machine's CPU, 2 threads
    python -m benchmarks.network --device cuda         a GPU
    python -m benchmarks.network --json results.json   also keep the numbers

Sizes are images of 3x32x32 in a batch. Providers, all with the same weights:
    published       each norm in the 14 operations of its formula, ELU behind it
    eager           each norm in as few passes as eager PyTorch allows
    eager 16 bit    the same in bfloat16 throughout, channels last
    torch.compile   the eager one compiled
    compiled 16 bit the eager one in bfloat16 throughout, compiled
    fused           the network as it is built: norms with their ELU and the sum before them, sums with their ELU
    sampling        fl.models.for_sampling(net)
    sampling 16 bit fl.models.for_sampling(net, dtype=torch.bfloat16)
    sampling comp.  fl.models.for_sampling(net, compile=True)

No time is printed for a provider whose output is wrong: fp32 must agree with fp64 to 1e-5 of the largest output,
16 bits to a tenth.
"""

from __future__ import annotations

import sys
from collections.abc import Callable

import torch
from torch import Tensor, nn

import fastlangevin as fl
from benchmarks.command import command
from benchmarks.harness import Benchmark, Trial
from benchmarks.operations import NETWORKS
from benchmarks.unfused import Half, eager_norm, published_norm, unfused

Call = Callable[[], Tensor]


def ready(net: nn.Module) -> dict[str, nn.Module]:
    """A network made ready for sampling, in each way."""
    return {
        "sampling": fl.models.for_sampling(net),
        "sampling 16 bit": fl.models.for_sampling(net, dtype=torch.bfloat16),
        "sampling comp.": fl.models.for_sampling(net, compile=True),
    }


def plain(net: nn.Module) -> dict[str, nn.Module]:
    """A network without fused operations, in each way."""

    def half(memory_format: torch.memory_format) -> nn.Module:
        return Half(unfused(net, eager_norm), memory_format)

    return {
        "published": unfused(net, published_norm),
        "eager": unfused(net, eager_norm),
        "eager 16 bit": half(torch.channels_last),
        "torch.compile": torch.compile(unfused(net, eager_norm)),
        "compiled 16 bit": torch.compile(half(torch.contiguous_format)),
    }


def providers(net: nn.Module, x: Tensor, labels: Tensor) -> dict[str, Call]:
    def of(module: nn.Module) -> Call:
        def call() -> Tensor:
            with torch.no_grad():
                out: Tensor = module(x, labels)
                return out

        return call

    return {name: of(module) for name, module in {**plain(net), "fused": net, **ready(net)}.items()}


def wrong(name: str, got: Tensor, want: Tensor) -> str | None:
    """None where an output agrees with that of fp64, relative to each sample's largest."""
    dims = tuple(range(1, want.ndim))
    error = float(((got.double() - want).abs().amax(dims) / want.abs().amax(dims)).max())
    return None if error < (0.1 if "16" in name else 1e-5) else f"is off by {error:.1e} of the largest output"


def trial(kind: str, batch: int, dtype: torch.dtype, device: torch.device) -> Trial:
    torch.manual_seed(0)
    net = NETWORKS[kind](fl.geometric_sigmas(1.0, 0.01, 10)).eval().to(device, dtype)
    x = fl.rand((batch, 3, 32, 32), seed=0, dtype=dtype, device=device)
    labels = torch.arange(batch, device=device) % 10
    with torch.no_grad():
        want = unfused(net, published_norm).double()(x.double(), labels)
    calls = providers(net, x, labels)
    return Trial(
        f"{kind} forward, batch {batch}",
        dict(calls),
        lambda name: wrong(name, calls[name](), want),
        base="fused",
        rounds=21,
    )


BENCHMARK = Benchmark(
    "network",
    __doc__,
    sizes={"cpu": (1, 8), "cuda": (1, 128)},
    trial=trial,
    providers=(
        "published",
        "eager",
        "eager 16 bit",
        "torch.compile",
        "compiled 16 bit",
        "fused",
        "sampling",
        "sampling 16 bit",
        "sampling comp.",
    ),
    kinds=tuple(NETWORKS),
    labels={
        "published": "published way of writing the norms",
        "eager": "eager, the fewest passes",
        "eager 16 bit": "the same in bfloat16, channels last",
        "torch.compile": "`torch.compile` of the eager one",
        "compiled 16 bit": "`torch.compile` of it in bfloat16",
        "fused": "the network as it is, fused",
        "sampling": "`for_sampling(net)`",
        "sampling 16 bit": "`for_sampling(net, dtype=torch.bfloat16)`",
        "sampling comp.": "`for_sampling(net, compile=True)`",
    },
)

if __name__ == "__main__":
    sys.exit(command(BENCHMARK))
