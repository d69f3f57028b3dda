"""Training data: the handwritten digits that ship with scikit-learn (Alpaydin and Kaynak 1998), 1,797 of 8x8 pixels.

Which images are held out, the order of training and the dequantisation noise are addressed like all other randomness.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from fastlangevin import ops
from fastlangevin.noise import Purpose, Seed

__all__ = ["Images", "batch_indices", "dequantise", "digits"]

DIGITS_TRAIN = 1497
DIGITS_SPLIT_SEED = 0
DIGITS_GREYS = 17


@dataclass(frozen=True)
class Images:
    """A set of images.

    Attributes:
        images: fp32 ``(N, C, H, W)`` in [0, 1].
        classes: int64 ``(N,)``.
        greys: number of different values a pixel can have.
    """

    images: Tensor
    classes: Tensor
    greys: int


def digits(split: Literal["train", "heldout", "all"] = "train") -> Images:
    """The digits as fp32 ``(N, 1, 8, 8)``, pixel value / 16, with their classes 0 to 9.

    Args:
        split: ``"train"`` (1,497 images), ``"heldout"`` (the other 300) or ``"all"``. The split never changes.
    """
    if split not in ("train", "heldout", "all"):
        raise ValueError(f"split must be 'train', 'heldout' or 'all', got {split!r}")
    try:
        from sklearn.datasets import load_digits
    except ImportError as error:
        raise ImportError(
            'the digits come with scikit-learn, which is not installed; pip install "fastlangevin[train]"'
        ) from error
    raw = load_digits()
    images = torch.tensor(raw.images, dtype=torch.float32)[:, None] / (DIGITS_GREYS - 1)
    classes = torch.tensor(raw.target, dtype=torch.int64)
    order = _permutation(images.shape[0], seed=DIGITS_SPLIT_SEED, draw=2**32 - 1)
    part = {"train": order[:DIGITS_TRAIN], "heldout": order[DIGITS_TRAIN:], "all": torch.arange(len(order))}[split]
    return Images(images[part], classes[part], DIGITS_GREYS)


def batch_indices(step: int, batch: int, size: int, *, seed: Seed) -> Tensor:
    """Which images a training step sees: the epochs in a row, each in an order of its own, cut into batches.

    Args:
        step: training step from 0.
        batch: images in a step.
        size: images in the set.
        seed: 64-bit seed of the run.

    Returns:
        int64 ``(batch,)``. A function of the arguments alone: a resumed run needs no other state.
    """
    positions = range(step * batch, (step + 1) * batch)
    parts = []
    for epoch in range(positions[0] // size, positions[-1] // size + 1):
        first, last = max(positions[0] - epoch * size, 0), min(positions[-1] + 1 - epoch * size, size)
        parts.append(_permutation(size, seed=seed, draw=epoch)[first:last])
    return torch.cat(parts)


def dequantise(
    images: Tensor, greys: int, *, seed: Seed, step: int = 0, sample_ids: Tensor | Sequence[int] | None = None
) -> Tensor:
    """Spreads each grey value evenly over its bin: (v + u) / greys for v = 0 .. greys - 1 and u uniform on (0, 1).

    Without it the data lie on a grid, and the score of small noise levels is that of the grid (Uria, Murray and
    Larochelle 2013).

    Args:
        images: fp32 ``(B, *)``, multiples of 1 / (greys - 1) in [0, 1].
        greys: number of different values a pixel can have.
        seed: 64-bit seed of the run.
        step: training step, the draw number of the address.
        sample_ids: ids of the samples, default 0 .. B-1.

    Returns:
        fp32 ``(B, *)`` in (0, 1).
    """
    uniform = ops.rand(
        tuple(images.shape),
        seed=seed,
        draw=step,
        purpose=Purpose.AUGMENTATION,
        sample_ids=sample_ids,
        device=images.device,
    )
    return (images * (greys - 1) + uniform) / greys


def _permutation(size: int, *, seed: Seed, draw: int) -> Tensor:
    # The keys have 2^23 values, so equal ones do occur: the sort must be stable.
    keys = ops.rand((size, 1), seed=seed, draw=draw, purpose=Purpose.DATA_ORDER)
    return torch.argsort(keys[:, 0], stable=True)
