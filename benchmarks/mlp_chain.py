"""The perceptron's part of ``python -m benchmarks.chain``: annealed Langevin dynamics, 10 levels.

Providers:
    eager     its matrix products and activations written out for each update, in place, in inference mode
    module    the network called for each update, in inference mode
    loop      fl.annealed_langevin with chain="loop"
    chain     fl.annealed_langevin: the chain kernel
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

import fastlangevin as fl
from fastlangevin.models import MLP, MLPConfig
from fastlangevin.models.mlp_chain import chain_network

LEVELS, WIDTH, DEPTH = 10, 64, 2
EPSILON = 1e-3

__all__ = ["mlp_providers"]


def perceptron(device: torch.device) -> MLP:
    """2-64-64-2 with weights of the usual size, random also where a new network has zeros."""
    net = MLP(fl.geometric_sigmas(1.0, 0.1, LEVELS), MLPConfig(features=2, width=WIDTH, depth=DEPTH))
    with torch.no_grad():
        for index, parameter in enumerate(net.parameters()):
            parameter.copy_(fl.randn((1, *parameter.shape), seed=index)[0] / math.sqrt(parameter.shape[-1]))
        net.head.weight.mul_(0.3)
    return net.to(device).eval()


def mlp_providers(chains: int, steps: int, device: torch.device) -> dict[str, Callable[[], Tensor]]:
    """Every provider starts with the same states and makes ``steps`` updates, a multiple of the levels."""
    net = perceptron(device)
    start = fl.randn((chains, 2), seed=0, device=device)
    repeats = steps // LEVELS
    rules = fl.rules.annealed(net.sigmas, EPSILON)

    @torch.inference_mode()
    def eager() -> Tensor:
        network = chain_network(net)
        x, noise = start.clone(), torch.empty_like(start)
        first, second, last = network.weights
        for level, (_, a, b) in enumerate(rules):
            assert b is not None
            scale, gain, pull = network.frame[level].tolist()
            one, two = network.biases[level]
            scaled, head, bias = first * scale, last * (a * gain), network.head * (a * gain)
            for _ in range(repeats):
                h = F.silu(F.linear(x, scaled, one), inplace=True)
                h = F.silu(F.linear(h, second, two), inplace=True)
                x.mul_(1 - a * pull).add_(F.linear(h, head, bias)).add_(noise.normal_(), alpha=b)
        return x

    @torch.inference_mode()
    def module() -> Tensor:
        x, noise = start.clone(), torch.empty_like(start)
        for level, (_, a, b) in enumerate(rules):
            assert b is not None
            labels = torch.full((chains,), level, device=device)
            for _ in range(repeats):
                x.add_(net(x, labels), alpha=a).add_(noise.normal_(), alpha=b)
        return x

    def sampler(chain: str) -> Callable[[], Tensor]:
        return lambda: fl.annealed_langevin(
            net, net.sigmas, init=start, epsilon=EPSILON, steps_per_level=repeats, seed=0, chain=chain
        )

    return {"eager": eager, "module": module, "loop": sampler("loop"), "chain": sampler("kernel")}
