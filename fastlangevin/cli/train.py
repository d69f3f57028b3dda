"""Train a score network on a small set of images by denoising score matching and save it.

With the defaults this makes the checkpoint that ships with the package, in a few minutes on two CPU cores. The saved
weights are the averaged ones. The same arguments give the same weights on the same machine with the same threads.
"""

from __future__ import annotations

import argparse
import dataclasses
import time
from pathlib import Path
from typing import Any

import torch

from fastlangevin import data
from fastlangevin.files import check_writable
from fastlangevin.models import ConvConfig, ConvScore
from fastlangevin.noise import MAX_SEED
from fastlangevin.schedules import geometric_sigmas
from fastlangevin.training import TrainConfig, train

SIGMA_1, SIGMA_L, LEVELS = 1.0, 0.01, 10

# The paper's step size at the last level, and how the shipped network is meant to be sampled.
SAMPLING = {"epsilon": 2e-5, "steps_per_level": 50, "init": "uniform", "denoise": True}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    defaults = TrainConfig()
    add = parser.add_argument
    add("--data", choices=["digits"], default="digits", help="scikit-learn's 8x8 digits")
    add("--out", type=Path, default=Path("digits.safetensors"), help="checkpoint to write")
    add("--steps", type=int, default=defaults.steps, help="optimiser steps")
    add("--batch", type=int, default=defaults.batch, help="images in a step")
    add("--lr", type=float, default=defaults.lr, help="peak learning rate of Adam")
    add("--ema", type=float, default=defaults.ema, help="decay of the averaged weights, 0 for none")
    add("--seed", type=int, default=defaults.seed, help=f"0 to {MAX_SEED}")
    add("--threads", type=int, default=None, help="CPU threads; PyTorch's own choice where it is left out")
    add("--quiet", action="store_true", help="no progress bar")


def run(options: argparse.Namespace) -> int:
    out: Path = options.out
    check_writable(out, "digits.safetensors")
    config = TrainConfig(steps=options.steps, batch=options.batch, lr=options.lr, ema=options.ema, seed=options.seed)
    if options.threads is not None:
        if options.threads < 1:
            raise ValueError(f"--threads must be at least 1, got {options.threads}")
        torch.set_num_threads(options.threads)
    try:
        images = data.digits("train")
    except ImportError as error:
        raise RuntimeError(str(error)) from error
    sigmas = geometric_sigmas(SIGMA_1, SIGMA_L, LEVELS)
    levels = data.dequantise(images.images, images.greys, seed=config.seed)
    network = ConvConfig(mean=round(levels.mean().item(), 2), std=round(levels.std().item(), 2))
    losses: list[float] = []
    started = time.monotonic()
    net = train(
        lambda: ConvScore(sigmas, network),
        images,
        config,
        progress=not options.quiet,
        callback=lambda _, loss: losses.append(loss),
    )
    seconds = time.monotonic() - started
    last = losses[-max(1, len(losses) // 10) :]
    loss = sum(last) / len(last)
    net.save_pretrained(out, metadata=_metadata(options.data, images, config, loss))
    weights = sum(parameter.numel() for parameter in net.parameters())
    print(
        f"trained {weights} weights for {config.steps} steps in {seconds:.0f} s "
        f"({config.steps * config.batch / seconds:.0f} images/s), mean loss of the last tenth {loss:.3f}; saved {out} "
        f"({out.stat().st_size} bytes)"
    )
    return 0


def _metadata(name: str, images: data.Images, config: TrainConfig, loss: float) -> dict[str, Any]:
    """What the file says about itself; no date and no machine name, so that the same run gives the same file."""
    return {
        "data": {
            "name": name,
            "shape": list(images.images.shape[1:]),
            "range": [0.0, 1.0],
            "images": images.images.shape[0],
            "dequantisation": f"(v + u) / {images.greys}, v = 0 .. {images.greys - 1}, u uniform on (0, 1)",
        },
        "training": {
            **dataclasses.asdict(config),
            "objective": "denoising score matching, weight sigma^2",
            "mean_loss_of_last_tenth": round(loss, 4),
            "torch": torch.__version__,
            "threads": torch.get_num_threads(),
        },
        "sampling": SAMPLING,
    }
