"""Pictures of samples: grids and strips as PNG files."""

from __future__ import annotations

import io
import math
import os
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from fastlangevin.storage.files import write_whole

__all__ = ["grid", "save_png", "strip"]

Image = npt.NDArray[np.uint8]
FRAME = 255
SMALLEST_SIDE = 48


def _tiles(images: Tensor) -> Image:
    """Images in [0, 1] as uint8 ``(N, H, W, C)``, small ones enlarged without smoothing. NaN becomes black."""
    if images.ndim != 4 or images.shape[1] not in (1, 3):
        raise ValueError(f"images must be (N, 1, H, W) or (N, 3, H, W), got shape {tuple(images.shape)}")
    pixels = images.detach().float().nan_to_num(0.0).clamp(0, 1).mul(255).round().to(torch.uint8)
    array: Image = pixels.permute(0, 2, 3, 1).cpu().numpy()
    scale = max(1, -(-SMALLEST_SIDE // max(array.shape[1:3])))
    return array.repeat(scale, axis=1).repeat(scale, axis=2)


def _assemble(tiles: Image, rows: int, columns: int, gap: int) -> Image:
    count, height, width, channels = tiles.shape
    canvas: Image = np.full(
        (rows * (height + gap) + gap, columns * (width + gap) + gap, channels), FRAME, dtype=np.uint8
    )
    for index in range(count):
        row, column = divmod(index, columns)
        top, left = gap + row * (height + gap), gap + column * (width + gap)
        canvas[top : top + height, left : left + width] = tiles[index]
    return canvas


def grid(images: Tensor, *, columns: int | None = None, gap: int = 4) -> Image:
    """A grid of images, row by row.

    Args:
        images: ``(N, 1, H, W)`` or ``(N, 3, H, W)`` with values in [0, 1]; others are clamped.
        columns: by default about the square root of N.
        gap: white pixels between images.

    Returns:
        uint8 array ``(height, width, channels)``.
    """
    tiles = _tiles(images)
    columns = columns or max(1, math.ceil(math.sqrt(len(tiles))))
    return _assemble(tiles, max(1, -(-len(tiles) // columns)), columns, gap)


def strip(trajectory: Tensor, *, samples: int = 8, frames: int = 11, gap: int = 4) -> Image:
    """The annealing of a few samples: a row for each, time from left to right.

    Args:
        trajectory: ``(F, N, C, H, W)``; the frames shown are spread evenly, first and last included.
        samples: rows, at most.
        frames: columns, at most.
        gap: white pixels between images.

    Returns:
        uint8 array ``(height, width, channels)``.

    Raises:
        ValueError: ``trajectory`` is of another shape.
    """
    if trajectory.ndim != 5:
        raise ValueError(f"trajectory must be (F, N, C, H, W), got shape {tuple(trajectory.shape)}")
    count = min(frames, trajectory.shape[0])
    chosen = torch.linspace(0, trajectory.shape[0] - 1, count, dtype=torch.float32, device="cpu").round().long()
    picked = trajectory[chosen.to(trajectory.device), :samples].transpose(0, 1)
    return grid(picked.flatten(0, 1), columns=count, gap=gap)


def save_png(path: str | os.PathLike[str], picture: Image, text: dict[str, Any] | None = None) -> None:
    """Write a picture, whole or not at all.

    Args:
        path: of the PNG file; its folder must exist.
        picture: uint8 ``(height, width, 1 or 3)``.
        text: notes for the file, such as the seed, kept as PNG text chunks.
    """
    from PIL import Image as Pillow
    from PIL.PngImagePlugin import PngInfo

    notes = PngInfo()
    for key, value in (text or {}).items():
        notes.add_text(key, str(value))
    image = Pillow.fromarray(picture[:, :, 0] if picture.shape[2] == 1 else picture)
    encoded = io.BytesIO()
    image.save(encoded, format="PNG", pnginfo=notes)
    write_whole(path, encoded.getvalue())
