"""The check of a table: what a row reads must have been written, and a draw belong to its step."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from fastlangevin.kernels.address import MAX_TERMS
from fastlangevin.schemes.table import Clamp, Measure, Row, Step

__all__ = ["check_steps"]


def check_steps(
    name: str, runs: Iterable[tuple[Step, int]], carries: Sequence[str], draws_per_step: int, takes_levels: bool
) -> None:
    """Raises ValueError for a step that cannot be made, and names the step and the row.

    Args:
        name: of the scheme.
        runs: its steps, with how often each is made.
        carries: slots that are kept from one step to the next; the first is the state.
        draws_per_step: draws that belong to a step.
        takes_levels: whether the network is called with a level.
    """
    kept = {"x"}
    number = 0
    for step, times in runs:
        written = set(kept)
        for place, row in enumerate(step.rows):
            where = f"step {number}, row {place} of the scheme {name}"
            missing = [slot for slot in _read(row) if slot not in written | _evaluated(row)]
            if missing:
                raise ValueError(
                    f"{where} reads the slot {missing[0]!r}, which was not written; there are "
                    f"{', '.join(sorted(written))}. A slot that a later step reads must be one of its carries"
                )
            if isinstance(row, Clamp):
                continue
            if row.evaluate is not None and takes_levels and row.evaluate.level is None:
                raise ValueError(f"{where} evaluates a network of labels without a level; give Evaluate(level=...)")
            written |= _evaluated(row)
            if isinstance(row, Measure):
                continue
            if not 1 <= len(row.terms) <= MAX_TERMS:
                raise ValueError(f"{where} must have 1 to {MAX_TERMS} terms, got {len(row.terms)}")
            if row.b is not None and not 0 <= row.draw < draws_per_step:
                raise ValueError(
                    f"{where} names draw {row.draw}, which is that of another step: draws are numbered from 0 to "
                    f"{draws_per_step - 1} with draws_per_step={draws_per_step}"
                )
            written.add(row.out)
        kept = written & set(carries)
        number += times


def _read(row: Row) -> list[str]:
    if isinstance(row, Clamp):
        return [row.slot]
    if isinstance(row, Measure):
        return ["x", row.evaluate.slot]
    return [*([] if row.evaluate is None else [row.evaluate.slot]), *row.terms]


def _evaluated(row: Row) -> set[str]:
    """The slot that a row's evaluation writes. An evaluation does not read its own result."""
    at = None if isinstance(row, Clamp) else row.evaluate
    return set() if at is None or at.slot == at.into else {at.into}
