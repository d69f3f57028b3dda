"""Train a score network on images by score matching and save it.

With --ema-rule from_zero and defaults elsewhere this makes the checkpoint that ships with the package, in a few minutes
on two CPU cores. The saved weights are the averaged ones. Beside the network a folder of the same name with .run holds
the state of the run, its log and its pictures. SIGTERM and Ctrl-C save the state; so does the run itself every few
hundred steps, and --resume goes on from there with the same bits. It refuses to go on with other data. Under torchrun
each process takes its share of every batch.
"""

from __future__ import annotations

import argparse
import dataclasses
import hashlib
import json
import time
from pathlib import Path
from typing import Any

import torch

from fastlangevin.cli import sources
from fastlangevin.data import Augment, Source
from fastlangevin.ladders import geometric_sigmas
from fastlangevin.models import ConvConfig, ConvScore
from fastlangevin.noise import MAX_SEED
from fastlangevin.processes import rank_and_size
from fastlangevin.storage.files import check_writable, open_regular, read_regular
from fastlangevin.training import Places, TrainConfig, train

SIGMA_1, SIGMA_L, LEVELS = 1.0, 0.01, 10

# The paper's step size at the last level, and how the shipped network is meant to be sampled.
SAMPLING = {"epsilon": 2e-5, "steps_per_level": 50, "init": "uniform", "denoise": True}
# Samples that the mean and the standard deviation of the data are taken from.
MEASURED = 2048


def add_arguments(parser: argparse.ArgumentParser) -> None:
    defaults = TrainConfig()
    network = ConvConfig()
    data = parser.add_argument_group("data")
    sources.add_arguments(data, default="digits")
    data.add_argument("--flip", action="store_true", help="mirror every second image, at random")
    data.add_argument("--logit", type=float, default=None, metavar="ALPHA", help="train on logits; 1e-6 is usual")
    data.add_argument("--workers", type=int, default=0, help="processes that read files")

    model = parser.add_argument_group("network and ladder")
    model.add_argument("--widths", type=int, nargs="+", default=list(network.widths), help="channels by resolution")
    model.add_argument("--patch", type=int, default=network.patch, help="pixels to a side of a position")
    model.add_argument("--blocks", type=int, default=network.blocks, help="residual blocks at each resolution")
    model.add_argument("--sigma-1", type=float, default=SIGMA_1, help="largest noise level, in units of the data")
    model.add_argument("--sigma-L", type=float, default=SIGMA_L, help="smallest")
    model.add_argument("--levels", type=int, default=LEVELS, help="number of noise levels")

    how = parser.add_argument_group("training")
    how.add_argument("--steps", type=int, default=defaults.steps, help="optimiser steps")
    how.add_argument("--batch", type=int, default=defaults.batch, help="images in a step, over all processes")
    how.add_argument("--lr", type=float, default=defaults.lr, help="peak learning rate")
    how.add_argument("--warmup", type=int, default=defaults.warmup, help="steps of rising rate")
    how.add_argument("--ema", type=float, default=defaults.ema, help="decay of the averaged weights, 0 for none")
    how.add_argument(
        "--ema-rule",
        choices=["score_sde", "ncsnv2", "from_zero"],
        default=None,
        help="how that decay comes to its limit: score_sde's rule, unless --resume goes on with a run of another",
    )
    how.add_argument("--seed", type=int, default=defaults.seed, help=f"0 to {MAX_SEED}")
    how.add_argument("--objective", choices=["dsm", "ssm"], default=defaults.objective, help="denoising or sliced")
    how.add_argument("--anneal-power", type=float, default=defaults.anneal_power, help="p of a level's weight sigma^p")
    how.add_argument("--optimiser", choices=["adam", "adamw"], default=defaults.optimiser, help="Adam or AdamW")
    how.add_argument("--weight-decay", type=float, default=defaults.weight_decay, help="of the optimiser")
    how.add_argument("--clip", type=float, default=defaults.clip, help="largest norm of the gradient, 0 for any")
    how.add_argument("--accumulate", type=int, default=defaults.accumulate, help="parts that a batch is taken in")
    how.add_argument(
        "--precision",
        choices=["float32", "bfloat16", "float16"],
        default=defaults.precision,
        help="of the network, under autocast",
    )
    how.add_argument("--compile", action="store_true", help="compile the network with torch.compile")
    how.add_argument("--channels-last", action="store_true", help="memory layout of convolutions")
    how.add_argument("--device", default=None, help="cpu, cuda, cuda:1, ...; a GPU where there is one")
    how.add_argument("--threads", type=int, default=None, help="CPU threads; PyTorch's own choice where it is left out")

    keep = parser.add_argument_group("what is kept")
    keep.add_argument("--out", type=Path, default=Path("digits.safetensors"), help="network to write")
    keep.add_argument(
        "--run", dest="folder", type=Path, default=None, help="folder of the run; by default --out's .run"
    )
    keep.add_argument("--resume", action="store_true", help="go on from the newest state of the run, if it has one")
    keep.add_argument("--fallback", action="store_true", help="with --resume: where that is damaged, the one before")
    keep.add_argument("--save-every", type=int, default=defaults.save_every, help="steps from one state to the next")
    keep.add_argument("--log-every", type=int, default=defaults.log_every, help="steps of a line of the log")
    keep.add_argument("--sample-every", type=int, default=0, help="steps between pictures of samples, 0 none")
    keep.add_argument("--samples", type=int, default=defaults.samples, help="samples in a picture")
    keep.add_argument("--quiet", action="store_true", help="no progress bar")


def run(options: argparse.Namespace) -> int:
    out: Path = options.out
    check_writable(out, "digits.safetensors")
    folder = options.folder or out.with_suffix(".run")
    if folder == out:
        raise ValueError(f"--out and the run's folder are both {out}; give another --run")
    if options.fallback and not options.resume:
        raise ValueError("--fallback is for going on with a run; add --resume, or leave it out")
    config = _config(options)
    rank, _ = rank_and_size()
    if options.threads is not None:
        if options.threads < 1:
            raise ValueError(f"--threads must be at least 1, got {options.threads}")
        torch.set_num_threads(options.threads)
    source = _source(options)
    sigmas = geometric_sigmas(options.sigma_1, options.sigma_L, options.levels)
    mean, std = _moments(source, config)
    network = ConvConfig(
        channels=source.shape[0],
        widths=tuple(options.widths),
        patch=options.patch,
        blocks=options.blocks,
        mean=mean,
        std=std,
    )
    places = Places(
        folder=folder,
        resume=options.resume,
        fallback=options.fallback,
        workers=options.workers,
        device=options.device,
        progress=not options.quiet,
        sampling=_sampling(config),
    )
    started = time.monotonic()
    net = train(lambda: ConvScore(sigmas, network), source, config, places)
    seconds = time.monotonic() - started
    if rank:
        return 0
    # A run that is resumed keeps the rule of its averages.
    rule = json.loads(read_regular(folder / "config.json", 2**23))["config"]["ema_rule"]
    net.save_pretrained(out, metadata=_metadata(source, dataclasses.replace(config, ema_rule=rule)))
    weights = sum(parameter.numel() for parameter in net.parameters())
    with open_regular(out) as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    print(
        f"trained {weights} weights for {config.steps} steps in {seconds:.0f} s; saved {out} "
        f"({out.stat().st_size} bytes, SHA-256 {digest}), the run in {places.folder}"
    )
    return 0


def _config(options: argparse.Namespace) -> TrainConfig:
    names = {field.name for field in dataclasses.fields(TrainConfig)} - {"augment"}
    given = {name: value for name, value in vars(options).items() if name in names}
    return TrainConfig(**given, augment=Augment(flip=options.flip, logit=options.logit))


def _source(options: argparse.Namespace) -> Source:
    source = sources.open_named(options)
    if len(source.shape) != 3:
        raise ValueError(f"--data must be images (C, H, W), got samples of shape {source.shape}")
    return source


def _moments(source: Source, config: TrainConfig) -> tuple[float, float]:
    """Mean and standard deviation of the data as the network sees them, to two decimals."""
    count = min(len(source), MEASURED)
    values = config.augment(source.take(range(count)), greys=source.greys, seed=config.seed)
    return round(values.mean().item(), 2), round(values.std().item(), 2)


def _sampling(config: TrainConfig) -> dict[str, Any]:
    """The recommended sampling. Logits spread over the whole line, so they do not start from U(0, 1)."""
    return SAMPLING if config.augment.logit is None else {**SAMPLING, "init": "normal"}


def _metadata(source: Source, config: TrainConfig) -> dict[str, Any]:
    """The metadata of the file, without date or machine name, so that the same run gives the same file."""
    return {
        "data": {
            "name": source.name,
            "shape": list(source.shape),
            "range": [0.0, 1.0],
            "images": len(source),
            "dequantisation": f"(v + u) / {source.greys}, v = 0 .. {source.greys - 1}, u uniform on (0, 1)"
            if source.greys
            else "none",
            # Samples of the network are logits; those that are written have gone back into the range.
            **({} if config.augment.logit is None else {"logit": config.augment.logit}),
        },
        "training": {
            **config.fixed(),
            "torch": torch.__version__,
            "threads": torch.get_num_threads(),
        },
        "sampling": _sampling(config),
    }
