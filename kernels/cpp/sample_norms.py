"""Launches the C++ kernel of norms: of samples, and of the noise of an address.

Like :mod:`.cpp`, whose library this is, the launcher checks nothing that :mod:`fastlangevin.ops` has checked.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ..operands import SampleNorms
from . import native
from .requests import SampleNormsRequest, packer

__all__ = ["norms"]


def norms(out: Tensor, given: SampleNorms, segment: int) -> None:
    """Writes the norms of samples, of noise, or of both.

    Args:
        out: ``(K, B)``, contiguous, of the computing dtype: of x, then of the noise.
        given: the samples.
        segment: elements whose squares are summed first: ``reference.segment_elements`` of a sample's elements.
    """
    x, address, of_x, of_noise, noise = given
    noise = noise if of_noise else None
    batch, elements = x.shape[0], x.numel() // x.shape[0]
    scratch = torch.empty(2, batch * -(-elements // segment), dtype=out.dtype, device="cpu")
    if x.is_contiguous() and (noise is None or noise.is_contiguous()):
        rank, tail = 0, [batch, elements]
    else:
        rank, tail = x.ndim, [*x.shape, *x.stride(), *(() if noise is None else noise.stride())]
    request = packer(SampleNormsRequest, len(tail))(
        native.chosen_set(),
        1 if x.numel() < native.SERIAL_BELOW else torch.get_num_threads(),
        *native.numbers_of(address),
        x.dtype is torch.float64,
        rank,
        *native.memory_of(address),
        segment,
        out[0].data_ptr() if of_x else 0,
        out[-1].data_ptr() if of_noise else 0,
        *(row.data_ptr() for row in scratch),
        x.data_ptr(),
        native.CODES[x.dtype],
        *((0, 0) if noise is None else (noise.data_ptr(), native.CODES[noise.dtype])),
        *tail,
    )
    if native.load().fl_sample_norms(request):
        native.refused()
