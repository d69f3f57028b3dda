"""The well-formed calls of mixtures."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

import fastlangevin as fl

MIXTURE = fl.GaussianMixture([0.25, 0.75], [[-1.0, 0.0], [1.0, 0.0]], [0.5, 0.25])


def _states(folder: Path) -> dict[str, Any]:
    return {"x": torch.zeros(3, 2), "sigma": 0.5}


def _scored(folder: Path) -> dict[str, Any]:
    return {"x": torch.zeros(3, 2), "labels": torch.tensor([0, 1, 0])}


def _sampled(folder: Path) -> dict[str, Any]:
    return {"sigmas": [1.0, 0.5], "shape": (4, 2), "epsilon": 0.01, "steps_per_level": 2, "seed": 0}


MIXTURE_CALLS: dict[str, tuple[Callable[..., Any], Callable[[Path], dict[str, Any]]]] = {
    "GaussianMixture": (
        fl.GaussianMixture,
        lambda folder: {"weights": [0.25, 0.75], "means": [[-1.0, 0.0], [1.0, 0.0]], "variances": [0.5, 0.25]},
    ),
    "GaussianMixture.score": (MIXTURE.score, _states),
    "GaussianMixture.log_prob": (MIXTURE.log_prob, _states),
    "GaussianMixture.sample": (MIXTURE.sample, lambda folder: {"n": 3, "seed": 0}),
    "GaussianMixture.perturbed": (MIXTURE.perturbed, lambda folder: {"sigmas": [1.0, 0.5]}),
    "PerturbedMixture": (MIXTURE.perturbed([1.0, 0.5]), _scored),
    "annealed_langevin on a mixture": (lambda **options: fl.annealed_langevin(MIXTURE, **options), _sampled),
    "langevin on a mixture": (
        lambda **options: fl.langevin(MIXTURE, **options),
        lambda folder: {"init": torch.zeros(3, 2), "steps": 2, "epsilon": 0.1, "seed": 0},
    ),
}
