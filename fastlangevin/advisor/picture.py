"""The picture of a plan: its ladder, the overlap of neighbouring levels, the variance ratio against the step size."""

from __future__ import annotations

import io
import math
import os
from typing import Any

import torch

from fastlangevin.advisor.spacing import overlap
from fastlangevin.advisor.step_size import variance_ratio
from fastlangevin.storage.files import write_whole

__all__ = ["draw_plan", "require_matplotlib"]

POINTS = 400


def require_matplotlib() -> Any:
    """``matplotlib.figure.Figure``, or an ImportError that says how to get it."""
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise ImportError(
            'pictures of plans need matplotlib, which is not installed; pip install "fastlangevin[train]"'
        ) from error
    return Figure


def draw_plan(
    path: str | os.PathLike[str], sigmas: list[float], D: int, *, steps_per_level: int, chosen: tuple[float, float]
) -> None:
    """Write the picture of a geometric ladder.

    Args:
        path: of the PNG file.
        sigmas: the ladder, at least two levels.
        D: elements of a sample.
        steps_per_level: T.
        chosen: step_lr, and the R that it has.
    """
    figure = require_matplotlib()(figsize=(12, 3.6), layout="constrained")
    left, middle, right = figure.subplots(1, 3)
    gamma = (sigmas[0] / sigmas[-1]) ** (1 / (len(sigmas) - 1))
    left.plot(range(len(sigmas)), sigmas, marker="." if len(sigmas) <= 50 else None)
    left.set(title=f"{len(sigmas)} levels, gamma = {gamma:.5g}", xlabel="level (0 = largest sigma)", ylabel="sigma")
    left.set(yscale="log")
    _draw_overlap(middle, gamma, D)
    _draw_ratio(right, gamma, sigmas[-1], steps_per_level, chosen)
    picture = io.BytesIO()
    figure.savefig(picture, format="png", dpi=100, metadata={"Software": None})
    write_whole(path, picture.getvalue())


def _draw_overlap(axes: Any, gamma: float, D: int) -> None:
    """Draws the distances r of samples of two neighbouring levels from a single point, in units of sigma_(i+1)."""
    centre, spread = math.sqrt(D), math.sqrt(0.5)
    low, high = (centre - 3 * spread) * gamma, (centre + 3 * spread) * gamma
    ends = min(low, centre - 4 * spread), max(high, centre + 4 * spread) + spread
    r = torch.linspace(*ends, POINTS, dtype=torch.float32, device="cpu")
    lower = torch.exp(-((r - centre) ** 2)) / math.sqrt(math.pi)
    upper = torch.exp(-((r / gamma - centre) ** 2)) / (math.sqrt(math.pi) * gamma)
    inside = (r >= low) & (r <= high)
    axes.plot(r, upper, color="tab:orange", label="level i")
    axes.axvspan(low, high, color="tab:orange", alpha=0.1, label="its mean and 3 deviations")
    axes.plot(r, lower, color="tab:blue", label="level i + 1")
    axes.fill_between(r, lower, where=inside, color="tab:blue", alpha=0.3)
    axes.set(
        title=f"overlap C = {overlap(gamma, D):.3f} (blue area)", xlabel="distance from the data / sigma of level i + 1"
    )
    axes.set(ylabel="density", ylim=(0, 0.9))  # the peak of level i + 1 is 0.56, and the legend stands above it
    axes.legend(loc="upper right")


def _draw_ratio(axes: Any, gamma: float, sigma_L: float, steps_per_level: int, chosen: tuple[float, float]) -> None:
    """R - 1 against step_lr, from far below the chosen step to where the chain is not stable."""
    stable = 2 * sigma_L**2
    first, last = math.log(min(chosen[0], 0.1 * stable) / 30), math.log(0.99 * stable)
    steps = torch.exp(torch.linspace(first, last, POINTS, dtype=torch.float64, device="cpu")).tolist()
    ratios = [
        variance_ratio(gamma, sigma_L=sigma_L, steps_per_level=steps_per_level, step_lr=step) - 1 for step in steps
    ]
    axes.plot(steps, ratios, color="tab:green")
    axes.plot(chosen[0], chosen[1] - 1, "o", color="tab:red", label=f"step_lr = {chosen[0]:.3g}, R = {chosen[1]:.4f}")
    axes.set(title=f"variance ratio, T = {steps_per_level}", xlabel="step_lr (epsilon / 2)", ylabel="R - 1")
    axes.set(xscale="log", yscale="log")
    axes.legend()
