"""The well-formed calls of ladders and of what chooses one, for the table of well-formed calls."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from data_calls import quarters

import fastlangevin as fl
from fastlangevin import advisor


def _ends(folder: Path) -> dict[str, Any]:
    return {"sigma_1": 1.0, "sigma_L": 0.1, "levels": 3}


def _measured(folder: Path) -> dict[str, Any]:
    return {"dataset": quarters(6, 7)}


PLAN_CALLS: dict[str, tuple[Callable[..., Any], Callable[[Path], dict[str, Any]]]] = {
    "geometric_sigmas": (fl.geometric_sigmas, _ends),
    "linear_sigmas": (fl.linear_sigmas, _ends),
    "karras_sigmas": (fl.karras_sigmas, _ends),
    "continuous_ve_sigmas": (
        fl.continuous_ve_sigmas,
        lambda folder: {"sigma_min": 0.1, "sigma_max": 1.0, "levels": 3},
    ),
    "overlap": (advisor.overlap, lambda folder: {"gamma": 1.1, "D": 64}),
    "ratio_for_overlap": (advisor.ratio_for_overlap, lambda folder: {"D": 64}),
    "levels_for": (advisor.levels_for, lambda folder: {"sigma_1": 1.0, "sigma_L": 0.1, "D": 64}),
    "variance_ratio": (
        advisor.variance_ratio,
        lambda folder: {"ladder": 1.1, "sigma_L": 0.1, "steps_per_level": 3, "step_lr": 1e-3},
    ),
    "step_size_for": (
        advisor.step_size_for,
        lambda folder: {"ladder": 1.1, "sigma_L": 0.1, "steps_per_level": 3},
    ),
    "final_variance_ratio": (
        advisor.final_variance_ratio,
        lambda folder: {"sigmas": [1.0, 0.5], "steps_per_level": 3, "epsilon": 1e-3},
    ),
    "largest_distance": (advisor.largest_distance, _measured),
    "plan": (fl.plan, lambda folder: {**_measured(folder), "budget": 100}),
    "plan without data": (fl.plan, lambda folder: {"sigma_1": 1.0, "shape": (7,), "budget": 100}),
}
