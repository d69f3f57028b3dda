"""The well-formed calls of what training data are made of, for the table of well-formed calls."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from fastlangevin import data


def quarters(*shape: int) -> Tensor:
    """Values with five greys."""
    return torch.arange(torch.Size(shape).numel()).reshape(shape) % 5 / 4


def images_in(folder: Path, **sizes: tuple[int, int]) -> Path:
    """A folder of grey images, by name and size."""
    folder.mkdir(exist_ok=True)
    for name, size in sizes.items():
        Image.new("L", size).save(folder / f"{name}.png")
    return folder


def _random(folder: Path) -> dict[str, Any]:
    return {"images": quarters(2, 1, 2, 2), "seed": 0}


def _first(**arguments: Any) -> Tensor:
    return next(iter(data.loader(**arguments)))


DATA_CALLS: dict[str, tuple[Callable[..., Any], Callable[[Path], dict[str, Any]]]] = {
    "Images": (data.Images, lambda folder: {"images": quarters(3, 2)}),
    "as_source": (lambda **k: data.as_source(**k).take([0, 1]), lambda folder: {"dataset": quarters(3, 2)}),
    "Folder": (
        lambda **k: data.Folder(**k).take([0, 1]),
        lambda folder: {"folder": images_in(folder / "images", a=(4, 2), b=(4, 2))},
    ),
    "open_source": (
        data.open_source,
        lambda folder: {"spec": str(images_in(folder / "images", a=(4, 2)))},
    ),
    "AddressedBatches": (
        lambda **k: list(data.AddressedBatches(**k)),
        lambda folder: {"size": 5, "batch": 4, "stop": 3, "seed": 0},
    ),
    "batch_indices": (data.batch_indices, lambda folder: {"step": 0, "batch": 4, "size": 5, "seed": 0}),
    "loader": (
        _first,
        lambda folder: {
            "source": data.Images(quarters(5, 2)),
            "batches": data.AddressedBatches(5, batch=4, stop=3, seed=0),
        },
    ),
    "dequantise": (data.dequantise, lambda folder: {**_random(folder), "greys": 5}),
    "flip": (data.flip, _random),
    "logit": (data.logit, lambda folder: {"v": quarters(2, 3)}),
    "Augment": (data.Augment, lambda folder: {}),
}
