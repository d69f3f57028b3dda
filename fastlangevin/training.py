"""Training a score network on a set of images in memory: Adam on the denoising score matching loss, averaged weights.

A run is a function of its configuration: weights start from the seed; the order of the images, their dequantisation,
the levels and the noise are addressed by seed and step. The same configuration gives the same bits on the same machine
with the same number of threads.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import nn

from fastlangevin.data import Images, batch_indices, dequantise
from fastlangevin.losses import dsm_loss
from fastlangevin.models.base import ScoreNet
from fastlangevin.noise import MAX_DRAW, MAX_SEED, integer

__all__ = ["Average", "TrainConfig", "train"]


@dataclass(frozen=True)
class TrainConfig:
    """How to train.

    Args:
        steps: optimiser steps.
        batch: images in a step.
        lr: peak learning rate of Adam.
        warmup: steps over which the rate rises from 0; it then falls to 0 along half a cosine.
        ema: limit of the decay of the averaged weights; 0 keeps no average.
        seed: 64-bit seed of the run.
    """

    steps: int = 4000
    batch: int = 128
    lr: float = 2e-3
    warmup: int = 100
    ema: float = 0.999
    seed: int = 0

    def __post_init__(self) -> None:
        integer("steps", self.steps, 1, MAX_DRAW)
        integer("batch", self.batch, 1, 2**31)
        integer("warmup", self.warmup, 0, MAX_DRAW)
        integer("seed", self.seed, 0, MAX_SEED)
        if not 0 < self.lr < math.inf:
            raise ValueError(f"lr must be positive and finite, got {self.lr}; 1e-3 is a usual rate")
        if not 0 <= self.ema < 1:
            raise ValueError(f"ema must be in [0, 1), got {self.ema}; 0.999 is usual, 0 turns averaging off")

    def rate(self, step: int) -> float:
        """Learning rate of a step: linear warm-up times half a cosine."""
        rise = min(1.0, (step + 1) / (self.warmup + 1))
        return self.lr * rise * 0.5 * (1 + math.cos(math.pi * step / self.steps))


class Average:
    """Exponential moving average of a network's weights (Song and Ermon 2020, technique 5).

    The decay of update n is min(decay, (1 + n) / (10 + n)), so that the random start is forgotten early.

    Args:
        net: the network that is trained; its weights are read at each update.
        decay: limit of the decay, in [0, 1).
    """

    def __init__(self, net: nn.Module, decay: float) -> None:
        self.decay = decay
        self.updates = 0
        self.source = [parameter.detach() for parameter in net.parameters()]
        self.weights = [parameter.clone() for parameter in self.source]

    @torch.no_grad()
    def update(self) -> None:
        """Moves the average towards the network's present weights."""
        decay = min(self.decay, (1 + self.updates) / (10 + self.updates))
        self.updates += 1
        torch._foreach_lerp_(self.weights, self.source, 1 - decay)

    @torch.no_grad()
    def copy_to(self, net: nn.Module) -> None:
        """Overwrites a network's weights with the average."""
        for parameter, weight in zip(net.parameters(), self.weights, strict=True):
            parameter.copy_(weight)


def train(
    build: Callable[[], ScoreNet],
    data: Images,
    config: TrainConfig,
    *,
    progress: bool = False,
    callback: Callable[[int, float], None] | None = None,
) -> ScoreNet:
    """Trains a network.

    Args:
        build: makes the untrained network; called with PyTorch's default generator seeded with the run's seed, whose
            former state comes back afterwards.
        data: images in memory; they are dequantised anew at each step.
        config: how to train.
        progress: show a bar with loss and images per second.
        callback: called after each step as ``callback(step, loss)``; an exception that it raises ends the run.

    Returns:
        The network with its averaged weights, in evaluation mode.

    Raises:
        RuntimeError: the loss is no longer finite.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed)
        net = build()
    net.train()
    optimiser = torch.optim.Adam(net.parameters(), lr=config.lr)
    average = Average(net, config.ema)
    size = data.images.shape[0]
    with _Bar(config, progress) as bar:
        for step in range(config.steps):
            for group in optimiser.param_groups:
                group["lr"] = config.rate(step)
            images = data.images[batch_indices(step, config.batch, size, seed=config.seed)]
            x = dequantise(images, data.greys, seed=config.seed, step=step)
            loss = dsm_loss(net, x, net.sigmas, seed=config.seed, step=step)
            optimiser.zero_grad(set_to_none=True)
            loss.backward()  # type: ignore[no-untyped-call]
            optimiser.step()
            average.update()
            value = loss.item()
            if not math.isfinite(value):
                raise RuntimeError(
                    f"the loss is {value} at step {step} with a learning rate of {config.rate(step):.2g}; lower lr or "
                    "raise warmup, and check that the data are finite"
                )
            bar.advance(value)
            if callback is not None:
                callback(step, value)
    average.copy_to(net)
    return net.eval()


class _Bar:
    """A tqdm bar that counts images and shows a running mean of the loss; does nothing where it is not wanted."""

    def __init__(self, config: TrainConfig, wanted: bool) -> None:
        self.batch = config.batch
        self.bar = None
        self.loss: float | None = None
        if wanted:
            from tqdm.auto import tqdm

            self.bar = tqdm(total=config.steps * config.batch, unit=" images", unit_scale=True, desc="training")

    def __enter__(self) -> _Bar:
        return self

    def __exit__(self, *_: object) -> None:
        if self.bar is not None:
            self.bar.close()

    def advance(self, loss: float) -> None:
        if self.bar is not None:
            self.loss = loss if self.loss is None else 0.98 * self.loss + 0.02 * loss
            self.bar.set_postfix(loss=f"{self.loss:.3f}", refresh=False)
            self.bar.update(self.batch)
