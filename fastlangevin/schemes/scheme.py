"""A scheme: a sampler as a table of numbers, whose steps are made by their number."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, Literal, NamedTuple, get_args

import numpy as np

from fastlangevin.noise import MAX_DRAW, integer
from fastlangevin.schemes.checks import check_steps
from fastlangevin.schemes.inpainting import Inpainting
from fastlangevin.schemes.law import Law, affine, follow
from fastlangevin.schemes.listing import listed
from fastlangevin.schemes.table import Apply, Clamp, Measure, Move, Row, Step, predicting
from fastlangevin.scores import Output

__all__ = ["Init", "Scheme", "Takes", "check_draws", "check_scheme"]

Takes = Literal["labels", "sigma", "nothing"]
Init = Literal["uniform", "normal"] | tuple[float, float]


class Scheme(NamedTuple):
    """A sampler as a table.

    ``print(scheme)`` shows the table, neighbouring steps that are alike in one line.

    Attributes:
        name: of the sampler.
        make: the step of a number, from 0; for the same row of the table it may return the same object.
        total: steps of a whole chain.
        ladder: sigma of each level in units of the data, largest first; empty for a scheme that is on no ladder.
        record: what decides the samples, by name; a chain is resumed under an equal record only.
        takes: what a network is called with beside the state: ``"labels"``, int64 ``(B,)``; ``"sigma"``, ``(B,)`` in
            the state's dtype and in units of the data; or ``"nothing"``.
        spread: standard deviation of ``init="normal"``, in units of the data.
        denoise: a step after the last one, which is not numbered: a chain that is stopped before it makes it when it is
            resumed.
        draws_per_step: draw numbers that belong to a step, used or not.
        region: what is known of the samples, or None.
        points: samples of a row that share their noise, see :meth:`interpolating`; 1 for none.
        first_draw: the first draw of the first step; those before it may have gone into the initial state.
        carries: slots that are kept from one step to the next.
        output: what the network returns, as for :class:`Evaluate`.
    """

    name: str
    make: Callable[[int], Step]
    total: int
    ladder: list[float]
    record: dict[str, Any]
    takes: Takes = "labels"
    spread: float = 1.0
    denoise: Step | None = None
    draws_per_step: int = 1
    carries: tuple[str, ...] = ("x",)
    output: Output = "score"
    first_draw: int = 0
    region: Inpainting | None = None
    points: int = 1

    @property
    def simple(self) -> bool:
        """Returns whether the draw of a step is its number, and no slot but the state is kept."""
        return self.draws_per_step == 1 and not self.first_draw and self.carries == ("x",)

    def step(self, number: int) -> Step:
        """The step of a number.

        Args:
            number: from 0 to ``total - 1``.

        Raises:
            ValueError: there is no such step.
        """
        place = integer("step", number, -(2**63), 2**63)
        if not 0 <= place < self.total:
            last = f"0 to {self.total - 1}" if self.total else "none, since it has no steps"
            raise ValueError(f"step must be one of the scheme {self.name}, {last}, got {number!r}")
        return self.make(place)

    def check(self) -> None:
        """Raises ValueError for a step that cannot be made, as :func:`fastlangevin.sample` does before the first one.

        Such a step reads a slot that was not written, names a draw that belongs to another step, or asks the network
        for a noise level that is not on its ladder.
        """
        ladder = None if self.takes == "nothing" else self.ladder
        check_steps(self.name, self.runs(), self.carries, self.draws_per_step, ladder)
        if self.denoise is not None:
            check_steps(self.name, [(self.denoise, 1)], self.carries, self.draws_per_step, ladder)

    def level(self, number: int) -> int | None:
        """The noise level of a step, or of the denoise step, whose number is ``total``."""
        return self.make(number).level if number < self.total or self.denoise is None else self.denoise.level

    def runs(self) -> Iterator[tuple[Step, int]]:
        """The steps in their order, neighbours that are one object once, and how many they are."""
        last, times = None, 0
        for number in range(self.total):
            step = self.make(number)
            if step is last:
                times += 1
                continue
            if last is not None:
                yield last, times
            last, times = step, 1
        if last is not None:
            yield last, times

    @property
    def evaluations(self) -> int:
        """Calls of the network in a whole chain."""
        calls = sum(step.evaluations * times for step, times in self.runs())
        return calls if self.denoise is None else calls + self.denoise.evaluations

    def law(
        self,
        mean: float | np.ndarray,
        variance: float | np.ndarray,
        *,
        init: Init = "uniform",
        full: bool = False,
    ) -> Law:
        """The exact mean and variance of the samples, if the data are Gaussian and the score is exact.

        Every row of such a chain is affine in the state and the noise, so that both follow from the table without a
        sample.

        Args:
            mean: of the data, a number or an array of any shape.
            variance: of the data in units of the data squared, zero for a point, likewise. Elements are independent.
            init: what the chain begins with: ``"uniform"``, U(0, 1); ``"normal"``, N(0, ``spread``^2); or a pair of its
                mean and variance.
            full: give both after every step too.

        Returns:
            A :class:`Law`; with ``full`` its arrays have one axis more, the first, for the start, each step and the
            denoise step.

        Raises:
            ValueError: a row is not linear, as that of a measured step size or a clamp, or the score does not exist.
        """
        if self.region is not None:
            raise ValueError("law is that of samples of which nothing is known; leave inpainting= out")
        shape = np.broadcast_shapes(np.shape(mean), np.shape(variance))
        data = Law(*(np.array(np.broadcast_to(each, shape), dtype=np.float64) for each in (mean, variance)))
        if not (np.isfinite(data.mean).all() and np.isfinite(data.variance).all() and np.all(data.variance >= 0)):
            raise ValueError(f"mean must be finite, and variance finite and not negative, got {mean} and {variance}")
        named: dict[object, tuple[float, float]] = {"uniform": (0.5, 1 / 12), "normal": (0.0, self.spread**2)}
        begun = named.get(init, init)
        if not isinstance(begun, tuple | list) or len(begun) != 2 or not begun[1] >= 0:
            raise ValueError(f"init must be 'uniform', 'normal' or a pair of mean and variance, got {init!r}")
        first = Law(*(np.full(shape, each, dtype=np.float64) for each in begun))
        last = [] if self.denoise is None else [(self.denoise, 1)]
        maps = (
            (affine(step, self.carries, self.draws_per_step, data), times)
            for runs in (self.runs(), last)
            for step, times in runs
        )
        return follow(first, maps, len(self.carries), full)

    def predicting(self, output: Output, takes: Takes | None = None) -> Scheme:
        """The same scheme for a network that returns something else than the score; it is not converted, so that no
        digits are lost.

        Args:
            output: ``"score"``, ``"scaled"``, ``"noise"`` or ``"denoised"``, as for :class:`Evaluate`.
            takes: what the network is called with, by default what it was.

        Raises:
            ValueError: the scheme is not one of scores, ``output`` is not known, or a step needs the score itself.
        """
        if output not in get_args(Output):
            raise ValueError(f"output must be one of {', '.join(get_args(Output))}, got {output!r}")
        if self.output != "score":
            raise ValueError(f"the scheme {self.name} is one of output={self.output!r} already; take the one of scores")
        kept = self._replace(takes=self.takes if takes is None else takes)
        if output == "score":
            return kept
        steps = [step for step, _ in self.runs()] + ([] if self.denoise is None else [self.denoise])
        for step in steps:
            carried = [row.evaluate.into for row in step.rows if row.evaluate and row.evaluate.into in self.carries]
            if carried:
                # Its factors in the next step would be those of a score.
                raise ValueError(
                    f"{self.name} keeps the network's result in {carried[0]!r} from step to step, which must be the "
                    f"score, not output={output!r}; let a move copy it to the slot that is carried"
                )
            predicting(step, output)
        last = None if self.denoise is None else predicting(self.denoise, output)
        make = Changed(self.make, partial(predicting, output=output))
        return kept._replace(make=make, denoise=last, output=output)

    def noise_first(self) -> Scheme:
        """The same scheme with the noise of a step added first, and the score taken where it led to.

        Raises:
            ValueError: a step size is measured from the score, so that the score must come first.
        """
        return self._replace(make=Changed(self.make, self._parted))

    def _parted(self, step: Step) -> Step:
        rows: list[Row] = []
        for row in step.rows:
            if isinstance(row, Measure):
                raise ValueError(f"{self.name} has order='score' alone: its step size follows from the score")
            if isinstance(row, Apply):
                raise ValueError(f"{self.name} has order='score' alone: {row.name} is a function of the state")
            if isinstance(row, Move) and row.b is not None and row.evaluate is not None:
                slot = row.evaluate.slot
                rows.append(Move(slot, {slot: 1.0}, row.b, row.draw))
                row = row._replace(b=None)
            rows.append(row)
        return step._replace(rows=tuple(rows))

    def clamped(self, low: float, high: float, *, denoised: bool = True) -> Scheme:
        """The same scheme with the state clamped after every step.

        Args:
            low, high: ends of the interval, in units of the data.
            denoised: whether the result of the denoise step is clamped too.
        """

        clamp = partial(_clamped, row=Clamp("x", low, high))
        last = None if self.denoise is None else clamp(self.denoise) if denoised else self.denoise
        return self._replace(make=Changed(self.make, clamp), denoise=last)

    def inpainted(self, region: Inpainting) -> Scheme:
        """The same scheme with a known region, which is held at the data perturbed by the noise of its level.

        Args:
            region: the mask, the data, and when they are put in.

        Raises:
            TypeError, ValueError: it is none, or the scheme has no ladder of noise levels.
        """
        if not isinstance(region, Inpainting):
            raise TypeError(f"inpainting must be a fastlangevin.Inpainting(mask, known), got {type(region).__name__}")
        if not self.ladder:
            raise ValueError(f"inpainting= needs a ladder of noise levels, which the scheme {self.name} has not")
        return self._replace(region=region, record={**self.record, "inpainting": region.noise})

    def interpolating(self, points: int) -> Scheme:
        """The same scheme for rows of samples that share their noise (Song and Ermon 2020).

        Sample k of a row has the noise cos(phi_k) p + sin(phi_k) q, phi_k from 0 to pi/2, so that the samples of a row
        change gradually from one to another. Each has the law of the scheme. The states that a chain is given to begin
        with are those of the rows.

        Args:
            points: samples in each row, at least 2.

        Raises:
            TypeError, ValueError: it is out of range, or the steps have several draws.
        """
        if self.draws_per_step != 1:
            raise ValueError(f"{self.name} has {self.draws_per_step} draws a step; samples of a row share one")
        points = integer("points", points, 2, 2**20)
        return self._replace(points=points, record={**self.record, "points": points})

    def __str__(self) -> str:
        draws = f", {self.draws_per_step} draws each" if self.draws_per_step > 1 else ""
        title = f"{self.name}: {self.total} steps{draws}, {self.evaluations} evaluations"
        if self.region is not None:
            title += f", a known region by noise={self.region.noise!r}"
        if self.points > 1:
            title += f", rows of {self.points} samples that share their noise"
        return listed(title, self.runs(), self.denoise)

    def __repr__(self) -> str:
        return str(self)


def _clamped(step: Step, row: Clamp) -> Step:
    return step._replace(rows=(*step.rows, row))


class Changed:
    """Steps that are a function of others. That of the last one is kept, so that equal steps stay one object.

    Args:
        make: the others by number.
        change: the function.
    """

    def __init__(self, make: Callable[[int], Step], change: Callable[[Step], Step]) -> None:
        self.make = make
        self.change = change
        self.kept: tuple[Step | None, Step | None] = None, None

    def __call__(self, number: int) -> Step:
        given = self.make(number)
        last, made = self.kept
        if made is None or last is not given:
            made = self.change(given)
            self.kept = given, made
        return made


def check_scheme(scheme: object) -> Scheme:
    """Raises TypeError unless the object is a scheme; returns it."""
    if not isinstance(scheme, Scheme):
        raise TypeError(
            f"scheme must be a Scheme, as the functions of fastlangevin.schemes make it, got {type(scheme).__name__}"
        )
    return scheme


def check_draws(steps: int, draws_per_step: int = 1) -> int:
    """A number of steps, for which there must be enough draw numbers."""
    if steps * draws_per_step > MAX_DRAW + 1:
        raise ValueError(
            f"the chain has {steps} updates; the draw number has room for {(MAX_DRAW + 1) // draws_per_step}"
        )
    return steps
