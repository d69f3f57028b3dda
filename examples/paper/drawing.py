"""Colours that mean the same in every picture, and a canvas."""

from __future__ import annotations

from typing import Any

from matplotlib import colormaps
from matplotlib.colors import ListedColormap
from matplotlib.figure import Figure

DATA = "#555555"
PLAIN = "tab:orange"  # what goes wrong
NOISY = "tab:blue"  # what the paper does about it
OTHER = "tab:green"
# A few steps of colour, which keep the files small.
DENSITY = ListedColormap(colormaps["Oranges"]([0.75 * step / 23 for step in range(24)]))
ERROR = colormaps["viridis"].resampled(24)


def canvas(width: float, height: float) -> Figure:
    """A figure of so many inches, 100 pixels each."""
    return Figure(figsize=(width, height), layout="constrained")


def square(axes: Any, title: str, side: float) -> None:
    """Axes of the square of half side ``side``."""
    axes.set(title=title, xlim=(-side, side), ylim=(-side, side), aspect="equal", xticks=[-5, 0, 5], yticks=[-5, 0, 5])
