"""The check of a table: what a row reads must have been written, and a draw belong to its step."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

from fastlangevin.kernels.address import MAX_TERMS
from fastlangevin.schemes.table import Evaluate, Move, Step, draw_of
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
            missing = [slot for slot in row.reads if slot not in written]
            if missing:
                raise ValueError(
                    f"{where} reads the slot {missing[0]!r}, which was not written; there are "
                    f"{', '.join(sorted(written))}. A slot that a later step reads must be one of its carries"
                )
            if row.evaluate is not None and ladder is not None:
                _check_level(where, row.evaluate, ladder)
            draw = draw_of(row)
            if draw is not None and not 0 <= draw < draws_per_step:
                raise ValueError(
                    f"{where} names draw {draw}, which is that of another step: draws are numbered from 0 to "
                    f"{draws_per_step - 1} with draws_per_step={draws_per_step}"
                )
            if isinstance(row, Move) and not 1 <= len(row.terms) <= MAX_TERMS:
                raise ValueError(f"{where} must have 1 to {MAX_TERMS} terms, got {len(row.terms)}")
            written |= {row.out} if row.evaluate is None else {row.evaluate.into, row.out}
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
