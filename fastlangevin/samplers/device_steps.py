"""The updates of a chain as functions of tensors on its device, so that a captured one can be replayed for the others.

What differs from update to update is read from the device: the draw number, and by the update's place in a table its
level and its coefficients. The update moves both on, so that a replay needs nothing of the host but its launch. The
seed, the sample ids and the clamp are those of the chain and stay as they are. An update is :meth:`Chain.move` either
way, the same operations on the same numbers: a coefficient is rounded to the computing dtype when it goes into the
table, where the kernels would have rounded it.
"""

from __future__ import annotations

from collections import Counter
from typing import Any, NamedTuple

import torch
from torch import Tensor

from fastlangevin.ops.arguments import compute_dtype
from fastlangevin.rules import Coefficients
from fastlangevin.samplers.one_by_one import Chain, Surroundings
from fastlangevin.samplers.signal import SignalToNoise

__all__ = ["DeviceSteps", "Kind"]

# Updates in a table: enough that filling it is nothing beside them, and small where a chain is of millions.
WINDOW = 4096


class Kind(NamedTuple):
    """What must be the same of two updates for one function to make both."""

    signal: SignalToNoise | None
    noisy: bool
    labelled: bool


class DeviceSteps:
    """The updates of a chain by their kind.

    ``counters`` is the draw number, then the place in the table, once for each sample: so that one addition moves all
    on and one lookup makes the labels ``(B,)``.
    """

    def __init__(self, chain: Chain) -> None:
        x = chain.x
        self.chain = chain
        self.batch = x.shape[0]
        self.window = min(WINDOW, chain.plan.total)
        self.table = torch.zeros((self.window, 3), dtype=compute_dtype(x), device=x.device)
        self.levels = torch.zeros(self.window, dtype=torch.int64, device=x.device)
        self.counters = torch.zeros(1 + max(self.batch, 1), dtype=torch.int64, device=x.device)
        self.kinds: list[Kind] = []
        self.counts: Counter[Kind] = Counter()
        self.first = 0

    def kind(self, index: int) -> Kind:
        """The kind of an update, whose table is filled if it is another than the last one's."""
        if not 0 <= index - self.first < len(self.kinds):
            self._fill(index)
        return self.kinds[index - self.first]

    def _fill(self, index: int) -> None:
        moves = [self.chain.plan.move(each) for each in range(index, min(index + self.window, self.chain.plan.total))]
        rows = [
            (rule.c, rule.a, rule.b or 0.0) if isinstance(rule, Coefficients) else (0.0, 0.0, 0.0) for rule, _ in moves
        ]
        table = torch.tensor(rows, dtype=self.table.dtype, device="cpu")
        if not bool(table.isfinite().all()):
            raise ValueError(f"a coefficient is not finite in {self.table.dtype}")
        self.table[: len(moves)].copy_(table)
        levels = [level or 0 for _, level in moves]
        self.levels[: len(moves)].copy_(torch.tensor(levels, dtype=torch.int64, device="cpu"))
        self.kinds = [
            Kind(None, rule.b is not None, level is not None)
            if isinstance(rule, Coefficients)
            else Kind(rule, True, level is not None)
            for rule, level in moves
        ]
        self.counts = Counter(self.kinds)
        self.first = index

    def last(self, kind: Kind) -> int:
        """The last update of a kind that the table has."""
        return self.first + len(self.kinds) - 1 - self.kinds[::-1].index(kind)

    def seek(self, index: int, counters: Tensor | None = None) -> None:
        """Makes an update that the table has the next one. By fills, which the host need not wait for."""
        counters = self.counters if counters is None else counters
        counters[0].fill_(index)
        counters[1:].fill_(index - self.first)

    def update(self, kind: Kind, x: Tensor, counters: Tensor) -> None:
        """The next update of ``x``, which must be of the kind, by ``counters``, which it moves on."""
        draw, place = counters[0], counters[1:]
        rule: Coefficients | SignalToNoise
        if kind.signal is None:
            c, a, b = self.table.index_select(0, place[:1])[0].unbind()
            numbers: Any = c, a, b if kind.noisy else None
            rule = Coefficients(*numbers)
        else:
            rule = kind.signal
        level = self.levels.index_select(0, place[: self.batch]) if kind.labelled else None
        self.chain.move(x, rule, level, Surroundings(self.chain.address._replace(draw=draw)))
        counters.add_(1)
