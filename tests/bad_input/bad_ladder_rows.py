"""Bad ladders, given to everything that takes one."""

from __future__ import annotations

from typing import Any

import torch
from bad_call_row import INF, NAN, Row


def _sigmas(name: str, value: Any, error: type[Exception], *says: str) -> list[Row]:
    """A bad ladder is refused alike by everything that takes one."""
    calls = ("annealed_langevin", "adapt", "dsm_loss", "MLP", "final_variance_ratio")
    return [Row(f"{name} ladder", call, lambda k: {"sigmas": value}, error, ("sigmas", *says)) for call in calls]


LADDERS = [
    *_sigmas("empty", [], ValueError, "at least one"),
    *_sigmas("nested", torch.ones(2, 2), ValueError, "one-dimensional", "flatten()"),
    *_sigmas("unsorted", [1.0, 0.1, 0.5], ValueError, "decrease strictly", "sigmas[1] = 0.1", "0.5"),
    *_sigmas("ascending", [0.1, 0.5, 1.0], ValueError, "decrease strictly", "sigmas.flip(0)"),
    *_sigmas("constant", [0.5, 0.5], ValueError, "decrease strictly", "sigmas[0] = 0.5"),
    *_sigmas("with two equal levels", [1.0, 0.5, 0.5], ValueError, "sigmas[1] = 0.5", "sigmas[2] = 0.5", "leave one"),
    *_sigmas("negative", [1.0, -0.1], ValueError, "sigmas[1]", "above zero", "-0.1"),
    *_sigmas("zero", [1.0, 0.0], ValueError, "sigmas[1]", "above zero", "0.0"),
    *_sigmas("NaN", torch.tensor([1.0, NAN]), ValueError, "sigmas[1]", "finite", "nan"),
    *_sigmas("infinite", [INF, 1.0], ValueError, "sigmas[0]", "finite", "inf"),
    *_sigmas("text", "1.0", TypeError, "ladder", "geometric_sigmas", "'1.0'"),
    *_sigmas("scalar", 1.0, TypeError, "ladder", "geometric_sigmas", "1.0"),
    *_sigmas("words", ["1.0", "0.5"], TypeError, "sigmas[0]", "'1.0'"),
]
