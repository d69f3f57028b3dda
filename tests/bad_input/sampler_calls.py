"""The well-formed calls of the samplers made of other rules."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

import fastlangevin as fl

LADDER = [1.0, 0.5, 0.25]


def score(x: Tensor, labels: Tensor) -> Tensor:
    return -x


def _with(**options: Any) -> Callable[[Path], dict[str, Any]]:
    return lambda folder: {"score": score, "sigmas": list(LADDER), "shape": (2, 3), "seed": 1, **options}


SAMPLER_CALLS: dict[str, tuple[Callable[..., Any], Callable[[Path], dict[str, Any]]]] = {
    "consistent_annealed": (fl.consistent_annealed, _with(epsilon=0.09)),
    "predictor_corrector": (fl.predictor_corrector, _with(snr=0.1)),
    "interpolation": (fl.interpolation, _with(points=2, epsilon=0.01, steps_per_level=1)),
    "Inpainting": (fl.Inpainting, lambda folder: {"mask": torch.ones(3, dtype=torch.bool), "known": torch.zeros(3)}),
    "inpainted": (
        lambda mask, known, **options: fl.annealed_langevin(inpainting=fl.Inpainting(mask, known), **options),
        _with(epsilon=0.01, steps_per_level=1, mask=torch.ones(3, dtype=torch.bool), known=torch.zeros(2, 3)),
    ),
}
