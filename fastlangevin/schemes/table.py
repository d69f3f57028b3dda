"""The types of a table: what a step does, row by row, and what is evaluated before a row."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import NamedTuple, get_args

from torch import Tensor

from fastlangevin.kernels.address import Address
from fastlangevin.ladders import positive
from fastlangevin.rules import Coefficients, SignalNorm
from fastlangevin.scores import Output

__all__ = ["Apply", "Clamp", "Evaluate", "Measure", "Move", "Row", "Step", "draw_of", "predicting", "step_of"]


class Evaluate(NamedTuple):
    """One call of the network, before a row.

    The perturbed data are alpha x_0 + sigma z. A network of labels is given ``level``.

    Attributes:
        slot: name of the slot that the network reads.
        into: name of the slot that its result is written to.
        level: index of the noise level, 0 for the largest; None for a score that takes no level.
        sigma: standard deviation of the noise, in units of the data.
        alpha: factor of the data, 1 for variance exploding noise.
        output: what the network returns: ``"score"``; ``"scaled"``, sigma times the score; ``"noise"``, the predicted
            z, which is -sigma times the score; ``"denoised"``, the predicted x_0, (x + sigma^2 score)/alpha.
    """

    slot: str = "x"
    into: str = "score"
    level: int | None = None
    sigma: float = 0.0
    alpha: float = 1.0
    output: Output = "score"


# The score of the state itself.
STATE = Evaluate()


class Move(NamedTuple):
    """A row: out <- a_0 s_0 + a_1 s_1 + ... + b z, summed in this order.

    Attributes:
        out: name of the slot that is written; it may be one of those that are read.
        terms: factor of each slot, by its name.
        b: standard deviation of the noise, in units of the data; None draws nothing.
        draw: which of the draws of its step the noise is, from 0.
        evaluate: what the network is called for first, or None.
    """

    out: str
    terms: Mapping[str, float]
    b: float | None = None
    draw: int = 0
    evaluate: Evaluate | None = None

    @property
    def reads(self) -> tuple[str, ...]:
        """The slots that must be written before it."""
        if self.evaluate is None:
            return tuple(self.terms)
        # The network's result is written by the row itself.
        return self.evaluate.slot, *(slot for slot in self.terms if slot != self.evaluate.into)


@dataclass(frozen=True)
class Measure:
    """A row whose coefficients are measured: the corrector of a signal-to-noise ratio (Song et al. 2021, Algorithm 4).

    x <- x + a score + sqrt(2 a) z with a = 2 alpha (snr ||z||/||score||)^2.

    Attributes:
        snr: the signal-to-noise ratio r, above zero.
        norm: ``"sample"``, each sample's own norms; ``"batch"``, their means over the batch, as it was published: a
            sample then depends on its batch; ``"sqrt_d"``, each sample's own score and sqrt(D) for the noise.
        alpha: 1 for variance exploding noise.
        evaluate: what the network is called for first.
        draw: which of the draws of its step the noise is, from 0.
    """

    snr: float
    norm: SignalNorm = "sample"
    alpha: float = 1.0
    evaluate: Evaluate = STATE
    draw: int = 0

    def __post_init__(self) -> None:
        positive("snr", self.snr)
        if self.norm not in get_args(SignalNorm):
            raise ValueError(f"norm must be one of {', '.join(get_args(SignalNorm))}, got {self.norm!r}")

    @property
    def out(self) -> str:
        """The slot that it writes."""
        return "x"

    @property
    def reads(self) -> tuple[str, ...]:
        """The slots that must be written before it."""
        return "x", self.evaluate.slot


class Clamp(NamedTuple):
    """A row: every element of a slot is clamped to an interval.

    Attributes:
        slot: its name.
        low, high: ends of the interval, in units of the data.
    """

    slot: str
    low: float
    high: float

    @property
    def out(self) -> str:
        """The slot that it writes."""
        return self.slot

    @property
    def reads(self) -> tuple[str, ...]:
        """The slots that must be written before it."""
        return (self.slot,)

    @property
    def evaluate(self) -> Evaluate | None:
        """None, for no call of the network."""
        return None


class Apply(NamedTuple):
    """A row: x <- function(x, address), for what is no sum of slots and noise, such as data that are put in.

    A step with such a row is not captured as a graph and has no law. States that are not finite are looked for when the
    step ends, not at each of its rows, since the function may replace them.

    Attributes:
        function: called with the state ``(B, ...)``, which it must not write to, and the address of the row's draw; it
            returns the next state. What it returns must depend on these two and on the step's number alone.
        name: what it does, for the printed table.
        draw: which of the draws of its step the address is of, from 0; None for a function that draws nothing.
    """

    function: Callable[[Tensor, Address], Tensor]
    name: str
    draw: int | None = None

    @property
    def out(self) -> str:
        """The slot that it writes."""
        return "x"

    @property
    def reads(self) -> tuple[str, ...]:
        """The slots that must be written before it."""
        return ("x",)

    @property
    def evaluate(self) -> Evaluate | None:
        """None: the function may make calls of its own, which the scheme does not count."""
        return None


Row = Move | Measure | Clamp | Apply


class Step(NamedTuple):
    """The rows between two states of a chain. A chain is stopped, resumed and called back between steps only.

    Attributes:
        rows: made in this order.
        level: index of the noise level, None for a chain without levels.
    """

    rows: tuple[Row, ...]
    level: int | None = None

    @property
    def rule(self) -> Coefficients | None:
        """The coefficients of a step that is a single update of the state by its own score; None for any other."""
        row, *others = self.rows
        if others or not isinstance(row, Move) or row.evaluate is None or row.draw or row.out != "x":
            return None
        if row.evaluate.slot != "x" or row.evaluate.level != self.level or [*row.terms] != ["x", row.evaluate.into]:
            return None
        c, a = row.terms.values()
        return Coefficients(c, a, row.b)

    @property
    def last(self) -> Row:
        """The last row that is not a clamp."""
        return next(row for row in reversed(self.rows) if not isinstance(row, Clamp))

    @property
    def draws(self) -> bool:
        """Returns whether a row adds noise."""
        return any(draw_of(row) is not None for row in self.rows)

    @property
    def applies(self) -> bool:
        """Returns whether a row is a function, after which a state that was not finite may be."""
        return any(isinstance(row, Apply) for row in self.rows)

    def outlives(self, place: int) -> bool:
        """Returns whether the result of a row's evaluation is read after the network's next call in the step."""
        at = self.rows[place].evaluate
        called = False
        for row in self.rows[place + 1 :]:
            called = called or row.evaluate is not None
            if at is None or (called and at.into in row.reads):
                return at is not None
            if row.out == at.into or (row.evaluate is not None and row.evaluate.into == at.into):
                return False
        return False

    def scores_last(self, place: int) -> bool:
        """Returns whether no row after that of a place calls the network."""
        return all(row.evaluate is None for row in self.rows[place + 1 :])

    @property
    def evaluations(self) -> int:
        """Returns how often the network is called."""
        return sum(row.evaluate is not None for row in self.rows)


def draw_of(row: Row) -> int | None:
    """Returns which of the draws of its step a row takes, None if it takes none."""
    if isinstance(row, Clamp) or (isinstance(row, Move) and row.b is None):
        return None
    return row.draw


def step_of(rule: Coefficients, evaluate: Evaluate) -> Step:
    """The step of one rule: x <- c x + a score + b z."""
    return Step((Move("x", {"x": rule.c, evaluate.into: rule.a}, rule.b, evaluate=evaluate),), evaluate.level)


def predicting(step: Step, output: Output) -> Step:
    """The step with the network's own output in place of the score.

    A move of factor a of the score has a/sigma of the scaled score, -a/sigma of the noise, and of the predicted data D
    the factor alpha a/sigma^2, with a/sigma^2 less of the state that the network read.

    Args:
        step: of scores.
        output: what the network returns, as for :class:`Evaluate`.

    Raises:
        ValueError: a row measures the score, reads it where the state that it is of is gone, or has no noise level.
    """
    rows: list[Row] = []
    at: dict[str, Evaluate] = {}  # the evaluations by the slots of their results
    gone: set[str] = set()  # results whose state was overwritten
    for row in step.rows:
        if isinstance(row, Measure):
            raise ValueError(f"a corrector of a signal-to-noise ratio needs the score, not output={output!r}")
        if isinstance(row, Move):
            if row.evaluate is not None:
                at[row.evaluate.into] = row.evaluate
                gone.discard(row.evaluate.into)
                row = row._replace(evaluate=row.evaluate._replace(output=output))
            lost = gone & set(row.terms)
            if lost and output == "denoised":
                raise ValueError(
                    f"a row reads {min(lost)!r} after the state that it is the score of was overwritten, which needs "
                    f"the score itself, not output={output!r}"
                )
            row = row._replace(terms=_of_output(row.terms, at, output))
            at.pop(row.out, None)
        gone |= {into for into, evaluate in at.items() if evaluate.slot == row.out}
        rows.append(row)
    return step._replace(rows=tuple(rows))


def _of_output(terms: Mapping[str, float], at: Mapping[str, Evaluate], output: Output) -> dict[str, float]:
    """Factors of the network's outputs, of these evaluations, for those of scores."""
    found = dict(terms)
    for into, a in terms.items():
        if into not in at:
            continue
        slot, sigma = at[into].slot, at[into].sigma
        if not sigma > 0:
            raise ValueError(f"output={output!r} needs a noise level above zero, got sigma = {sigma}")
        if output == "denoised":
            found[slot] = found.get(slot, 0.0) - a / sigma**2
            found[into] = at[into].alpha * a / sigma**2
        else:
            found[into] = a * {"score": 1.0, "scaled": 1 / sigma, "noise": -1 / sigma}[output]
    return found
