"""A scheme as a text: one line for each run of steps that are alike."""

from __future__ import annotations

from collections.abc import Iterable

from fastlangevin.schemes.table import Apply, Clamp, Measure, Row, Step

__all__ = ["listed"]

# Lines of a table that is printed whole; of a longer one the first and the last are.
LONGEST = 24


def listed(title: str, runs: Iterable[tuple[Step, int]], denoise: Step | None) -> str:
    """The table of a scheme.

    Args:
        title: the first line.
        runs: its steps, with how often each is made.
        denoise: the step after the last one, or None.
    """
    lines: list[tuple[str, ...]] = []
    done = 0
    for step, times in runs:
        numbers = f"{done}" if times == 1 else f"{done}-{done + times - 1}"
        lines += _of_step(numbers, step)
        done += times
    if denoise is not None:
        lines += _of_step("denoise", denoise)
    if len(lines) > LONGEST:
        half = LONGEST // 2
        lines = [*lines[:half], ("...", "", "", ""), *lines[-half:]]
    lines.insert(0, ("step", "level", "sigma", "row"))
    widths = [max(len(line[place]) for line in lines) for place in range(3)]
    rows = (
        "  ".join((*(text.rjust(width) for text, width in zip(line, widths, strict=False)), line[3])) for line in lines
    )
    return "\n".join((title, *(row.rstrip() for row in rows)))


def _of_step(numbers: str, step: Step) -> list[tuple[str, ...]]:
    lines: list[tuple[str, ...]] = []
    for row in step.rows:
        sigma = "" if row.evaluate is None else f"{row.evaluate.sigma:.6g}"
        level = "" if step.level is None else f"{step.level}"
        lines.append(("" if lines else numbers, "" if lines else level, sigma, _of_row(row)))
    return lines


def _of_row(row: Row) -> str:
    if isinstance(row, Clamp):
        return f"{row.slot} <- clamp({row.slot}, {row.low:g}, {row.high:g})"
    if isinstance(row, Apply):
        return f"x <- {row.name}(x)" if row.draw is None else f"x <- {row.name}(x, z[{row.draw}])"
    if isinstance(row, Measure):
        return f"x <- x + a score + sqrt(2 a) z, a = 2*{row.alpha:g}*({row.snr:g} ||z||/||score||)^2 by {row.norm}"
    terms = [slot if factor == 1 else f"{factor:.6g} {slot}" for slot, factor in row.terms.items()]
    if row.b is not None:
        terms.append(f"{row.b:.6g} z" if row.draw == 0 else f"{row.b:.6g} z[{row.draw}]")
    text = f"{row.out} <- {' + '.join(terms)}".replace("+ -", "- ")
    return text if row.evaluate is None or row.evaluate.alpha == 1 else f"{text}  (alpha {row.evaluate.alpha:.6g})"
