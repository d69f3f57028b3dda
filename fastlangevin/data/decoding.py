"""Converts Pillow images to tensors."""

from __future__ import annotations

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor

__all__ = ["pixels"]


def pixels(image: Image.Image, channels: int, size: int | None) -> Tensor:
    """An image as fp32 ``(channels, H, W)`` in [0, 1], multiples of 1/255.

    Args:
        image: of 8 bits a channel; transparency is dropped, colour profiles are not followed.
        channels: 1 (grey) or 3 (RGB).
        size: cut to a square about the centre and brought to this side, bilinear with antialiasing, as torchvision's
            ``Resize`` and ``CenterCrop`` do; None for as it is.
    """
    if image.mode in ("La", "RGBa"):  # Pillow cannot convert them to grey
        image = image.convert(image.mode.upper())
    elif "transparency" in image.info:
        image = image.convert("RGBA")
    image = image.convert("L" if channels == 1 else "RGB")
    if size is not None and image.size != (size, size):
        image = ImageOps.fit(image, (size, size), Image.Resampling.BILINEAR)
    array = np.array(image, dtype=np.uint8).reshape(image.height, image.width, channels)
    return torch.from_numpy(array).permute(2, 0, 1).contiguous().float() / 255
