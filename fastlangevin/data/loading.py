"""Batches of a source in the order of a sampler, read here or by processes of their own."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
from collections.abc import Iterator, Sequence
from multiprocessing import resource_tracker
from multiprocessing.context import SpawnContext, SpawnProcess
from typing import Any, NoReturn

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from fastlangevin.data.order import AddressedBatches
from fastlangevin.data.source import SampleError, Source
from fastlangevin.noise import integer

__all__ = ["loader"]

SIGNALS = (signal.SIGINT, signal.SIGTERM)


class _Batches(Dataset[Tensor | SampleError]):
    """A source, batch by batch. A bad sample is handed on as a value: as an exception of another process its message
    would be that process's traceback."""

    def __init__(self, source: Source) -> None:
        self.source = source

    def __getitem__(self, index: int) -> Tensor | SampleError:
        return self.__getitems__([index])

    def __getitems__(self, indices: Sequence[int]) -> Tensor | SampleError:
        try:
            return self.source.take(indices)
        except SampleError as error:
            return error


class _Worker(SpawnProcess):
    """A worker that leaves its interpreter as it is when it ends, as a forked one does.

    The thread that sends batches is not waited for if nobody wants them any more. Python would end it while it takes
    itself down, in the midst of PyTorch's C++, and the process would abort: "terminate called without an active
    exception". Whatever multiprocessing itself does at the end of a process has been done by then.
    """

    def _bootstrap(self, *arguments: Any) -> NoReturn:
        os._exit(super()._bootstrap(*arguments))  # type: ignore[misc]


class _Context(SpawnContext):
    Process = _Worker


class _Loader(DataLoader[Any]):
    def __iter__(self) -> Iterator[Tensor]:  # type: ignore[override]
        # PyTorch draws a number by the loader's generator, on the default device, which must be the generator's.
        with _held_signals() if self.num_workers else contextlib.nullcontext(), torch.device("cpu"):
            batches = super().__iter__()
        try:
            for batch in batches:
                if isinstance(batch, SampleError):
                    raise batch
                yield batch
        finally:
            # An error's traceback keeps this frame; the workers end with their iterator.
            del batches


def loader(source: Source, batches: Sampler[list[int]], *, workers: int = 0, pin: bool = False) -> DataLoader[Any]:
    """The batches of a source as fp32 tensors ``(b, *shape)``, the same bits for any number of workers.

    Workers are new processes (``spawn``): a fork of a process whose threads have computed can wait for ever on their
    locks. So a script that asks for workers needs ``if __name__ == "__main__":``. They draw no random numbers, leave
    PyTorch's generator alone, ignore SIGINT and (but on macOS) SIGTERM, so that the process that trains can save first,
    and end with it. A source in memory is read by the process itself, whatever ``workers`` says.

    Args:
        source: the data; it is pickled for the workers.
        batches: indices, batch by batch: :class:`AddressedBatches`.
        workers: processes that read the data; 0: the process itself does.
        pin: put batches in page-locked memory, from where a GPU copies them in the background.

    Returns:
        What gives the batches, in the order of ``batches``.

    Raises:
        SampleError: when the batch of such a sample is reached.
        TypeError, ValueError: ``source`` or ``workers`` is of the wrong kind or out of range.
    """
    if not isinstance(source, Source):
        raise TypeError(f"source must be a Source, got {type(source).__name__}; as_source makes one of a dataset")
    if isinstance(batches, AddressedBatches) and batches.size != len(source):
        raise ValueError(f"batches are of {batches.size} samples, but {source.name} has {len(source)}; use len(source)")
    workers = 0 if source.in_memory else integer("workers", workers, 0, 1024)
    return _Loader(
        _Batches(source),
        batch_sampler=batches,
        num_workers=workers,
        collate_fn=_as_it_is,
        pin_memory=pin and source.device.type == "cpu",
        worker_init_fn=_stay_deaf,
        multiprocessing_context=_Context() if workers else None,
        # Otherwise each iterator takes its workers' seed, which nobody uses, from the global generator.
        generator=torch.Generator("cpu"),
    )


def _as_it_is(batch: Any) -> Any:
    return batch


def _stay_deaf(_: int) -> None:
    """Keeps a worker as it was born, deaf to SIGINT and SIGTERM, but for its parent's SIGTERM.

    By that Python ends workers that are left over when it exits, and it waits for them: one that ignored it would keep
    its parent from ending, whose end it waits for.
    """
    if hasattr(signal, "sigwaitinfo"):
        threading.Thread(target=_end_with, args=(os.getppid(),), daemon=True).start()
    else:  # macOS does not tell who sent a signal
        signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGTERM])


def _end_with(parent: int) -> None:
    while signal.sigwaitinfo([signal.SIGTERM]).si_pid != parent:
        pass
    os._exit(0)


@contextlib.contextmanager
def _held_signals() -> Iterator[None]:
    """A block in which signals wait; processes started in it are born with them held."""
    # Its start, which the first process would bring about, would let the signals through again (Python 3.11).
    resource_tracker.ensure_running()
    before = signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
