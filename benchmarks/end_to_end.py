"""Sampling from start to end: the shipped digits, and NCSN at the size of CIFAR-10.

    python -m benchmarks.end_to_end                       this machine's CPU, 2 threads
    python -m benchmarks.end_to_end --device cuda         a GPU
    python -m benchmarks.end_to_end --json results.json   also keep the numbers

Sizes are images. Digits: the shipped network and its whole chain. CIFAR-10: NCSN of width 128 on 3x32x32, one update at
each of its 10 levels; a chain has 1,000, and all are alike. Providers:
    published       the loop as NCSNv2 writes it, with its norms at every step; norms operation by operation
    eager           the loop by add_ and normal_; norms in as few passes as eager PyTorch allows
    torch.compile   the same with the network compiled
    compiled 16 bit the same with the network in bfloat16 throughout, compiled
    fused           fl.annealed_langevin with the network as it is built
    sampling        the same with fl.models.for_sampling(net)
    sampling 16 bit the same with fl.models.for_sampling(net, dtype=torch.bfloat16)

The digits' network has no norms, so published and eager differ in the loop only. No time is printed for a provider
whose network is more than 1e-4 of the largest output off the published one's, a tenth in 16 bits; the loops are checked
by python -m benchmarks.sampling.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Callable
from importlib.resources import as_file, files

import torch
from torch import Tensor, nn

import fastlangevin as fl
from benchmarks.command import command
from benchmarks.harness import Benchmark, Trial
from benchmarks.unfused import Half, eager_norm, published_norm, unfused
from fastlangevin import rules
from fastlangevin.storage import checkpoint

STEP_LR = 2e-5
Net = Callable[[Tensor, Tensor], Tensor]


def published_loop(net: Net, x: Tensor, sigmas: list[float], step_lr: float, steps: int) -> Tensor:
    """NCSNv2's loop, without its copies to the host."""

    def norm(values: Tensor) -> Tensor:
        return torch.norm(values.reshape(values.shape[0], -1), dim=-1).mean()

    for level, sigma in enumerate(sigmas):
        labels = torch.full((len(x),), level, device=x.device)
        size = step_lr * (sigma / sigmas[-1]) ** 2
        for _ in range(steps):
            grad = net(x, labels)
            noise = torch.randn_like(x)
            grad_norm, noise_norm = norm(grad), norm(noise)
            x = x + size * grad + noise * math.sqrt(size * 2)
            _ = norm(x)
            _ = math.sqrt(size / 2.0) * grad_norm / noise_norm
            _ = torch.norm(grad.mean(dim=0).view(-1)) ** 2 * sigma**2
    return x


def eager_loop(net: Net, x: Tensor, sigmas: list[float], step_lr: float, steps: int) -> Tensor:
    x = x.clone()
    noise = torch.empty_like(x)
    for level, (_, a, b) in enumerate(rules.annealed(sigmas, 2 * step_lr)):
        labels = torch.full((len(x),), level, device=x.device)
        for _ in range(steps):
            x.add_(net(x, labels), alpha=a).add_(noise.normal_(), alpha=b or 0.0)
    return x


def fused_loop(net: Net, x: Tensor, sigmas: list[float], step_lr: float, steps: int) -> Tensor:
    out: Tensor = fl.annealed_langevin(net, sigmas, init=x, step_lr=step_lr, steps_per_level=steps, seed=0)
    return out


def whole(title: str, net: nn.Module, x: Tensor, sigmas: list[float], step_lr: float, steps: int) -> Trial:
    published, eager = unfused(net, published_norm), unfused(net, eager_norm)
    parts = {
        "published": (published_loop, published),
        "eager": (eager_loop, eager),
        "torch.compile": (eager_loop, torch.compile(eager)),
        "compiled 16 bit": (eager_loop, torch.compile(Half(eager, torch.contiguous_format))),
        "fused": (fused_loop, net),
        "sampling": (fused_loop, fl.models.for_sampling(net)),
        "sampling 16 bit": (fused_loop, fl.models.for_sampling(net, dtype=torch.bfloat16)),
    }
    labels = torch.arange(len(x), device=x.device) % len(sigmas)

    def without_gradients(call: Callable[[], Tensor]) -> Callable[[], Tensor]:
        def run() -> Tensor:
            with torch.no_grad():
                return call()

        return run

    def wrong(name: str) -> str | None:
        with torch.no_grad():
            want, got = published(x, labels), parts[name][1](x, labels)
        error = float((got - want).abs().max() / want.abs().max())
        return None if error < (0.1 if "16" in name else 1e-4) else f"the network is off by {error:.1e}"

    return Trial(
        title,
        {
            name: without_gradients(lambda loop=loop, net=net: loop(net, x, sigmas, step_lr, steps))
            for name, (loop, net) in parts.items()
        },
        wrong,
        base="fused",
        updates=steps * len(sigmas),
        rounds=9,
    )


def trial(kind: str, images: int, dtype: torch.dtype, device: torch.device) -> Trial:
    if kind == "digits":
        with as_file(files("fastlangevin") / "assets" / "digits.safetensors") as path:
            loaded = checkpoint.load(path)
        advice, shape = loaded.metadata["sampling"], loaded.metadata["data"]["shape"]
        sigmas, net = [float(each) for each in loaded.sigmas], loaded.net
        step_lr, steps, title = advice["epsilon"] / 2, advice["steps_per_level"], f"{images} digits"
    else:
        torch.manual_seed(0)
        sigmas, shape = fl.geometric_sigmas(1.0, 0.01, 10).tolist(), (3, 32, 32)
        net = fl.models.NCSN(sigmas)
        step_lr, steps, title = STEP_LR, 1, f"{images} images by NCSN, 10 of 1,000 updates"
    x = fl.rand((images, *shape), seed=0, dtype=dtype, device=device)
    return whole(title, net.eval().to(device, dtype), x, sigmas, step_lr, steps)


BENCHMARK = Benchmark(
    "end_to_end",
    __doc__,
    sizes={"cpu": (4,), "cuda": (1, 100)},
    trial=trial,
    providers=("published", "eager", "torch.compile", "compiled 16 bit", "fused", "sampling", "sampling 16 bit"),
    kinds=("digits", "cifar10"),
    labels={
        "published": "published loop and norms (NCSNv2)",
        "eager": "eager, in place, the fewest passes",
        "torch.compile": "the same, network compiled",
        "compiled 16 bit": "the same, network compiled in bfloat16",
        "fused": "`fl.annealed_langevin`, the network as it is",
        "sampling": "the same with `for_sampling(net)`",
        "sampling 16 bit": "the same with `for_sampling(net, dtype=torch.bfloat16)`",
    },
)

if __name__ == "__main__":
    sys.exit(command(BENCHMARK))
