"""Trajectories for ArviZ."""

from __future__ import annotations

import warnings
from typing import Any

import torch
from torch import Tensor

from fastlangevin.diagnostics.elements import check_trajectory

__all__ = ["to_arviz"]


def to_arviz(trajectory: Tensor, *, name: str = "x") -> Any:
    """A trajectory as ArviZ takes it, for its plots and tables.

    Args:
        trajectory: ``(F, B, ...)``; it is copied. bfloat16, which NumPy does not have, becomes float32.
        name: of the variable.

    Returns:
        What the installed ArviZ works with, an ``arviz.InferenceData`` before its version 1 and an
        ``xarray.DataTree`` from there on: a group ``posterior`` with one variable of dimensions (chain, draw, ...),
        frames being the draws.

    Raises:
        ImportError: ArviZ is not installed.
        TypeError, ValueError: the trajectory is no float tensor or has too few frames, or the name is no text.
    """
    checked = check_trajectory(trajectory)
    if not isinstance(name, str) or not name:
        raise TypeError(f"name must be a text such as 'x', got {name!r}")
    try:
        import arviz
    except ImportError as error:
        raise ImportError("to_arviz needs ArviZ, which is not installed; pip install arviz") from error
    draws = checked.transpose(0, 1).to("cpu", torch.float32 if checked.dtype == torch.bfloat16 else checked.dtype)
    posterior = {name: draws.clone(memory_format=torch.contiguous_format).numpy()}
    # ArviZ takes many chains of few draws for an array with its dimensions swapped, and says so.
    if int(arviz.__version__.partition(".")[0]) >= 1:
        return arviz.from_dict({"posterior": posterior}, check_conventions=False)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="More chains")
        return arviz.from_dict(posterior=posterior)
