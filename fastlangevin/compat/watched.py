"""A look at the chains of the stand-ins that make their updates themselves: states that are not finite."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from fastlangevin.noise import Address
from fastlangevin.ops import NO_FAULT
from fastlangevin.samplers import ChainState
from fastlangevin.samplers.advancing import watchable
from fastlangevin.samplers.watching import EVERY, Watch, not_finite

__all__ = ["Watched"]


class Watched(Watch):
    """The watch of a chain whose steps are not told by draw numbers: a step may be several updates, or have no draw.

    The kernels of a step record in a row of its own, so that its number is known whatever its draws are. The rows are
    read every 32 steps and at the end, as the record of a sampler. What is recorded counts where the state still is not
    finite then: a known region may have taken its place.

    Args:
        x: the first state ``(B, ...)``.
        total: steps, one for each noise level, which have their numbers from 0.
        address: of the noise, whose seed and samples the error's state has.
        chain: what the chain is, for the error's ``state``.
    """

    def __init__(self, x: Tensor, total: int, address: Address, chain: str) -> None:
        record = {"sampler": chain}
        start = ChainState(x, 0, address.seed, address.sample_ids, address.sample_offset, record=record)
        super().__init__(start, total, lambda step: min(step, total - 1), False, "raise" if watchable(x) else None, 0)
        self._rows: tuple[Tensor, ...] = ()
        if self.fault is not None:
            self._record = self.fault.repeat(EVERY, 1)
            self._rows = self._record.unbind()

    def row(self, step: int) -> Tensor | None:
        """Where the kernels of a step record, as ``fault=``."""
        return self._rows[step % EVERY] if self._rows else None

    def look(self, x: Tensor, step: int) -> None:
        """Looks at the state after a step whose updates may have recorded nothing. Without waiting for the device."""
        if self.fault is not None:
            self.find(x, x, step)

    def after(self, x: Tensor, step: int) -> None:
        """After a step: raises NonFiniteError if it is the 32nd since the last look and the state is not finite."""
        if (step + 1) % EVERY == 0:
            self._raise(x, step, step)

    def end(self, x: Tensor, step: int) -> None:
        """At the end: raises NonFiniteError if the result is not finite. ``step`` is that of its last update."""
        self._raise(x, self.total - 1, step)

    def _raise(self, x: Tensor, last: int, step: int) -> None:
        if self.fault is None or not self.fault.numel():
            return
        if int(torch.minimum(self._record.amin(0), self.fault).min()) == NO_FAULT:
            return
        first = last - last % EVERY
        steps = torch.arange(first, first + EVERY, dtype=torch.int64, device=self.fault.device)[:, None]
        found = torch.where(self._record != NO_FAULT, steps, NO_FAULT).amin(0)
        self._record.fill_(NO_FAULT)
        self.fault = torch.where(not_finite(x), torch.minimum(self.fault, found).clamp(max=step), NO_FAULT)

        def state() -> ChainState:
            return replace(self.start, x=x.clone(), step=last + 1, fault=self.record())

        self.check(last + 1, state, now=True)

    def advice(self, where: str) -> str:
        """As the base's, of a chain that cannot be resumed."""
        return (
            f"The chain diverged, or what the network returned is not finite: check what it returns{where}, or take "
            "smaller steps: more levels, or a smaller snr where there is a corrector. This error's .state holds the "
            "states of all samples when this was found"
        )
