"""Launches the C++ kernels of denoising score matching: perturbed samples, and the objective with its gradient.

Like :mod:`.cpp`, whose library this is, the launchers check nothing that :mod:`fastlangevin.ops` has checked.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ..address import Address, Words
from ..operands import Objective, Perturbation, Sums
from . import native
from .requests import DsmRequest, packer

__all__ = ["dsm", "perturb", "quick_dsm", "quick_perturb"]

_PERTURB, _DSM = 3, 4
_CODES = native.CODES
_FLOAT64 = torch.float64
_plain_pack = packer(DsmRequest, 2)
_FLOAT32 = _CODES[torch.float32]
# What a perturbation has none of: weight, slope, upstream and its stride; a segment, values, their sums and scratch;
# noise and clean samples.
_NO_TABLES, _NO_SUMS, _NO_DATA = (0,) * 4, (0,) * 6, (0,) * 4
# Of a gradient alone: values and their sums.
_NO_RESULTS = [0] * 4
# Up to so many samples are sorted by level without scratch, and up to so many elements a sample is not cut.
_FEW_SAMPLES = 1024
_LONGEST_SEGMENT = 1024


def perturb(out: Tensor, drawn: Tensor | None, given: Perturbation) -> None:
    """Writes x + sigma z, and the labels if they are drawn.

    Args:
        out: shape and dtype of x, any strides.
        drawn: int64 ``(B,)``, contiguous; None if the labels are given.
        given: the samples.
    """
    x, sigmas, labels, address, level_purpose, noise = given
    if x.numel() == 0:
        if drawn is None or not x.shape[0]:
            return
        out = x = x.new_zeros(x.shape[0], 1)  # there are labels to draw all the same
        noise = None
    to = drawn if labels is None else labels
    assert to is not None
    own = to.data_ptr(), sigmas.numel(), labels is None, level_purpose
    _launch(_PERTURB, address, (out, x, noise, None), (sigmas.data_ptr(), 0, 0, 0, 0, *own, 0, 0, 0, 0, 0, 0))


def quick_perturb(
    x: Tensor,
    sigmas: Tensor,
    labels: Tensor | None,
    level_purpose: int,
    words: Words,
    out: Tensor | None = None,
) -> tuple[Tensor, Tensor] | None:
    """:func:`perturb` of contiguous fp32 samples, where seed and draw are numbers.

    Args:
        x: not empty.
        sigmas: contiguous fp32.
        labels: contiguous, each of them a level; None to draw them.
        level_purpose: of the address of drawn labels.
        words: seed, draw, ids or None, sample offset and purpose.
        out: written, contiguous fp32 of the shape of x and apart from it; None for a new tensor.

    Returns:
        The perturbed samples and the labels; None if there is no memory behind one of the tensors.
    """
    seed, draw, ids, offset, purpose = words
    batch, total = x.shape[0], x.nbytes // 4
    drawn = torch.empty(batch, dtype=torch.int64, device="cpu") if labels is None else labels
    at, levels, own = x.data_ptr(), sigmas.data_ptr(), drawn.data_ptr()
    if not (at and levels and own):
        return None
    if out is None:
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


def dsm(sums: Sums | None, gradient: Tensor | None, given: Objective, upstream: Tensor, segment: int) -> None:
    """Writes the values of denoising score matching, their sums, and the gradient by the network's output.

    Args:
        sums: None where the gradient alone is wanted.
        gradient: shape and dtype of the output, any strides; does not overlap it. None where it is not wanted.
        given: the objective.
        upstream: the derivative of the loss by the values, ``()`` or ``(B,)``, contiguous, of the computing dtype.
        segment: elements whose squares are summed first: ``reference.segment_elements`` of a sample's elements.
    """
    output, labels, (scale, weight, slope), address, noise, clean = given
    batch, count = output.shape[0], output.numel()
    scratch, results = None, (0, 0, 0, 0)
    if sums is not None:
        values, level_sums, level_counts, total = sums
        if count == 0:
            for each in (values, level_sums, total):
                each.zero_()
            own = labels[(labels >= 0) & (labels < scale.numel())]
            level_counts.copy_(torch.bincount(own, minlength=scale.numel()))
            return
        if count > _LONGEST_SEGMENT * batch or batch > _FEW_SAMPLES:
            scratch = torch.empty(batch * -(-count // batch // segment), dtype=values.dtype, device="cpu")
        results = values.data_ptr(), level_sums.data_ptr(), level_counts.data_ptr(), total.data_ptr()
    elif count == 0:
        return
    tables = scale.data_ptr(), weight.data_ptr(), slope.data_ptr(), upstream.data_ptr(), upstream.ndim
    space = 0 if scratch is None else scratch.data_ptr()
    fields = *tables, labels.data_ptr(), scale.numel(), False, 0, segment, *results, space
    _launch(_DSM, address, (gradient, output, noise, clean), fields)


def quick_dsm(
    given: Objective, upstream: Tensor, segment: int, words: Words, sums: bool, gradient: Tensor | None
) -> tuple[Sums | None, Tensor | None] | None:
    """:func:`dsm` of a contiguous fp32 output, if seed and draw are numbers.

    Args:
        given: the objective, of which the output is not empty, and ``clean`` is contiguous fp32.
        upstream, segment: as there.
        words: those of its address.
        sums: whether they are wanted.
        gradient: written, contiguous fp32 of the shape of the output and apart from it; None if it is not wanted.

    Returns:
        The sums and the gradient, None for what is not wanted; or None if no memory is behind a tensor.
    """
    output, labels, (scale, weight, slope), _, _, clean = given
    seed, draw, ids, offset, purpose = words
    batch, total = output.shape[0], output.nbytes // 4
    at, of_clean = output.data_ptr(), 0 if clean is None else clean.data_ptr()
    if not at or not (clean is None or of_clean):
        return None
    found, results, scratch = None, _NO_RESULTS, None
    if sums:
        if total > _LONGEST_SEGMENT * batch or batch > _FEW_SAMPLES:
            scratch = torch.empty(batch * -(-total // batch // segment), dtype=torch.float32, device="cpu")
        levels = scale.shape[0]
        values = torch.empty(batch, dtype=torch.float32, device="cpu")
        level_sums = torch.empty(levels, dtype=torch.float32, device="cpu")
        level_counts = torch.empty(levels, dtype=torch.int64, device="cpu")
        whole = torch.empty((), dtype=torch.float32, device="cpu")
        found = Sums(values, level_sums, level_counts, whole)
        results = [values.data_ptr(), level_sums.data_ptr(), level_counts.data_ptr(), whole.data_ptr()]
    native.dsm(
        _plain_pack(
            native.chosen_set(),
            1 if total < native.SERIAL_BELOW else torch.get_num_threads(),
            seed,
            draw,
            offset,
            purpose,
            _DSM,
            False,
            0,
            0,
            0,
            0 if ids is None else ids.data_ptr(),
            0,
            scale.data_ptr(),
            weight.data_ptr(),
            slope.data_ptr(),
            upstream.data_ptr(),
            upstream.ndim,
            labels.data_ptr(),
            scale.shape[0],
            False,
            0,
            segment,
            *results,
            0 if scratch is None else scratch.data_ptr(),
            0 if gradient is None else gradient.data_ptr(),
            _FLOAT32,
            at,
            _FLOAT32,
            0,
            0,
            of_clean,
            _FLOAT32,
            batch,
            total // batch,
        )
    )
    return found, gradient


def _launch(kind: int, address: Address, operands: tuple[Tensor | None, ...], fields: tuple[int, ...]) -> None:
    """Any call, as a ``DsmRequest``.

    Args:
        kind: what is done.
        address: of the noise.
        operands: what is written, the samples or the output, the noise and the clean samples.
        fields: those of ``Dsm``.
    """
    data: list[int] = []
    plain = True
    for operand in operands:
        if operand is None:
            data += (0, 0)
        else:
            data += (operand.data_ptr(), _CODES[operand.dtype])
            plain = plain and operand.is_contiguous()
    _, x, _, _ = operands
    assert x is not None
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
            *fields,
            *data,
            *tail,
        )
    )
