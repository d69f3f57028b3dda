"""What a checkpoint says of its data and of its sampling, which may have been written by hand, and is checked."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from fastlangevin.data import Augment
from fastlangevin.values import is_integer, is_number, shown

__all__ = ["augment_of", "part_of", "sampling_of", "shape_of"]

WHERE = "metadata of the checkpoint"
AGAIN = "write the checkpoint again"


def part_of(described: Mapping[str, Any], name: str, where: str) -> Mapping[str, Any]:
    """A part of a description, empty if it is not there.

    Args:
        described: the description.
        name: of the part.
        where: what the description is, for the message: "metadata of the checkpoint".

    Raises:
        ValueError: it is not made of names and values.
    """
    found = described.get(name)
    if found is None:
        return {}
    if not isinstance(found, Mapping):
        raise ValueError(f"{name!r} in the {where} must be a dictionary, got {shown(found)}; {AGAIN}")
    return found


def shape_of(metadata: Mapping[str, Any]) -> tuple[int, int, int]:
    """The shape of a sample, ``(C, H, W)``, by ``metadata['data']['shape']``."""
    shape = part_of(metadata, "data", WHERE).get("shape")
    if shape is None:
        raise ValueError(
            "the checkpoint does not say the shape of a sample; write it again with metadata['data']['shape']"
        )
    if not isinstance(shape, list | tuple) or not all(type(size) is int and size > 0 for size in shape):
        raise ValueError(f"'shape' in the 'data' of the {WHERE} must be positive integers, got {shown(shape)}; {AGAIN}")
    if len(shape) != 3 or shape[0] not in (1, 3):
        raise ValueError(
            f"samples of shape {shown(tuple(shape))} are not pictures, (1, H, W) or (3, H, W); draw them in Python "
            "with fastlangevin.annealed_langevin"
        )
    channels, height, width = shape
    return channels, height, width


def sampling_of(metadata: Mapping[str, Any]) -> dict[str, Any]:
    """The recommended step size, updates a level and start, as far as they are there, by ``metadata['sampling']``."""
    advice = part_of(metadata, "sampling", WHERE)
    for name, fits, what in (
        ("epsilon", is_number, "a number"),
        ("steps_per_level", is_integer, "an integer"),
        ("init", ("uniform", "normal").__contains__, "'uniform' or 'normal'"),
    ):
        value = advice.get(name)
        if value is not None and not (value.__hash__ and fits(value)):
            raise ValueError(f"{name!r} in the 'sampling' of the {WHERE} must be {what}, got {shown(value)}; {AGAIN}")
    return {name: advice.get(name) for name in ("epsilon", "steps_per_level", "init")}


def augment_of(metadata: Mapping[str, Any]) -> Augment:
    """What was done to the network's data, as far as it is undone to samples: the logit transform."""
    alpha = part_of(metadata, "data", WHERE).get("logit")
    if alpha is None:  # where checkpoints had it before data.logit
        alpha = part_of(part_of(metadata, "training", WHERE), "augment", WHERE).get("logit")
    try:
        return Augment(logit=alpha)
    except (TypeError, ValueError) as error:
        raise ValueError(f"'logit' in the {WHERE}: {error}; {AGAIN}") from error
