"""A training step of the standard networks, width 128: perturb, network, loss, backward pass and Adam.

    python -m benchmarks.training                       this machine's CPU, 2 threads
    python -m benchmarks.training --device cuda         a GPU
    python -m benchmarks.training --json results.json   also keep the numbers

Sizes are images of 3x32x32 in a batch. Providers, all from the same weights:
    published  each operation of the norms by itself, the objective as NCSNv2 writes it
    eager      norms and objective in as few passes as eager PyTorch allows
    fused      the network as it is built and fl.DenoisingScoreMatching

PyTorch 2.13's Inductor gives a wrong gradient for NCSNv2's pooling on CPUs, so torch.compile is not among them. No time
is printed for a provider with a weight whose gradient, for one upstream gradient, is more than 5e-3 of its length off
the eager one's in fp64. Rounding alone takes 1.5e-3, published and fused alike: where two elements of a pooling window
differ by a rounding, another one is the largest.
"""

from __future__ import annotations

import copy
import sys
from collections.abc import Callable

import torch
from torch import Tensor, nn

import fastlangevin as fl
from benchmarks.command import command
from benchmarks.harness import Benchmark, Trial
from benchmarks.operations import NETWORKS
from benchmarks.unfused import eager_norm, published_norm, unfused

SIGMAS = fl.geometric_sigmas(1.0, 0.01, 10)
Objective = Callable[[nn.Module, Tensor], Tensor]


def objectives(device: torch.device) -> dict[str, Objective]:
    sigmas = SIGMAS.to(device, torch.float32)
    fused_objective = fl.DenoisingScoreMatching(SIGMAS)

    def levels(x: Tensor) -> tuple[Tensor, Tensor]:
        labels = torch.randint(0, len(sigmas), (len(x),), device=device)
        return labels, sigmas[labels].view(-1, 1, 1, 1)

    def published(net: nn.Module, x: Tensor) -> Tensor:
        labels, sigma = levels(x)
        noise = torch.randn_like(x) * sigma
        target = -1 / (sigma**2) * noise
        scores = net(x + noise, labels).view(len(x), -1)
        target = target.view(len(x), -1)
        return (1 / 2.0 * ((scores - target) ** 2).sum(dim=-1) * sigma.flatten() ** 2).mean(dim=0)

    def eager(net: nn.Module, x: Tensor) -> Tensor:
        labels, sigma = levels(x)
        z = torch.randn_like(x)
        output = net(torch.addcmul(x, sigma, z), labels)
        return torch.addcmul(z, sigma, output).square().sum() * (0.5 / len(x))

    return {"published": published, "eager": eager, "fused": lambda net, x: fused_objective(net, x, seed=0, step=0)}


def trial(kind: str, batch: int, dtype: torch.dtype, device: torch.device) -> Trial:
    torch.manual_seed(0)
    built = NETWORKS[kind](SIGMAS).to(device, dtype)
    nets = {"published": unfused(built, published_norm), "eager": unfused(built, eager_norm), "fused": built}
    x, upstream = fl.randn((2, batch, 3, 32, 32), seed=0, dtype=dtype, device=device)
    labels = torch.arange(batch, device=device) % len(SIGMAS)

    def gradients(net: nn.Module, kind: torch.dtype) -> tuple[Tensor, ...]:
        return torch.autograd.grad(net(x.to(kind), labels), list(net.parameters()), upstream.to(kind))

    want = gradients(copy.deepcopy(nets["eager"]).double(), torch.float64)

    def wrong(name: str) -> str | None:
        pairs = zip(gradients(nets[name], dtype), want, strict=True)
        error = max(float((got - each).norm() / each.norm().clamp(min=1e-30)) for got, each in pairs)
        return None if error < 5e-3 else f"a gradient is off by {error:.1e} of its length"

    def step(net: nn.Module, objective: Objective) -> Callable[[], None]:
        # A step size of zero: the weights stay what they were when the gradients were compared.
        optimiser = torch.optim.Adam(net.parameters(), lr=0.0)

        def call() -> None:
            optimiser.zero_grad()
            objective(net, x).backward()
            optimiser.step()

        return call

    return Trial(
        f"{kind} training step, batch {batch}",
        {name: step(nets[name], objective) for name, objective in objectives(device).items()},
        wrong,
        base="fused",
        rounds=11,
    )


BENCHMARK = Benchmark(
    "training",
    __doc__,
    sizes={"cpu": (1, 8), "cuda": (1, 128)},
    trial=trial,
    providers=("published", "eager", "fused"),
    kinds=tuple(NETWORKS),
    labels={
        "published": "published objective and norms (NCSNv2)",
        "eager": "eager objective, eager norms",
        "fused": "`fl.DenoisingScoreMatching`, the network as it is",
    },
)

if __name__ == "__main__":
    sys.exit(command(BENCHMARK))
