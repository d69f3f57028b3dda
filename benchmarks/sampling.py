"""The sampling loop without a network: annealed Langevin dynamics with the score of a Gaussian, in PyTorch.

    python -m benchmarks.sampling                       this machine's CPU, 2 threads
    python -m benchmarks.sampling --device cuda         a GPU
    python -m benchmarks.sampling --json results.json   also keep the numbers

Sizes are samples of 3x32x32. Providers, all with the same score function, which is timed alone as well:
    published       as NCSNv2 writes it, with its norms at every step (and without its copies to the host)
    eager           x + a*score + b*torch.randn_like(x)
    eager in place  the same by add_ and normal_
    fused           fl.annealed_langevin, which looks for values that are not finite
    unwatched       the same with non_finite=None
    telemetry       fused with telemetry="level"
    score           the calls of the score function alone

No time is printed for a provider whose samples have another standard deviation than the exact law of the chain.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

import fastlangevin as fl
from benchmarks.command import command
from benchmarks.harness import Benchmark, Trial
from fastlangevin import rules

STEPS = 100  # at each of the 10 levels
SIGMAS = fl.geometric_sigmas(1.0, 0.01, 10)
SPREAD = 0.5  # of the data, around 0
STEP_LR = 2e-5

Provider = Callable[[], Tensor]


def providers(shape: tuple[int, ...], steps: int, dtype: torch.dtype, device: torch.device) -> dict[str, Provider]:
    variances = (SIGMAS**2 + SPREAD**2).to(device, dtype)
    last = float(SIGMAS[-1])
    start = fl.rand(shape, seed=0, dtype=dtype, device=device)

    def score(x: Tensor, labels: Tensor) -> Tensor:
        return x / -variances[labels].view(-1, *[1] * (x.ndim - 1))

    def norm(values: Tensor) -> Tensor:
        return torch.norm(values.reshape(values.shape[0], -1), dim=-1).mean()

    def labels_of(level: int) -> Tensor:
        return torch.full((shape[0],), level, device=device)

    def published() -> Tensor:
        x = start
        for level, sigma in enumerate(SIGMAS.tolist()):
            labels, size = labels_of(level), STEP_LR * (sigma / last) ** 2
            for _ in range(steps):
                grad = score(x, labels)
                noise = torch.randn_like(x)
                grad_norm, noise_norm = norm(grad), norm(noise)
                x = x + size * grad + noise * math.sqrt(size * 2)
                image_norm = norm(x)
                snr = math.sqrt(size / 2.0) * grad_norm / noise_norm
                grad_mean_norm = torch.norm(grad.mean(dim=0).view(-1)) ** 2 * sigma**2
        del image_norm, snr, grad_mean_norm
        return x

    def eager() -> Tensor:
        x = start
        for level, (_, a, b) in enumerate(rules.annealed(SIGMAS.tolist(), 2 * STEP_LR)):
            labels = labels_of(level)
            for _ in range(steps):
                x = x + a * score(x, labels) + (b or 0.0) * torch.randn_like(x)
        return x

    def in_place() -> Tensor:
        x = start.clone()
        noise = torch.empty_like(x)
        for level, (_, a, b) in enumerate(rules.annealed(SIGMAS.tolist(), 2 * STEP_LR)):
            labels = labels_of(level)
            for _ in range(steps):
                x.add_(score(x, labels), alpha=a).add_(noise.normal_(), alpha=b or 0.0)
        return x

    chain: dict[str, Any] = {"init": start, "step_lr": STEP_LR, "steps_per_level": steps, "seed": 0}

    def fused() -> Tensor:
        return fl.annealed_langevin(score, SIGMAS, **chain)

    def unwatched() -> Tensor:
        return fl.annealed_langevin(score, SIGMAS, **chain, non_finite=None)

    def telemetry() -> Tensor:
        return fl.annealed_langevin(score, SIGMAS, **chain, telemetry="level", full_output=True).samples

    def alone() -> Tensor:
        for level in range(len(SIGMAS)):
            labels = labels_of(level)
            for _ in range(steps):
                out = score(start, labels)
        return out

    return {
        "published": published,
        "eager": eager,
        "eager in place": in_place,
        "fused": fused,
        "unwatched": unwatched,
        "telemetry": telemetry,
        "score": alone,
    }


def exact_deviation(steps: int) -> float:
    """Standard deviation of the chain's last state from U(0, 1) on: the mean's square is part of it."""
    mean, variance = 0.5, 1 / 12
    for (_, a, b), sigma in zip(rules.annealed(SIGMAS.tolist(), 2 * STEP_LR), SIGMAS.tolist(), strict=True):
        for _ in range(steps):
            shrink = 1 - a / (SPREAD**2 + sigma**2)
            mean, variance = shrink * mean, shrink**2 * variance + (b or 0.0) ** 2
    return math.sqrt(variance + mean**2)


def wrong(name: str, samples: Tensor, steps: int) -> str | None:
    """None where the root mean square of the samples is the exact law's within six of its standard deviations."""
    if name == "score":
        return None
    found, want = float(samples.double().square().mean().sqrt()), exact_deviation(steps)
    return (
        None if abs(found / want - 1) < 6 / math.sqrt(2 * samples.numel()) else f"deviation {found:.5f}, not {want:.5f}"
    )


def trial(kind: str, batch: int, dtype: torch.dtype, device: torch.device) -> Trial:
    calls = providers((batch, 3, 32, 32), STEPS, dtype, device)
    updates = STEPS * len(SIGMAS)
    return Trial(
        f"{updates:,} updates of {batch} x 3 x 32 x 32",
        dict(calls),
        lambda name: wrong(name, calls[name](), STEPS),
        base="fused",
        updates=updates,
        rounds=9,
    )


BENCHMARK = Benchmark(
    "sampling",
    __doc__,
    sizes={"cpu": (128,), "cuda": (1, 128)},
    trial=trial,
    providers=("published", "eager", "eager in place", "fused", "unwatched", "telemetry", "score"),
    labels={
        "published": "published code (NCSNv2), with its norms at every step",
        "eager": "`x + a*score + b*torch.randn_like(x)`",
        "eager in place": "`x.add_(score, alpha=a).add_(noise.normal_(), alpha=b)`",
        "fused": "`fl.annealed_langevin`",
        "unwatched": "the same with `non_finite=None`",
        "telemetry": 'the same with `telemetry="level"`',
        "score": "the score function alone",
    },
)

if __name__ == "__main__":
    sys.exit(command(BENCHMARK))
