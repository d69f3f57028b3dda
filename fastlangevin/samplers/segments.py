"""Many updates of a chain in one call, for scores that are small enough to be computed inside a kernel.

A score says so by a method ``chain_kernel``, as in :class:`fastlangevin.chain_score.ChainScore`. The samplers ask for
it where nothing looks at the chain between two updates or changes it there; otherwise, and with scores that have none,
the loop makes one update after the other. The bits are the same, but for the score of a network, which kernels compute
with roundings of their own. Once a kernel has started a chain it also finishes it, one update at a time if each is
watched.
"""

from __future__ import annotations

import logging
import time
from itertools import groupby
from typing import Any

import torch
from torch import Tensor

from fastlangevin.chain_score import ChainKernel, Run, Segment
from fastlangevin.kernels.address import Address
from fastlangevin.samplers.chain import ChainState
from fastlangevin.samplers.frames import Frames
from fastlangevin.samplers.options import ChainOptions
from fastlangevin.samplers.stepping import Stepper
from fastlangevin.schemes import Step

__all__ = ["Segments"]

# A call cannot be interrupted, so the segments grow from the first length until a call takes this long.
FIRST_LENGTH = 64
SECONDS = 0.25

logger = logging.getLogger("fastlangevin")


class Segments:
    """Runs a chain segment by segment.

    Where a state is watched for values that are not finite and a segment ends with one, the segment is made again one
    update at a time, as are all that follow: so each sample's first is found, and frozen there if it is to be.

    Args:
        kernel: what makes a segment's updates.
        chain: its table, its state and what is looked for in that.
        start: where the chain begins.
        frames: the states that are kept.
        watched: whether the caller looks at each update, so that a segment has one.
    """

    def __init__(self, kernel: ChainKernel, chain: Stepper, start: ChainState, frames: Frames, watched: bool) -> None:
        self.kernel = kernel
        self.scheme = chain.scheme
        self.x = chain.x
        self.watch = chain.watch
        self.start = start
        self.frames = frames
        self.watched = watched
        self.singly = bool(self.watch.faults())
        self.length = 1 if watched else FIRST_LENGTH
        self.own_bits = bool(getattr(kernel, "own_bits", False))

    @classmethod
    def of(
        cls, score: object, chain: Stepper, start: ChainState, frames: Frames, options: ChainOptions
    ) -> Segments | None:
        """The segments of a chain, or None where its updates are made one by one.

        Raises:
            ValueError: the caller asks for a kernel that does not exist.
        """
        found: Segments | None = None
        reason, matmul = _reason_for_loop(chain, start, options), options["matmul"]
        if reason is None:
            kernel_for = getattr(score, "chain_kernel", None)
            kernel = None if kernel_for is None else kernel_for(start.x, options["impl"])
            if kernel is None:
                reason = _reason_of(score, start.x, options["impl"])
            else:
                if matmul != "fp32":
                    kernel = _multiplying(kernel, matmul)
                found = cls(kernel, chain, start, frames, options["callback"] is not None)
                if found.watched and not found.own_bits:
                    found, reason = None, "a callback looks at every update"
        was_kernel = start.record.get("chain") == "kernel"
        if start.step and found is not None and found.own_bits and not was_kernel:
            found, reason = None, "the chain was begun update by update, and goes on with those roundings"
        if found is None and (options["chain"] == "kernel" or matmul != "fp32"):
            asked = "chain='kernel'" if matmul == "fp32" else f"matmul={matmul!r}"
            raise ValueError(f"{asked} needs a kernel that makes whole chains, but {reason}; leave it out")
        if start.step and found is None and was_kernel:
            logger.warning("a chain that a kernel began goes on update by update, with other roundings: %s", reason)
        return found

    def record(self, record: dict[str, Any]) -> dict[str, Any]:
        """A chain's record, which says where the score has a kernel's roundings."""
        return {**record, "chain": "kernel"} if self.own_bits else record

    def denoise(self, step: Step) -> bool:
        """Makes the denoise step with the kernel's score, if that has bits of its own."""
        rule = step.rule
        if not self.own_bits or rule is None:
            return False
        before = self.x.clone()
        self.kernel(self.x, Segment(self._address(0), [Run(rule, step.level or 0, 1)], 0, None))
        if self.watch.fault is not None:
            self.watch.find(self.x, before, self.scheme.total)
        return True

    def run(self, done: int) -> int:
        """Makes the steps from number ``done`` on, and says how many: 0 where the next is one for the loop."""
        runs = self._runs(done, 1 if self.singly else self.length)
        made = sum(run.times for run in runs)
        if not made:
            return 0
        if self.watch.fault is None:
            self._make(done, runs)
            return made
        if made > 1:
            before, kept = self.x.clone(), self.frames.count
            self._make(done, runs)
            if bool(self.x.isfinite().all()):
                return made
            self.singly = True
            self.x.copy_(before)
            self.frames.count = kept
            runs = self._runs(done, 1)
        # The loop's update looks at its result itself, where the bits are the same. Neither waits for the device.
        if not self.own_bits:
            return 0
        before = self.x.clone()
        self.kernel(self.x, Segment(self._address(done), runs, 0, None))
        self.watch.find(self.x, before, done)
        return 1

    def _address(self, first: int) -> Address:
        return self.start.address._replace(draw=first)

    def _make(self, done: int, runs: list[Run]) -> None:
        made = sum(run.times for run in runs)
        segment = Segment(self._address(done), runs, self.frames.every, self.frames.coming(done + made))
        begun = time.perf_counter()
        self.kernel(self.x, segment)
        if self.watched:
            return
        if time.perf_counter() - begun < SECONDS:
            self.length *= 2
        elif self.length > 1:
            self.length //= 2

    def _runs(self, done: int, length: int) -> list[Run]:
        runs: list[Run] = []
        steps = map(self.scheme.make, range(done, min(done + length, self.scheme.total)))
        for step, same in groupby(steps):
            rule = step.rule
            if rule is None:
                break
            runs.append(Run(rule, step.level or 0, sum(1 for _ in same)))
        return runs


def _reason_for_loop(chain: Stepper, start: ChainState, options: ChainOptions) -> str | None:
    """Returns the first option that acts between two updates or keeps a kernel from the state, or None."""
    acting = {
        "drift=": options["drift"] is not None,
        "inpainting=": chain.region is not None,
        "clamp=": options["clamp"] is not None,
        "order='noise'": options["order"] != "score",
        "noise that is not of the chain's own addresses": chain.noise is not None,
        "telemetry=": bool(options["telemetry"]),
        "cuda_graph=True": options["cuda_graph"] is True,
    }
    reasons = [f"{name} acts between two updates" for name, acts in acting.items() if acts]
    if not chain.scheme.simple:
        reasons.append(f"the steps of {chain.scheme.name} are more than an update of the state")
    if start.x.dtype != torch.float32:
        reasons.append(f"the state is {start.x.dtype} and not torch.float32")
    if not start.x.is_contiguous():
        reasons.append("the state is not contiguous")
    if options["chain"] == "loop":
        reasons.append("chain='loop' was asked for")
    return reasons[0] if reasons else None


def _reason_of(score: object, x: Tensor, impl: str) -> str:
    why = getattr(score, "why_no_kernel", None)
    reason = None if why is None else why(x, impl)
    return reason or f"the score, {type(score).__name__}, has none for impl={impl!r}"


def _multiplying(kernel: ChainKernel, matmul: str) -> ChainKernel:
    change = getattr(kernel, "multiplying", None)
    if change is None:
        raise ValueError(f"matmul={matmul!r} is for the kernel of a network, and this score has no matrix products")
    changed: ChainKernel = change(matmul)
    return changed
