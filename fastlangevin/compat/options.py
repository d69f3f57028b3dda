"""Keyword arguments of the stand-ins for ncsn and ncsnv2, beside those that were published."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from fastlangevin.noise import SampleOptions
from fastlangevin.samplers.options import DEFAULTS, RunOptions

__all__ = ["KEPT", "OBJECTIVE", "LadderListOptions", "ObjectiveOptions", "StrictLadderListOptions", "StrictListOptions"]


class ListOptions(RunOptions, total=False):
    """Keyword arguments of samplers that return lists, beside those of :class:`fastlangevin.samplers.RunOptions`.

    Attributes:
        keep_every: the list holds the states after so many updates each, and the last. With 1, the published number, it
            takes as many times the memory of a state as there are updates.
    """

    keep_every: int


class LadderListOptions(ListOptions, total=False):
    """Those of samplers on a ladder, beside those of :class:`ListOptions`.

    Attributes:
        strict_ladder: refuse another ladder than the network was built with, where it has that as ``sigmas``.
    """

    strict_ladder: bool


class StrictListOptions(ListOptions, total=False):
    """Those of samplers whose published list is of states before the updates, beside those of :class:`ListOptions`.

    Attributes:
        strict: the list as published: the states before each update, without the final one.
    """

    strict: bool


class StrictLadderListOptions(StrictListOptions, total=False):
    """Those of such samplers on a ladder, beside those of :class:`StrictListOptions`.

    Attributes:
        strict_ladder: as for :class:`LadderListOptions`.
    """

    strict_ladder: bool


class ObjectiveOptions(SampleOptions, total=False):
    """Keyword arguments of objectives, beside those of :class:`fastlangevin.noise.SampleOptions`.

    Attributes:
        step: training step. With a fixed seed it must change from step to step.
    """

    step: int | Tensor


KEPT: dict[str, Any] = {**DEFAULTS, "keep_every": 1, "strict": False}
OBJECTIVE: dict[str, Any] = {**DEFAULTS, "step": 0}
