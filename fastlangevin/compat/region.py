"""The region that the published inpainting knows: the left half of one picture, for many samples."""

from __future__ import annotations

from typing import Any, Literal

import torch
from torch import Tensor

from fastlangevin.ops.arguments import floating, same_place
from fastlangevin.samplers import Inpainting

__all__ = ["known_region"]


def known_region(
    x_mod: Any, refer_image: Any, mask: Tensor | None, columns: int | None, noise: Literal["level_start", "step"]
) -> tuple[Tensor, Inpainting]:
    """The states ``(B, ...)`` to begin with, and what is known of them.

    Args:
        x_mod: initial states ``(B, ...)``; or ``(R, K, C, H, W)``, K for each of the R images of ``refer_image``.
        refer_image: the data, ``(B, ...)`` or what broadcasts to it; or ``(R, C, H, W)``, of which one image stands for
            all where K is 1, as published. Fewer dimensions say too little for an ``x_mod`` of five.
        mask: bool, True where it is known; by default the first ``columns`` of the last dimension.
        columns: how many; by default the left half.
        noise: as for :class:`fastlangevin.Inpainting`.
    """
    x, known = floating("x_mod", x_mod), floating("refer_image", refer_image)
    same_place("refer_image", known, x)
    if not x.ndim:
        raise ValueError("x_mod must have a batch dimension, (B, ...), got a tensor without dimensions")
    if x.ndim == 5 and known.ndim < 5:
        images = 1 if x.shape[1] == 1 and known.shape[:1] == (1,) else x.shape[0]
        if known.shape != (images, *x.shape[2:]):
            raise ValueError(
                "refer_image must be the R images, (R, C, H, W), of an x_mod (R, K, C, H, W) with K fills for each of "
                f"them, or have five dimensions as well; got refer_image of shape {tuple(known.shape)} for x_mod of "
                f"shape {tuple(x.shape)}; one image for all is refer_image.expand{(x.shape[0], *x.shape[2:])}"
            )
        known = known[:, None].expand(-1, x.shape[1], -1, -1, -1).flatten(0, 1)
        x = x.flatten(0, 1)
    try:
        known.expand(x.shape)
    except RuntimeError:
        raise ValueError(
            f"refer_image must have the shape of x_mod, {tuple(x.shape)}, or one that broadcasts to it, or be "
            f"(R, C, H, W) for an x_mod (R, K, C, H, W), got {tuple(known.shape)}"
        ) from None
    if mask is None:
        width = x.shape[-1]
        mask = torch.arange(width, dtype=torch.int64, device=x.device) < (width // 2 if columns is None else columns)
    return x, Inpainting(mask, known, noise)
