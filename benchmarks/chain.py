"""Whole chains of Langevin dynamics: a mixture of 8 Gaussians on a ring in two dimensions, a perceptron 2-64-64-2.

    python -m benchmarks.chain                          this machine's CPU, 2 threads
    python -m benchmarks.chain --device cuda            a GPU
    python -m benchmarks.chain --json results.json      also keep the numbers

Sizes are chains, of 1,000 updates up to 10,000 chains and of 100 above. Providers for the mixture:
    eager            the score from (chains, components, 2) tensors of distances, as it is mostly written
    eager products   a product of matrices for the logits, softmax, one for the mean, in place
    eager columns    the same with chains as columns, so that softmax runs along the memory
    loop             fl.langevin with the mixture's score, update by update
    chain            fl.langevin with the mixture: the chain kernel

Those for the perceptron stand in benchmarks.mlp_chain.

No time is printed for a provider whose chains do not end with the mean square that the chain kernel's have, which is
held to its law by tests.long.law and to the loop's bits by the tests.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Callable

import torch
from torch import Tensor

import fastlangevin as fl
from benchmarks.command import command
from benchmarks.harness import Benchmark, Trial
from benchmarks.mlp_chain import mlp_providers
from fastlangevin.mixture import PerturbedMixture

COMPONENTS, VARIANCE, RADIUS = 8, 0.3, 4.0
EPSILON = 0.01

Provider = Callable[[], Tensor]


def ring() -> fl.GaussianMixture:
    angle = 2 * math.pi * torch.arange(COMPONENTS, dtype=torch.float64) / COMPONENTS
    means = RADIUS * torch.stack([angle.cos(), angle.sin()], 1)
    return fl.GaussianMixture([1 / COMPONENTS] * COMPONENTS, means, VARIANCE)


def mixture_providers(chains: int, steps: int, device: torch.device) -> dict[str, Provider]:
    """Every provider starts with the same states and makes ``steps`` updates."""
    mixture = ring()
    start = 8 * fl.rand((chains, 2), seed=0, device=device) - 4
    means = mixture.means.to(device, torch.float32)
    a, b = EPSILON / 2, math.sqrt(EPSILON)
    score = PerturbedMixture(mixture, [0.0])
    bias, scaled = -(means**2).sum(1) / (2 * VARIANCE), means / VARIANCE

    def eager() -> Tensor:
        x = start
        for _ in range(steps):
            d = means - x[:, None]
            share = torch.softmax((d * d).sum(-1) / (-2 * VARIANCE), 1)
            x = x + a * (share[..., None] * d).sum(1) / VARIANCE + b * torch.randn_like(x)
        return x

    def products() -> Tensor:
        x, noise, pull = start.clone(), torch.empty_like(start), torch.empty_like(start)
        weights, logits = scaled.T.contiguous(), start.new_empty(chains, COMPONENTS)
        for _ in range(steps):
            torch.addmm(bias, x, weights, out=logits)
            torch.mm(torch.softmax(logits, 1), scaled * a, out=pull)
            x.mul_(1 - a / VARIANCE).add_(pull).add_(noise.normal_(), alpha=b)
        return x

    def columns() -> Tensor:
        x = start.T.contiguous()
        noise, pull, logits = torch.empty_like(x), torch.empty_like(x), start.new_empty(COMPONENTS, chains)
        mean = (scaled * a).T.contiguous()
        for _ in range(steps):
            torch.addmm(bias[:, None], scaled, x, out=logits)
            torch.mm(mean, torch.softmax(logits, 0), out=pull)
            x.mul_(1 - a / VARIANCE).add_(pull).add_(noise.normal_(), alpha=b)
        return x.T

    def loop() -> Tensor:
        return fl.langevin(score.at_one_level, start, steps=steps, epsilon=EPSILON, seed=0)

    def chain() -> Tensor:
        return fl.langevin(mixture, start, steps=steps, epsilon=EPSILON, seed=0)

    return {"eager": eager, "eager products": products, "eager columns": columns, "loop": loop, "chain": chain}


def wrong(samples: Tensor, expected: Tensor) -> str | None:
    """None where the squared distances from the centre have the expected mean, within six standard deviations."""
    found, want = (each.double().square().sum(1) for each in (samples, expected))
    spread = math.sqrt((found.var() / len(found) + want.var() / len(want)).item())
    distance = abs(found.mean().item() - want.mean().item())
    return None if distance < 6 * spread else f"mean square {found.mean():.4f}, not {want.mean():.4f}"


PROVIDERS: dict[str, Callable[[int, int, torch.device], dict[str, Provider]]] = {
    "mixture": mixture_providers,
    "mlp": mlp_providers,
}


def trial(kind: str, chains: int, dtype: torch.dtype, device: torch.device) -> Trial:
    if dtype != torch.float32:
        raise ValueError(f"chains in one call are of fp32, got {dtype}")
    updates = 1000 if chains <= 10_000 else 100
    calls = PROVIDERS[kind](chains, updates, device)
    expected = calls["chain"]()

    def check(name: str) -> str | None:
        samples = calls[name]()
        if name == "loop" and kind == "mixture" and not torch.equal(samples, expected):
            return "other bits than the chain kernel's"
        return wrong(samples, expected)

    return Trial(
        f"{updates:,} updates of {chains:,} chains, {kind}",
        dict(calls),
        check,
        base="chain",
        elements=updates * chains,
        updates=updates,
        rounds=7,
    )


BENCHMARK = Benchmark(
    "chain",
    __doc__,
    sizes={"cpu": (256, 10_000, 100_000), "cuda": (4096, 100_000, 1_000_000)},
    trial=trial,
    providers=("eager", "eager products", "eager columns", "module", "loop", "chain"),
    kinds=tuple(PROVIDERS),
    labels={
        "eager products": "eager, by products of matrices",
        "eager columns": "eager, the same with chains as columns",
        "module": "the network called for each update",
        "loop": "the sampler, update by update",
        "chain": "the sampler, one call",
    },
)

if __name__ == "__main__":
    sys.exit(command(BENCHMARK))
