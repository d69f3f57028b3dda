"""The well-formed calls of what stands in for NCSN's and NCSNv2's functions."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor

from fastlangevin.compat import ncsn, ncsnv2

LADDER = [1.0, 0.5]


def numbers(*shape: int) -> Tensor:
    return torch.linspace(0.1, 0.9, torch.Size(shape).numel()).reshape(shape)


def _with(**options: Any) -> Callable[[Path], dict[str, Any]]:
    return lambda folder: {name: each() if name in MADE else each for name, each in options.items()}


# What a call could change is made anew for each.
MADE = ("x_mod", "refer_image", "samples", "init", "labels")
START = {"x_mod": lambda: numbers(2, 3, 4), "scorenet": lambda x, labels: -x, "step_lr": 1e-3, "seed": 0}
ANNEALED = {**START, "sigmas": LADDER, "n_steps_each": 2}
INPAINTED = {**ANNEALED, "refer_image": lambda: numbers(2, 3, 4)}
DATA = {"samples": lambda: numbers(2, 3), "seed": 0}
LABELLED = {**DATA, "scorenet": lambda x, labels: -x, "sigmas": LADDER, "labels": lambda: torch.tensor([0, 1])}


def _energy(x: Tensor) -> Tensor:
    return x.square().sum(1)


def config(**changes: Any) -> SimpleNamespace:
    model = {"sigma_dist": "geometric", "sigma_begin": 1.0, "sigma_end": 0.1, "num_classes": 3, **changes}
    return SimpleNamespace(device="cpu", model=SimpleNamespace(**model))


NCSN_CALLS: dict[str, tuple[Callable[..., Any], Callable[[Path], dict[str, Any]]]] = {
    "ncsn.anneal_Langevin_dynamics": (ncsn.anneal_Langevin_dynamics, _with(**ANNEALED)),
    "ncsn.Langevin_dynamics": (ncsn.Langevin_dynamics, _with(**START, n_steps=2)),
    "ncsn.baseline_Langevin_dynamics": (
        ncsn.baseline_Langevin_dynamics,
        _with(**{**START, "scorenet": lambda x: -x}, n_steps=2),
    ),
    "ncsn.anneal_Langevin_dynamics_inpainting": (ncsn.anneal_Langevin_dynamics_inpainting, _with(**INPAINTED)),
    "ncsn.toy_langevin_dynamics": (
        ncsn.toy_langevin_dynamics,
        _with(score=lambda x: -x, init=lambda: numbers(2, 3), step=2, seed=0),
    ),
    "ncsn.toy_anneal_langevin_dynamics": (
        ncsn.toy_anneal_langevin_dynamics,
        _with(score=lambda x, sigma: -x, init=lambda: numbers(2, 3), sigmas=LADDER, n_steps_each=2, seed=0),
    ),
    "ncsn.dsm": (ncsn.dsm, _with(**DATA, energy_net=_energy)),
    "ncsn.dsm_score_estimation": (ncsn.dsm_score_estimation, _with(**DATA, scorenet=lambda x: -x)),
    "ncsn.anneal_dsm_score_estimation": (ncsn.anneal_dsm_score_estimation, _with(**LABELLED)),
    "ncsn.single_sliced_score_matching": (ncsn.single_sliced_score_matching, _with(**DATA, energy_net=_energy)),
    "ncsn.partial_sliced_score_matching": (ncsn.partial_sliced_score_matching, _with(**DATA, energy_net=_energy)),
    "ncsn.sliced_score_matching": (ncsn.sliced_score_matching, _with(**DATA, energy_net=_energy)),
    "ncsn.sliced_score_matching_vr": (ncsn.sliced_score_matching_vr, _with(**DATA, energy_net=_energy)),
    "ncsn.sliced_score_estimation": (ncsn.sliced_score_estimation, _with(**DATA, score_net=lambda x: -x)),
    "ncsn.sliced_score_estimation_vr": (ncsn.sliced_score_estimation_vr, _with(**DATA, score_net=lambda x: -x)),
    "ncsn.anneal_sliced_score_estimation_vr": (ncsn.anneal_sliced_score_estimation_vr, _with(**LABELLED)),
    "ncsnv2.anneal_Langevin_dynamics": (ncsnv2.anneal_Langevin_dynamics, _with(**ANNEALED)),
    "ncsnv2.anneal_Langevin_dynamics_inpainting": (
        ncsnv2.anneal_Langevin_dynamics_inpainting,
        _with(**INPAINTED, image_size=4),
    ),
    "ncsnv2.anneal_Langevin_dynamics_interpolation": (
        ncsnv2.anneal_Langevin_dynamics_interpolation,
        _with(**ANNEALED, n_interpolations=2),
    ),
    "ncsnv2.get_sigmas": (ncsnv2.get_sigmas, lambda folder: {"config": config()}),
    "ncsnv2.anneal_dsm_score_estimation": (ncsnv2.anneal_dsm_score_estimation, _with(**LABELLED)),
}
