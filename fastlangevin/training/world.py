"""The processes of a run: one, or those that torchrun started."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, distributed

from fastlangevin.processes import local_rank, rank_and_size, variable

__all__ = ["World", "join"]


@dataclass(frozen=True)
class World:
    """A process's place among those of the run.

    Attributes:
        rank: of this process, 0 = the one that writes files.
        size: number of processes.
        device: where this process computes.
    """

    rank: int
    size: int
    device: torch.device

    @property
    def leads(self) -> bool:
        """Returns whether this is the process that writes files and shows progress."""
        return self.rank == 0

    def sum(self, values: Tensor) -> Tensor:
        """The sum over all processes, the same bits on each."""
        if self.size > 1:
            distributed.all_reduce(values)
        return values

    def wait(self) -> None:
        """Returns when every process has come here."""
        if self.size > 1:
            distributed.barrier()


@contextmanager
def join(device: str | torch.device | None = None) -> Iterator[World]:
    """Joins the process group that torchrun describes in the environment; alone where there is none.

    Args:
        device: where to compute; by default the process's own CUDA device, or the CPU where there is none.

    Raises:
        ValueError: RANK, WORLD_SIZE, LOCAL_RANK or MASTER_PORT is not an integer in its range.
        RuntimeError: ``device`` is a CUDA device, and there is none.
    """
    local = local_rank()
    if device is None:
        device = f"cuda:{local}" if torch.cuda.is_available() else "cpu"
    place = torch.device(device)
    if place.type == "cuda":
        if not torch.cuda.is_available():
            raise RuntimeError(f"device is {device}, but PyTorch finds no CUDA device here; use device='cpu'")
        if place.index is None:
            place = torch.device("cuda", local)
        torch.cuda.set_device(place)
    started = distributed.is_available() and distributed.is_initialized()
    ours = not started and rank_and_size()[1] > 1 and "RANK" in os.environ
    if ours:
        variable("MASTER_PORT", 0, 0, 2**16 - 1)
        # Numbers on the host are summed there, so that asking whether to stop does not wait for a device.
        distributed.init_process_group("cpu:gloo,cuda:nccl" if place.type == "cuda" else "gloo")
    try:
        if ours or started:
            yield World(distributed.get_rank(), distributed.get_world_size(), place)
        else:
            yield World(0, 1, place)
    finally:
        if ours:
            distributed.destroy_process_group()
