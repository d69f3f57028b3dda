"""The check of a table: what a row reads must have been written, and a draw belong to its step."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

from fastlangevin.kernels.address import MAX_TERMS
from fastlangevin.schemes.table import Clamp, Evaluate, Measure, Row, Step
from fastlangevin.scores import SAME_LEVEL

__all__ = ["check_steps"]


def check_steps(
    name: str,
    runs: Iterable[tuple[Step, int]],
    carries: Sequence[str],
    draws_per_step: int,
    ladder: Sequence[float] | None,
) -> None:
    """Raises ValueError for a step that cannot be made, and names the step and the row.

    Args:
        name: of the scheme.
        runs: its steps, with how often each is made.
        carries: slots that are kept from one step to the next; the first is the state.
        draws_per_step: draws that belong to a step.
        ladder: the noise levels that the network is called with the index of; empty if they are not known, None if it
            is called with the state alone.
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
            if row.evaluate is not None and ladder is not None:
                _check_level(where, row.evaluate, ladder)
            written |= _evaluated(row)
            noisy = isinstance(row, Measure) or row.b is not None
            if noisy and not 0 <= row.draw < draws_per_step:
                raise ValueError(
                    f"{where} names draw {row.draw}, which is that of another step: draws are numbered from 0 to "
                    f"{draws_per_step - 1} with draws_per_step={draws_per_step}"
                )
            if isinstance(row, Measure):
                continue
            if not 1 <= len(row.terms) <= MAX_TERMS:
                raise ValueError(f"{where} must have 1 to {MAX_TERMS} terms, got {len(row.terms)}")
            written.add(row.out)
        kept = written & set(carries)
        number += times


def _check_level(where: str, evaluate: Evaluate, ladder: Sequence[float]) -> None:
    """Raises ValueError unless a noise level is one that the network can be asked for."""
    level, sigma = evaluate.level, evaluate.sigma
    if level is None:
        raise ValueError(f"{where} evaluates a network of levels without one; give Evaluate(level=...)")
    if not ladder:
        return
    if not 0 <= level < len(ladder):
        raise ValueError(f"{where} evaluates level {level}, but the ladder has the levels 0 to {len(ladder) - 1}")
    if sigma and not math.isclose(sigma, ladder[level], rel_tol=SAME_LEVEL):
        raise ValueError(
            f"{where} evaluates the network at sigma = {sigma}, which is not on its ladder: level {level} is "
            f"{ladder[level]}; a network that takes any sigma is one for a scheme of takes='sigma' whose ladder has it"
        )


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
