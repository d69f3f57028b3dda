"""Launches the C++ kernels of denoising score matching: perturbed samples, and the objective with its gradient.

Like :mod:`.cpp`, whose library this is, the launchers check nothing that :mod:`fastlangevin.ops` has checked.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ..address import Address, Words
from . import native
from .requests import DsmRequest, packer

__all__ = ["dsm", "perturb", "quick_perturb"]

_PERTURB, _DSM = 3, 4
_CODES = native.CODES
_FLOAT64 = torch.float64
_plain_pack = packer(DsmRequest, 2)
_FLOAT32 = _CODES[torch.float32]
# What a perturbation has none of: weight, slope, upstream and its stride; a segment, values, their sums and scratch;
# noise and clean samples.
_NO_TABLES, _NO_SUMS, _NO_DATA = (0,) * 4, (0,) * 6, (0,) * 4
# Up to so many samples are sorted by level without scratch, and up to so many elements a sample is not cut.
_FEW_SAMPLES = 1024
_LONGEST_SEGMENT = 1024


def perturb(
    out: Tensor,
    x: Tensor,
    address: Address,
    *,
    sigmas: Tensor,
    labels: Tensor,
    draws_labels: bool,
    level_purpose: int,
    noise: Tensor | None,
) -> None:
    """Writes x + sigma*noise to ``out``, with the sigma of each sample's level.

    Args:
        out: same shape and dtype as ``x``, any strides; does not overlap ``x``.
        x: clean samples ``(B, ...)``: fp32, fp16, bf16 or fp64.
        sigmas: ``(L,)``, contiguous, fp64 for fp64 samples and fp32 otherwise.
        labels: int64 ``(B,)``, contiguous. A label that is no level makes its sample NaN.
        draws_labels: write the labels, drawn at the samples' addresses, instead of reading them.
        address: of the noise.
        level_purpose: the purpose of the labels' address.
        noise: None to draw it here; else a tensor of the same shape, any of these dtypes.
    """
    if x.numel() == 0:
        if not (draws_labels and x.shape[0]):
            return
        out = x = x.new_zeros(x.shape[0], 1)  # there are labels to draw all the same
        noise = None
    _launch(
        _PERTURB,
        address,
        out,
        x,
        noise,
        None,
        labels,
        sigmas,
        draws_labels=draws_labels,
        level_purpose=level_purpose,
    )


def quick_perturb(
    x: Tensor,
    sigmas: Tensor,
    labels: Tensor | None,
    level_purpose: int,
    words: Words,
) -> tuple[Tensor, Tensor] | None:
    """:func:`perturb` of contiguous fp32 samples to a new tensor, where seed and draw are numbers.

    Args:
        x: not empty.
        sigmas: contiguous fp32.
        labels: contiguous, each of them a level; None to draw them.
        level_purpose: of the address of drawn labels.
        words: seed, draw, ids or None, sample offset and purpose.

    Returns:
        The perturbed samples and the labels; None if there is no memory behind one of the tensors.
    """
    seed, draw, ids, offset, purpose = words
    batch, total = x.shape[0], x.nbytes // 4
    drawn = torch.empty(batch, dtype=torch.int64, device="cpu") if labels is None else labels
    at, levels, own = x.data_ptr(), sigmas.data_ptr(), drawn.data_ptr()
    if not (at and levels and own):
        return None
    out = torch.empty_like(x)
    native.dsm(
        _plain_pack(
            native.chosen_set(),
            1 if total < native.SERIAL_BELOW else torch.get_num_threads(),
            seed,
            draw,
            offset,
            purpose,
            _PERTURB,
            False,
            0,
            0,
            0,
            0 if ids is None else ids.data_ptr(),
            0,
            levels,
            *_NO_TABLES,
            own,
            sigmas.shape[0],
            labels is None,
            level_purpose,
            *_NO_SUMS,
            out.data_ptr(),
            _FLOAT32,
            at,
            _FLOAT32,
            *_NO_DATA,
            batch,
            total // batch,
        )
    )
    return out, drawn


def dsm(
    values: Tensor | None,
    level_sums: Tensor | None,
    level_counts: Tensor | None,
    total: Tensor | None,
    gradient: Tensor | None,
    output: Tensor,
    address: Address,
    *,
    clean: Tensor | None,
    labels: Tensor,
    scale: Tensor,
    weight: Tensor,
    slope: Tensor,
    upstream: Tensor,
    noise: Tensor | None,
    segment: int,
) -> None:
    """Writes the values of denoising score matching, their sums, and the gradient by the network's output.

    Args:
        values: ``(B,)``, contiguous, of the computing dtype: fp64 for an fp64 output and fp32 otherwise.
        level_sums: sums of each level's values ``(L,)``, likewise.
        level_counts: samples of each level, int64 ``(L,)``.
        total: sum of all values ``()``. These four are None together: then only the gradient is wanted.
        gradient: shape and dtype of ``output``, any strides; does not overlap it. None where it is not wanted.
        output: the network's output h ``(B, ...)``: fp32, fp16, bf16 or fp64.
        clean: same shape, any of these dtypes: the residual is p (h - clean), and no noise is drawn.
        labels: int64 ``(B,)``, contiguous. A label that is no level makes its sample NaN, and is counted in none.
        scale, weight, slope: p, w and k of each level ``(L,)``, contiguous, of the computing dtype.
        upstream: the derivative of the loss by the values, ``()`` or ``(B,)``, likewise.
        address: of the noise.
        noise: None to draw it here; else a tensor of the same shape, any of these dtypes.
        segment: elements whose squares are summed first: ``reference.segment_elements`` of a sample's elements.
    """
    batch, elements = output.shape[0], output.numel() // max(output.shape[0], 1)
    scratch = None
    if values is not None:
        assert level_sums is not None
        assert level_counts is not None
        assert total is not None
        if output.numel() == 0:
            for each in (values, level_sums, total):
                each.zero_()
            own = labels[(labels >= 0) & (labels < scale.numel())]
            level_counts.copy_(torch.bincount(own, minlength=scale.numel()))
            return
        if elements > _LONGEST_SEGMENT or batch > _FEW_SAMPLES:
            scratch = torch.empty(batch * -(-elements // segment), dtype=values.dtype, device="cpu")
    elif output.numel() == 0:
        return
    _launch(
        _DSM,
        address,
        gradient,
        output,
        noise,
        clean,
        labels,
        scale,
        weight=weight,
        slope=slope,
        upstream=upstream,
        segment=segment,
        values=values,
        level_sums=level_sums,
        level_counts=level_counts,
        total=total,
        scratch=scratch,
    )


def _launch(
    kind: int,
    address: Address,
    out: Tensor | None,
    x: Tensor,
    noise: Tensor | None,
    clean: Tensor | None,
    labels: Tensor,
    scale: Tensor,
    *,
    weight: Tensor | None = None,
    slope: Tensor | None = None,
    upstream: Tensor | None = None,
    draws_labels: bool = False,
    level_purpose: int = 0,
    segment: int = 0,
    values: Tensor | None = None,
    level_sums: Tensor | None = None,
    level_counts: Tensor | None = None,
    total: Tensor | None = None,
    scratch: Tensor | None = None,
) -> None:
    """Any call, as a ``DsmRequest``."""
    operands = out, x, noise, clean
    data: list[int] = []
    plain = True
    for operand in operands:
        if operand is None:
            data += (0, 0)
        else:
            data += (operand.data_ptr(), _CODES[operand.dtype])
            plain = plain and operand.is_contiguous()
    count = x.numel()
    if plain:
        batch = x.shape[0]
        pack, tail, rank = _plain_pack, [batch, count // batch], 0
    else:
        tail, rank = list(x.shape), x.ndim
        for operand in operands:
            if operand is not None:
                tail += operand.stride()
        pack = packer(DsmRequest, len(tail))
    native.dsm(
        pack(
            native.chosen_set(),
            1 if count < native.SERIAL_BELOW else torch.get_num_threads(),
            *native.numbers_of(address),
            kind,
            x.dtype is _FLOAT64,
            rank,
            *native.memory_of(address),
            scale.data_ptr(),
            0 if weight is None else weight.data_ptr(),
            0 if slope is None else slope.data_ptr(),
            0 if upstream is None else upstream.data_ptr(),
            0 if upstream is None else upstream.ndim,
            labels.data_ptr(),
            scale.numel(),
            draws_labels,
            level_purpose,
            segment,
            0 if values is None else values.data_ptr(),
            0 if level_sums is None else level_sums.data_ptr(),
            0 if level_counts is None else level_counts.data_ptr(),
            0 if total is None else total.data_ptr(),
            0 if scratch is None else scratch.data_ptr(),
            *data,
            *tail,
        )
    )
