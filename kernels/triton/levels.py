"""Loads the entries of a table (L,) for the levels of a program's rows.

A program of one row has it in scalars, so that what hangs on the row is loaded and computed once in a thread.
"""

from __future__ import annotations

import triton
import triton.language as tl


@triton.jit
def rows_of(first_row, row_lane, row_valid, rows, GROUPS: tl.constexpr, TILE: tl.constexpr):
    """The rows of a tile's lanes, and which of them exist: scalars where all lanes have one row."""
    if TILE == GROUPS:
        return first_row, first_row < rows
    else:
        return first_row + row_lane, row_valid


@triton.jit
def at_level(table_ptr, label, row_valid, levels):
    """Entries of a table of ``levels`` entries; NaN for any other label, which could be refused only by waiting."""
    # As a word without sign a negative label is above every level.
    valid = row_valid & (label.to(tl.uint64) < levels.to(tl.uint64))
    return tl.load(table_ptr + label, mask=valid, other=float("nan"))


@triton.jit
def column(value):
    """The entry of each lane's row, for the elements of the lane's group; a scalar stays a scalar."""
    if value.type.is_block():
        return value[:, None]
    else:
        return value
