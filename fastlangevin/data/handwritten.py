"""The handwritten digits that ship with scikit-learn (Alpaydin and Kaynak 1998), 1,797 of 8x8 pixels."""

from __future__ import annotations

from typing import Literal

import torch

from fastlangevin.data.order import permutation
from fastlangevin.data.source import Images

__all__ = ["digits"]

DIGITS_TRAIN = 1497
DIGITS_SPLIT_SEED = 0
DIGITS_GREYS = 17


def digits(split: Literal["train", "heldout", "all"] = "train") -> Images:
    """The digits as fp32 ``(N, 1, 8, 8)``, pixel value / 16, with their classes 0 to 9.

    Args:
        split: ``"train"`` (1,497 images), ``"heldout"`` (the other 300) or ``"all"``. The split never changes.

    Returns:
        The source, images ``(1, 8, 8)``.

    Raises:
        ValueError: ``split`` is not known.
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
    images = torch.tensor(raw.images, dtype=torch.float32, device="cpu")[:, None] / (DIGITS_GREYS - 1)
    classes = torch.tensor(raw.target, dtype=torch.int64, device="cpu")
    order = permutation(images.shape[0], seed=DIGITS_SPLIT_SEED, draw=2**32 - 1)
    part = {
        "train": order[:DIGITS_TRAIN],
        "heldout": order[DIGITS_TRAIN:],
        "all": torch.arange(len(order), dtype=torch.int64, device="cpu"),
    }[split]
    return Images(images[part], classes[part], DIGITS_GREYS, "digits")
