"""The folder of a run: its record, its shards, and the batches of shards that are not finished.

    run.json                                        the record
    shard-<index, 10 digits>.safetensors            samples index*shard_size and up, in the order of their ids
    shard-<index>.part-<place, 10 digits>.safetensors   a batch of an unfinished shard, from that place in it
    shard-<index>.lock                              somebody draws it, or was killed doing so
    *.damaged                                       set aside

Names are made of numbers alone, which are range-checked. A shard carries the record, so that it is known wherever it
is found.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import time
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Self

from torch import Tensor

from fastlangevin.noise import integer
from fastlangevin.shards.lease import Waiting, holder, while_claimed
from fastlangevin.shards.record import check_same, check_sense, dtype_of
from fastlangevin.storage import container
from fastlangevin.storage.container import DamagedError
from fastlangevin.storage.files import NotAFileError, read_regular, sweep, write_whole

__all__ = ["RunFolder", "Shard"]

RUN = "run.json"
_SHARD = re.compile(r"shard-([0-9]{10})\.safetensors")
_PART = re.compile(r"shard-([0-9]{10})\.part-[0-9]{10}\.safetensors")
_LOCK = re.compile(r"shard-([0-9]{10})\.lock")


@dataclass(frozen=True)
class Shard:
    """Consecutive samples of a run.

    Attributes:
        index: its number.
        start: place of its first sample among the run's samples.
        count: samples in it.
        first: id of its first sample.
    """

    index: int
    start: int
    count: int
    first: int


class RunFolder:
    """A run on disk, for reading; :meth:`begin` for one that is to be filled.

    Args:
        path: its folder.

    Raises:
        FileNotFoundError: there is no run.
        ValueError: its record is damaged, or is not a file.
        OSError: its record cannot be read.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)
        self.record = _read_record(self.path / RUN)
        self.size: int = self.record["shard_size"]
        self.n: int = self.record["n"]
        self.count = -(-self.n // self.size)

    @classmethod
    def begin(cls, path: str | os.PathLike[str], record: dict[str, Any]) -> Self:
        """Opens the run of a record; makes folder and run.json where there is none yet.

        Raises:
            ValueError: there is another run in the folder, or something else. Nothing was changed.
            OSError: the folder cannot be made or written.
        """
        folder = Path(path)
        plain = json.loads(json.dumps(record))  # as a file gives it back: tuples are lists there
        if folder.exists() and not folder.is_dir():
            raise ValueError(f"cannot keep shards in {folder}: it is not a folder; name a folder, or one to be made")
        if not (folder / RUN).exists():
            if folder.is_dir():
                _check_contents(folder, plain)
            elif not folder.parent.is_dir():
                raise ValueError(
                    f"cannot keep shards in {folder}: the folder {folder.parent} does not exist; create it first"
                )
            folder.mkdir(exist_ok=True)
            _write_record(folder, plain)
        run = cls(folder)
        check_same(run.record, plain, folder)
        sweep(folder, r"(run\.json|shard-.*)")
        return run

    def shard(self, index: int) -> Shard:
        """The shard of a number."""
        number = integer("index", index, 0, self.count - 1)
        start = number * self.size
        return Shard(number, start, min(self.size, self.n - start), self.record["sample_offset"] + start)

    def shard_path(self, index: int) -> Path:
        """File of a shard."""
        return self.path / f"shard-{integer('index', index, 0, self.count - 1):010}.safetensors"

    def lock_path(self, index: int) -> Path:
        """File whose lock says that somebody draws the shard."""
        return self.shard_path(index).with_suffix(".lock")

    def finished(self) -> set[int]:
        """Numbers of the shards that there are files of; whether they are intact is seen when they are read."""
        return {index for index in map(int, _found(self.path, _SHARD)) if index < self.count}

    def missing(self, start: int = 0) -> list[int]:
        """Numbers of the others, in order from ``start`` and round."""
        there = self.finished()
        order = range(self.count)
        return [index for index in (*order[start:], *order[:start]) if index not in there]

    def read(self, index: int) -> Tensor:
        """The samples of a shard ``(count, ...)``; every byte is checked.

        Raises:
            FileNotFoundError: it is not there yet.
            DamagedError: it is damaged.
            ValueError: it is of another run.
        """
        return self._read(self.shard_path(index), self.shard(index), 0)

    def read_parts(self, index: int) -> list[Tensor]:
        """The batches of an unfinished shard that there are, from its beginning to the first gap."""
        shard, parts, place = self.shard(index), [], 0
        # Without locks another process may finish the shard and remove them meanwhile: a gap like any other.
        with contextlib.suppress(FileNotFoundError):
            while place < shard.count:
                parts.append(self._read(self._part_path(index, place), shard, place))
                place += len(parts[-1])
        return parts

    def write(self, index: int, samples: Tensor) -> None:
        """Write a whole shard, and remove its batches."""
        self._write(self.shard_path(index), self.shard(index), 0, samples)
        self._remove_parts(index)

    def write_part(self, index: int, place: int, samples: Tensor) -> None:
        """Write a batch of a shard, which begins at this place in it."""
        self._write(self._part_path(index, place), self.shard(index), place, samples)

    def set_aside(self, path: Path) -> Path:
        """Give a damaged file of this folder another name, under which nothing stood before, and return it."""
        aside = path.with_name(f"{path.name}.damaged")
        number = 1
        while aside.exists():
            number += 1
            aside = path.with_name(f"{path.name}.{number}.damaged")
        with contextlib.suppress(FileNotFoundError):  # another process was faster
            path.rename(aside)
        return aside

    def tidy(self) -> None:
        """Remove the locks and batches that killed processes left of shards that are finished."""
        left = {int(index) for pattern in (_PART, _LOCK) for index in _found(self.path, pattern)}
        for index in sorted(left & self.finished()):
            while_claimed(self.lock_path(index), partial(self._remove_parts, index))

    def _remove_parts(self, index: int) -> None:
        for path in self.path.glob(f"{self.shard_path(index).stem}.part-*.safetensors"):
            path.unlink(missing_ok=True)

    def _part_path(self, index: int, place: int) -> Path:
        shard = self.shard_path(index)
        return shard.with_name(f"{shard.stem}.part-{integer('place', place, 0, self.size - 1):010}.safetensors")

    def _write(self, path: Path, shard: Shard, place: int, samples: Tensor) -> None:
        description = {"record": self.record, "shard": shard.index, "place": place}
        container.write(path, {"samples": samples}, description)

    def _read(self, path: Path, shard: Shard, place: int) -> Tensor:
        tensors, description = container.read(path)
        record = description.get("record")
        if not isinstance(record, dict) or tensors.keys() != {"samples"}:
            raise ValueError(f"{path} is not a shard; move it elsewhere, and what is missing will be drawn")
        check_same(record, self.record, path)
        samples = tensors["samples"]
        whole = path == self.shard_path(shard.index)
        if (
            (description.get("shard"), description.get("place")) != (shard.index, place)
            or samples.dtype != dtype_of(self.record)
            or list(samples.shape[1:]) != self.record["shape"]
            or not (samples.ndim and 0 < len(samples) <= shard.count - place)
            or (whole and len(samples) != shard.count)
        ):
            raise ValueError(
                f"{path} holds other samples than its name says (shard {description.get('shard')!r} from place "
                f"{description.get('place')!r}, {tuple(samples.shape)}); move it elsewhere, and they will be drawn"
            )
        return samples


def _found(folder: Path, pattern: re.Pattern[str]) -> list[str]:
    return [parts[1] for name in os.listdir(folder) if (parts := pattern.fullmatch(name))]


def _check_contents(folder: Path, record: dict[str, Any]) -> None:
    """Raises where a folder without run.json cannot become that of the run: what is in it must be its own shards."""
    strangers = sorted(path.name for path in folder.iterdir() if not path.name.startswith((".", "run.", "shard-")))
    if strangers:
        raise ValueError(
            f"{folder} has no {RUN} but other things in it ({', '.join(strangers[:3])}); give an empty folder, or one "
            "to be made"
        )
    shard = next((path for path in sorted(folder.iterdir()) if _SHARD.fullmatch(path.name)), None)
    if shard is not None:
        check_same(container.read(shard)[1].get("record", {}), record, shard)


def _write_record(folder: Path, record: dict[str, Any]) -> None:
    """Write run.json, unless another process does so meanwhile."""
    text = json.dumps({"record": record, "sha256": _seal(record)}, indent=1).encode() + b"\n"
    if len(text) > container.MAX_DESCRIPTION:
        raise ValueError(
            f"the record takes {len(text)} bytes, {RUN} has room for {container.MAX_DESCRIPTION}; give a shorter ladder"
        )

    def write() -> bool:
        if not (folder / RUN).exists():
            write_whole(folder / RUN, text)
        return True

    lock = folder / "run.lock"
    waiting = Waiting()
    # Without a limit: a holder that has ended, however it ended, holds nothing.
    while not (folder / RUN).exists() and not while_claimed(lock, write):
        waiting.say(lambda: f"{holder(lock)}, which begins the run ({lock})")
        time.sleep(0.05)


def _read_record(path: Path) -> dict[str, Any]:
    if not path.exists():
        raise FileNotFoundError(f"there is no run in {path.parent}: {path} does not exist; give a run's folder")
    try:
        # Parsed JSON takes many times its length.
        content = json.loads(read_regular(path, container.MAX_DESCRIPTION))
        record: dict[str, Any] = content["record"]
        if content["sha256"] != _seal(record):
            raise ValueError("its record does not have the SHA-256 written with it")
        check_sense(record)
    except NotAFileError:
        raise
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        why = f"{error}; remove it and run the same again: every shard carries the record and is checked against it"
        raise DamagedError(path, why) from error
    return record


def _seal(record: dict[str, Any]) -> str:
    return hashlib.sha256(container.check_json("record", record).encode()).hexdigest()
