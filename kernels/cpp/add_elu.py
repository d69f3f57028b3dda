"""Launches the C++ kernel of a sum with its ELU."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from . import native
from .requests import AddEluRequest, packer

__all__ = ["add_elu"]

_pack = packer(AddEluRequest)


def add_elu(out: Tensor, total: Tensor | None, terms: Sequence[Tensor]) -> None:
    """Writes the ELU of the terms' sum, and the sum itself where ``total`` is given.

    Args:
        out, total: as the terms; overlap nothing.
        terms: one to three dense tensors of one shape, dtype and layout: fp32, fp16, bf16 or fp64.
    """
    count = out.numel()
    if count == 0:
        return
    pointers = [term.data_ptr() for term in terms]
    request = _pack(
        native.chosen_set(),
        1 if count < native.SERIAL_BELOW else torch.get_num_threads(),
        native.CODES[out.dtype],
        count,
        *pointers,
        *[0] * (3 - len(pointers)),
        0 if total is None else total.data_ptr(),
        out.data_ptr(),
    )
    if native.load().fl_add_elu(request):
        native.refused()
