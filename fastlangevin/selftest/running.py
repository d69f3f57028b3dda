"""Runs the checks, one after the other, whatever becomes of each."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import torch

from fastlangevin.selftest.checks import CHECKS, Failure

__all__ = ["Outcome", "run"]


class Outcome(NamedTuple):
    """The outcome of a check.

    Attributes:
        name: of the check.
        device: where it ran.
        passed: whether the promise is kept.
        text: what was tried, or what was found.
        seconds: how long it took.
    """

    name: str
    device: str
    passed: bool
    text: str
    seconds: float


def run(devices: Sequence[torch.device]) -> Iterator[Outcome]:
    """The outcome of each check on each device, as it becomes known.

    Args:
        devices: where the checks run; an error of any kind is a check that has not passed.

    Returns:
        An outcome at a time.
    """
    for device in devices:
        for name, check in CHECKS.items():
            started = time.monotonic()
            try:
                passed, text = True, check(device)
            except Failure as failure:
                passed, text = False, str(failure)
            except Exception as error:
                passed, text = False, f"{type(error).__name__}: {error}"
            yield Outcome(name, str(device), passed, text, time.monotonic() - started)
