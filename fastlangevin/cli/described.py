"""Reads how a checkpoint describes its data and its sampling, and checks it, since a file may hold any JSON there."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from fastlangevin.data import Augment
from fastlangevin.values import shown

__all__ = ["augment_of", "part", "sampling_of", "shape_of"]

_MEND = "write the checkpoint again with net.save_pretrained(path, metadata=...)"


def part(described: Mapping[str, Any], name: str, of: str = "metadata") -> dict[str, Any]:
    """A part of a description, empty if there is none.

    Args:
        described: the description.
        name: of the part.
        of: what the description is called in the message.

    Raises:
        ValueError: it is not a dictionary.
    """
    value = described.get(name, {})
    if not isinstance(value, dict):
        raise _wrong(f"{of}[{name!r}]", "a dictionary", value)
    return value


def shape_of(metadata: Mapping[str, Any]) -> list[int]:
    """The shape of a sample, for pictures.

    Raises:
        ValueError: there is none, or it is not of pictures.
    """
    shape = part(metadata, "data").get("shape")
    if shape is None:
        raise ValueError(
            "the checkpoint does not say the shape of a sample; write it again with metadata['data']['shape']"
        )
    if not isinstance(shape, list | tuple) or not all(type(size) is int and size > 0 for size in shape):
        raise _wrong("metadata['data']['shape']", "a list of positive integers such as [3, 32, 32]", shape)
    if len(shape) != 3 or shape[0] not in (1, 3):
        raise ValueError(
            f"samples of shape {shown(tuple(shape))} are not pictures, (1, H, W) or (3, H, W); draw them in Python "
            "with fastlangevin.annealed_langevin"
        )
    return list(shape)


def sampling_of(metadata: Mapping[str, Any], epsilon: float | None, steps_per_level: int | None) -> dict[str, Any]:
    """Returns how to sample: as the options say, and otherwise as the checkpoint recommends.

    Raises:
        ValueError: neither says it, or what the checkpoint says makes no sense.
    """
    advice = part(metadata, "sampling")
    settings: dict[str, Any] = {
        "epsilon": advice.get("epsilon") if epsilon is None else epsilon,
        "steps_per_level": advice.get("steps_per_level") if steps_per_level is None else steps_per_level,
        "init": advice.get("init") or "uniform",
    }
    for name, kinds, wanted in (("epsilon", (int, float), "a number"), ("steps_per_level", (int,), "an integer")):
        option = f"give --{name.replace('_', '-')}"
        if settings[name] is None:
            raise ValueError(f"the checkpoint names no {name}; {option}")
        if type(settings[name]) not in kinds or settings[name] <= 0:
            given = {"epsilon": epsilon, "steps_per_level": steps_per_level}[name]
            if given is None:
                raise _wrong(f"metadata['sampling'][{name!r}]", f"{wanted} above zero", settings[name], option)
    if settings["init"] not in ("uniform", "normal"):
        raise _wrong("metadata['sampling']['init']", "'uniform' or 'normal'", settings["init"])
    return settings


def augment_of(metadata: Mapping[str, Any]) -> Augment:
    """Returns the transform of the network's data that samples must undo: the logit transform.

    Raises:
        ValueError: its alpha is not one.
    """
    alpha = part(metadata, "data").get("logit")
    if alpha is None:  # where checkpoints had it before data.logit
        alpha = part(part(metadata, "training"), "augment", "metadata['training']").get("logit")
    try:
        return Augment(logit=alpha)
    except (TypeError, ValueError) as error:
        raise ValueError(f"the checkpoint does not say how its data were made: {error}; {_MEND}") from error


def _wrong(name: str, wanted: str, value: Any, mend: str = _MEND) -> ValueError:
    return ValueError(f"{name} of the checkpoint must be {wanted}, got {shown(value)} ({type(value).__name__}); {mend}")
