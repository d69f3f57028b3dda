"""Numbered checkpoints of a run in one folder: the newest, and a few before it in case the newest is damaged."""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from torch import Tensor

from fastlangevin.storage import container
from fastlangevin.storage.container import DamagedError
from fastlangevin.storage.files import sweep
from fastlangevin.values import shown

__all__ = ["Generation", "Generations", "read_numbered"]

logger = logging.getLogger("fastlangevin")

DIGITS = 10
MAX_STEP = 10**DIGITS - 1
_NUMBERED = re.compile(rf"(?P<prefix>.+)-(?P<step>[0-9]{{{DIGITS}}})\.safetensors", re.DOTALL)


class Generation(NamedTuple):
    """A checkpoint of a run.

    Attributes:
        step: its number.
        tensors: on the CPU.
        description: JSON-like.
    """

    step: int
    tensors: dict[str, Tensor]
    description: dict[str, Any]


class Generations:
    """The checkpoints ``prefix-<step, 10 digits>.safetensors`` of a run; see :mod:`fastlangevin.container`.

    One process writes, for instance rank 0; any number may read.

    Args:
        folder: where they are; must exist.
        prefix: the run's name.
        keep: how many to keep; 1 leaves nothing to fall back on.

    Raises:
        ValueError: an argument is out of range, or the folder does not exist.
    """

    def __init__(self, folder: str | os.PathLike[str], prefix: str, keep: int = 2) -> None:
        self.folder = Path(folder)
        if not self.folder.is_dir():
            raise ValueError(f"folder must be a folder that exists, got {self.folder}; create it first")
        if not isinstance(prefix, str) or not prefix or set(prefix) & {"/", "\\", "\0"}:
            raise ValueError(f"prefix must be the beginning of a file's name, without a path, got {shown(prefix)}")
        if type(keep) is not int or keep < 1:
            raise ValueError(f"keep must be an integer of at least 1, got {shown(keep)}; 2 allows for one damaged file")
        self.prefix = prefix
        self.keep = keep
        self.sweep()

    def path(self, step: int) -> Path:
        """File of a step, from 0 to 9,999,999,999."""
        if type(step) is not int or not 0 <= step <= MAX_STEP:
            raise ValueError(f"step must be an integer from 0 to {MAX_STEP}, got {shown(step)}")
        return self.folder / f"{self.prefix}-{step:0{DIGITS}}.safetensors"

    def steps(self) -> list[int]:
        """Steps that there are files of, oldest first; whether they are intact is seen when they are read."""
        return [_step(path) for path in reversed(_numbered(self.folder, self.prefix))]

    def save(self, step: int, tensors: Mapping[str, Tensor], description: Mapping[str, Any]) -> Path:
        """Write a generation; when it is safe on the disk, remove what is older than the last ``keep``.

        Files of later steps stay where they are, since a run begun again in the wrong folder would remove them all: a
        run that goes back to an old step is to move them away first, or :meth:`load` will take them for the newest.

        Args:
            step: number of the generation; a file of the same step is replaced.
            tensors: as in :func:`fastlangevin.container.write`.
            description: JSON-like.

        Returns:
            The file.

        Raises:
            TypeError, ValueError: something cannot be written, as in :func:`fastlangevin.container.write`.
            OSError: the file could not be written; nothing was removed.
        """
        path = self.path(step)
        container.write(path, tensors, description)
        for old in [each for each in self.steps() if each <= step][: -self.keep]:
            try:
                self.path(old).unlink(missing_ok=True)
            except OSError as error:  # the new one is safe: no reason to end a run
                logger.warning("an old checkpoint could not be removed: %s", error)
        return path

    def load(self, step: int | None = None, fallback: bool = False) -> Generation:
        """Read the newest generation.

        Args:
            step: read this one instead.
            fallback: where it is damaged, take the newest readable one before it, with a warning in the log that names
                what was skipped. Damaged files stay for a look at them.

        Raises:
            FileNotFoundError: there is none.
            ValueError: it is damaged, and there is no leave or nothing to fall back on.
            OSError: it cannot be read.
        """
        there = self.steps()
        if step is not None and not self.path(step).exists():
            raise FileNotFoundError(f"there is no {self.path(step)}; there are the steps {there}")
        if not there:
            raise FileNotFoundError(f"there is no {self.path(0).name} or later in {self.folder}: nothing was saved yet")
        first = self.path(there[-1] if step is None else step)
        path, tensors, description = read_numbered(first, fallback)
        return Generation(_step(path), tensors, description)

    def sweep(self) -> list[Path]:
        """Remove what killed processes left half-written, and return it; see :func:`.files.sweep`."""
        return sweep(self.folder, rf"{re.escape(self.prefix)}-[0-9]{{{DIGITS}}}\.safetensors")


def read_numbered(path: Path, fallback: bool) -> tuple[Path, dict[str, Tensor], dict[str, Any]]:
    """Read a file; where it is damaged and has a number, with ``fallback`` the newest intact one before it.

    Args:
        path: any file of :mod:`fastlangevin.container`; only ``prefix-<10 digits>.safetensors`` has others before it.
        fallback: give leave for that.

    Returns:
        The file that was read, its tensors and its description.

    Raises:
        DamagedError: the file is damaged and ``fallback`` is off, or so are all before it.
        OSError: a file cannot be read.
    """
    try:
        return path, *container.read(path)
    except DamagedError as error:
        before = _before(path)
        if before is None:
            raise
        if not fallback:
            why = f"{error.why}; fallback=True takes the checkpoint before it, {before.name}"
            raise DamagedError(path, why) from error
        logger.warning("skipped a checkpoint: %s; trying %s", error, before)
    return read_numbered(before, fallback)


def _before(path: Path) -> Path | None:
    parts = _NUMBERED.fullmatch(path.name)
    if parts is None:
        return None
    return next((each for each in _numbered(path.parent, parts["prefix"]) if _step(each) < int(parts["step"])), None)


def _numbered(folder: Path, prefix: str) -> list[Path]:
    """Files of a run, newest first."""
    found = [
        path for path in folder.iterdir() if (parts := _NUMBERED.fullmatch(path.name)) and parts["prefix"] == prefix
    ]
    return sorted(found, key=_step, reverse=True)


def _step(path: Path) -> int:
    return int(path.stem[-DIGITS:])
