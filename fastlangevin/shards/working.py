"""Fills a run's folder: claims shards that are missing, draws them, waits for the others."""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Self, Unpack

import torch
from torch import Tensor
from tqdm.auto import tqdm

from fastlangevin.ladders import Sigmas
from fastlangevin.noise import MAX_SAMPLE_ID, integer
from fastlangevin.processes import MAX_PROCESSES, rank_and_size, variable
from fastlangevin.runtime import choose
from fastlangevin.samplers.options import takes
from fastlangevin.scores import ScoreFunction, check_ladder
from fastlangevin.shards.batches import Batches
from fastlangevin.shards.folder import RunFolder
from fastlangevin.shards.lease import Waiting, holder, while_claimed
from fastlangevin.shards.record import DEFAULTS, RecordOptions, describe
from fastlangevin.storage.container import DamagedError

__all__ = ["Outcome", "place", "sample"]

logger = logging.getLogger("fastlangevin")

POLL_SECONDS = 0.2
NAMED = 3  # of the processes that are waited for, in the log
FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}


@dataclass(frozen=True)
class Outcome:
    """The result of :func:`sample`.

    Attributes:
        complete: whether every shard is there. The process of rank 0 waits for that, unless it is stopped; the others
            leave when there is nothing left to claim.
        drawn: samples drawn by this process.
        evaluations: its calls of the score function for them.
        batch: samples in a batch, as many as have fitted into memory.
    """

    complete: bool
    drawn: int
    evaluations: int
    batch: int


@takes(RecordOptions, DEFAULTS)
def sample(
    score: ScoreFunction,
    sigmas: Sigmas,
    folder: str | os.PathLike[str],
    *,
    shape: Sequence[int],
    seed: int,
    batch: int | None = None,
    device: torch.device | str | None = None,
    impl: str = "auto",
    remake_damaged: bool = False,
    rank: int | None = None,
    world: int | None = None,
    progress: bool = False,
    stop: Callable[[], bool] | None = None,
    strict_ladder: bool = True,
    **run: Unpack[RecordOptions],
) -> Outcome:
    """Annealed Langevin dynamics into a folder, by any number of processes that call this with the same arguments.

    They may run under ``torchrun``, be started by hand, or stand on several machines with the folder shared, and may
    come and go. Each claims a missing shard by a lock that ends with its holder (see
    :mod:`fastlangevin.shards.lease`), draws it in batches of which each is on the disk before the next begins, and
    goes on to another. So a killed process loses at most the batch it was drawing, and a later call draws only what is
    missing. Running out of memory halves the batch.

    Before anything else the process of rank 0 verifies the digests of the shards that it finds.

    Args:
        score, sigmas, device, impl, strict_ladder: as for :func:`fastlangevin.annealed_langevin`.
        folder: of the run; made where it is missing.
        shape: ``(N, ...)`` of all samples.
        seed: 0 to 2^64 - 1, the same for all processes.
        batch: samples that are drawn together, ``shard_size`` by default. Not part of the record: the bits depend on
            it only where the network's own do.
        remake_damaged: set damaged files aside, as ``*.damaged``, and draw them again; without it they are refused.
        rank, world: this process's number and how many there are; from the variables RANK and WORLD_SIZE by default,
            else 0 of 1. They decide which shard it tries first and who waits, and nothing else.
        progress: show a bar over the samples of all processes, on rank 0.
        stop: asked after every update; True ends the work with the batch lost.
        run: the options that decide the samples, :class:`fastlangevin.shards.RecordOptions`.

    Returns:
        An :class:`Outcome`; :func:`fastlangevin.shards.collect` reads the samples.

    Raises:
        TypeError, ValueError: an argument is of the wrong kind or out of range, or the folder holds another run, of
            which the message lists what differs. Nothing was changed.
        DamagedError: a ``ValueError``: a file is damaged, and ``remake_damaged`` is off.
        RuntimeError: a single sample does not fit into memory, or samples are not finite.
        OSError: the folder cannot be written. What was finished before is safe.
    """
    record = describe(score, sigmas, shape, seed, run)
    check_ladder(score, record["sigmas"], strict_ladder)
    most = record["shard_size"] if batch is None else integer("batch", batch, 1, MAX_SAMPLE_ID)
    number, size = place(rank, world)
    where = torch.empty(0, dtype=torch.float32, device=device).device
    choose(impl, where)
    asked = stop or (lambda: False)
    batches = Batches(
        score,
        record,
        batch=min(most, record["shard_size"]),
        stop=asked,
        device=where,
        impl=impl,
        strict_ladder=strict_ladder,
    )
    with _telling_when_full(folder):
        shards = RunFolder.begin(folder, record)
        if number == 0:
            _verify(shards, remake_damaged)
        with _Bar(shards, progress and number == 0) as bar:
            _work(shards, batches, number, size, remake_damaged, asked, bar)
        complete = not shards.missing()
        if complete and number == 0:
            shards.tidy()
    return Outcome(complete, batches.drawn, batches.evaluations, batches.batch)


def place(rank: int | None = None, world: int | None = None) -> tuple[int, int]:
    """This process's number and how many there are, as given or as torchrun says."""
    size = None if world is None else integer("world", world, 1, MAX_PROCESSES)
    if rank is None:
        return rank_and_size(size)
    size = variable("WORLD_SIZE", 1, 1, MAX_PROCESSES) if size is None else size
    return integer("rank", rank, 0, size - 1), size


def _work(
    run: RunFolder, batches: Batches, rank: int, world: int, remake: bool, stop: Callable[[], bool], bar: _Bar
) -> None:
    first = rank * run.count // world
    waiting = Waiting()
    while not stop() and (missing := run.missing(first)):
        worked = False
        for index in missing:
            filled = while_claimed(run.lock_path(index), partial(_fill, run, index, batches, remake, bar))
            if filled is False:
                return
            worked = worked or filled is True
        bar.show()
        if not worked:
            if rank:
                return
            # Those who hold the rest may be killed: then their locks are gone, and it is drawn here.
            waiting.say(partial(_holders, run, missing))
            time.sleep(POLL_SECONDS)
    bar.show()


def _holders(run: RunFolder, missing: list[int]) -> str:
    """Names the processes that draw the missing shards, the first few of them."""
    named = [f"{holder(run.lock_path(index))}, which draws shard {index}" for index in missing[:NAMED]]
    more = f", and those who draw {len(missing) - NAMED} more" if len(missing) > NAMED else ""
    return "; ".join(named) + more + f" ({run.path})"


def _fill(run: RunFolder, index: int, batches: Batches, remake: bool, bar: _Bar) -> bool | None:
    """Draws what is missing of a shard that is claimed; False if that was stopped, None if nothing is missing."""
    if run.shard_path(index).exists():
        return None
    shard = run.shard(index)
    parts = _reading(run, lambda: run.read_parts(index), remake)
    done = sum(map(len, parts))
    while done < shard.count:
        samples = batches.draw(shard.first + done, shard.count - done)
        if samples is None:
            return False
        if "logit" in run.record:
            from fastlangevin.data import expit

            samples = expit(samples, run.record["logit"])
        parts.append(samples)
        if done + len(samples) < shard.count:
            run.write_part(index, done, samples)
        done += len(samples)
        bar.show(done)
    run.write(index, torch.cat(parts))
    return True


def _verify(run: RunFolder, remake: bool) -> None:
    for index in sorted(run.finished()):
        with contextlib.suppress(FileNotFoundError):  # set aside
            _reading(run, lambda: [run.read(index)], remake)  # noqa: B023  (called at once)


def _reading(run: RunFolder, read: Callable[[], list[Tensor]], remake: bool) -> list[Tensor]:
    """Reads a shard by ``read``; damaged files are set aside if that is allowed."""
    while True:
        try:
            return read()
        except DamagedError as error:
            if not remake:
                why = f"{error.why}; remake_damaged=True (--remake-damaged) sets it aside and draws its samples again"
                raise DamagedError(error.path, why) from error
            logger.warning("set aside a damaged file as %s: %s", run.set_aside(error.path).name, error)


class _Bar:
    """The samples of all processes; nothing at all where it is not wanted, since even a disabled tqdm takes a lock."""

    def __init__(self, run: RunFolder, wanted: bool) -> None:
        self.run = run
        self.bar = tqdm(total=run.n, desc="sampling", unit="sample") if wanted else None

    def show(self, more: int = 0) -> None:
        """Those in finished shards, everybody's, and ``more`` in the present one."""
        if self.bar is not None:
            self.bar.n = min(self.run.n, sum(self.run.shard(index).count for index in self.run.finished()) + more)
            self.bar.refresh()

    def __enter__(self) -> Self:
        self.show()
        return self

    def __exit__(self, *_: object) -> None:
        if self.bar is not None:
            self.bar.close()


@contextlib.contextmanager
def _telling_when_full(folder: str | os.PathLike[str]) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno not in FULL:
            raise
        raise type(error)(
            error.errno,
            f"{error.strerror}. Nothing is half-written, and what was finished is safe in {os.fspath(folder)}: make "
            "room and run the same again, which draws only what is missing",
        ) from error
