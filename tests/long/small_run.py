"""A small training run for the harnesses that disturb it: 60 steps on stripes, with pictures of samples on the way."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path

import fastlangevin as fl
from fastlangevin.data import Augment, as_source
from fastlangevin.data.source import Source
from fastlangevin.models import ConvConfig, ConvScore
from fastlangevin.training import Places, TrainConfig, train

__all__ = ["CONFIG", "SAMPLING", "STEPS", "build", "content", "go", "images", "newest"]

STEPS = 60
CONFIG = TrainConfig(
    steps=STEPS,
    batch=16,
    lr=5e-3,
    warmup=5,
    seed=3,
    clip=50.0,
    augment=Augment(flip=True),
    log_every=7,
    save_every=10,
    sample_every=15,
    samples=4,
)
SAMPLING = {"epsilon": 2e-4, "steps_per_level": 5, "denoise": True}


def build() -> ConvScore:
    return ConvScore(fl.geometric_sigmas(1.0, 0.1, 4), ConvConfig(widths=(8,), mean=0.3, std=0.4))


def images() -> Source:
    rows = (fl.rand((64, 1, 4, 1), seed=1) > 0.5).float()
    return as_source(rows.expand(-1, -1, -1, 4).contiguous(), name="stripes", greys=2)


def go(folder: Path, *, callback: Callable[[int, float], object] | None = None) -> None:
    """Begins the run of a folder, or goes on with it."""
    train(build, images(), CONFIG, Places(folder, resume=True, sampling=SAMPLING, device="cpu"), callback=callback)


def content(folder: Path) -> dict[str, str]:
    """What a run left behind: the digest of each of its files but TensorBoard's."""
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in folder.iterdir() if path.is_file()}


def newest(folder: Path) -> str:
    """The name of a run's last state."""
    return max(name for name in content(folder) if name.startswith("state"))
