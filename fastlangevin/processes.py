"""A process's place among those that torchrun started, by the environment variables that it sets."""

from __future__ import annotations

import os

from fastlangevin.values import shown

__all__ = ["MAX_PROCESSES", "local_rank", "rank_and_size", "variable"]

MAX_PROCESSES = 2**31


def variable(name: str, default: int, low: int, high: int, why: str = "") -> int:
    """An environment variable as an integer, or ``default`` if it is not set.

    Args:
        name: of the variable.
        default: its value if it is not set.
        low, high: the range of its values.
        why: what the error says of that range.

    Raises:
        ValueError: it is not an integer from ``low`` to ``high``.
    """
    text = os.environ.get(name)
    if text is None:
        return default
    value = int(text) if text.isascii() and text.isdigit() and len(text) < 20 else low - 1
    if not low <= value <= high:
        raise ValueError(
            f"the environment variable {name} must be an integer from {low} to {high}{why}, got {shown(text)}; "
            "torchrun sets it: start the processes with torchrun, or unset it"
        )
    return value


def rank_and_size(world: int | None = None) -> tuple[int, int]:
    """This process's number and how many there are, from RANK and WORLD_SIZE; 0 of 1 if they are not set.

    Args:
        world: how many there are, in the place of WORLD_SIZE.

    Raises:
        ValueError: a variable is not an integer, or out of range: RANK must be below the number of processes.
    """
    size = variable("WORLD_SIZE", 1, 1, MAX_PROCESSES) if world is None else world
    return variable("RANK", 0, 0, size - 1, " (WORLD_SIZE - 1)"), size


def local_rank() -> int:
    """This process's number on its machine, from LOCAL_RANK; 0 if it is not set.

    Raises:
        ValueError: the variable is not an integer from 0 on.
    """
    return variable("LOCAL_RANK", 0, 0, MAX_PROCESSES - 1)
