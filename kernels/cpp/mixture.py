"""Launches the C++ kernels of a Gaussian mixture: its score, and whole chains on it."""

from __future__ import annotations

import ctypes

import torch
from torch import Tensor

from ..operands import Segment
from . import native
from .requests import ChainRequest, ChainRun, MixtureRequest, MixtureTable, packer

__all__ = ["MAX_FEATURES", "chain", "mixture_score"]

MAX_FEATURES = 64  # kMaxFeatures of csrc/plan.h

_pack_score = packer(MixtureRequest)
_pack_run = packer(ChainRun)


def mixture_score(out: Tensor, x: Tensor, table: Tensor, labels: Tensor, *, diagonal: bool) -> None:
    """Writes the score of a mixture.

    Args:
        out, x: contiguous fp32 ``(B, D)``, D up to 64; overlap nothing.
        table: contiguous fp32 ``(L, K, 2 W + 1)``, K up to 256, as :mod:`fastlangevin.reference.mixture` has it.
        labels: contiguous int64 ``(B,)``, below L.
        diagonal: whether the table has a variance for each element.
    """
    batch, features = x.shape
    if batch == 0:
        return
    request = _pack_score(
        native.chosen_set(),
        torch.get_num_threads(),
        batch,
        table.data_ptr(),
        table.shape[1],
        features,
        diagonal,
        labels.data_ptr(),
        out.data_ptr(),
        x.data_ptr(),
    )
    if native.load().fl_mixture(request):
        native.refused()


def chain(x: Tensor, table: Tensor, segment: Segment, *, diagonal: bool) -> None:
    """Writes the updates of chains on a mixture to their state, one after the other.

    Args:
        x, table, diagonal: as for :func:`mixture_score`; ``x`` is written to.
        segment: the updates.
    """
    address, runs, every, frames = segment
    batch, features = x.shape
    if batch == 0 or not runs:
        return
    packed = b"".join(
        _pack_run(c, a, 0.0 if b is None else b, b is not None, level, times) for (c, a, b), level, times in runs
    )
    buffer = ctypes.create_string_buffer(packed, len(packed))
    request = ChainRequest(
        instruction_set=native.chosen_set(),
        threads=torch.get_num_threads(),
        batch=batch,
        table=MixtureTable(rows=table.data_ptr(), components=table.shape[1], features=features, diagonal=diagonal),
        **native.chain_address(address),
        runs=ctypes.addressof(buffer),
        run_count=len(runs),
        every=every if frames is not None else 0,
        frames=0 if frames is None else frames.data_ptr(),
        x=x.data_ptr(),
    )
    if native.load().fl_chain(bytes(request)):
        native.refused()
