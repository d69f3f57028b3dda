"""The steps of a chain as replays of captured ones where that can be.

An update of each kind is captured where it is first met and replayed from then on. Before that the score is called six
times more: on copies of the state to be warm, while captured, and to compare a replay with an update of the loop, bit
for bit, at the level farthest on. Whatever goes wrong leaves state, draw numbers and PyTorch's generators as they were,
and the loop goes on by its own calls.

Replayed is what was captured: what a score does in Python, such as counting its calls or choosing by a number, it does
no more, and the memory of its weights must stay where it is. The comparison finds much of that, not all; then
``cuda_graph=False`` is the way. Casts of autocast are made anew in every replay. What PyTorch's generator draws, such
as dropout, differs from replay to replay, and is compared with the loop's like all else. A network compiled by
``torch.compile`` is captured as any other; one that makes CUDA graphs of its own, ``mode="reduce-overhead"``, is not.
"""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Protocol

import torch
from torch import Tensor

from fastlangevin.calling import same_bits
from fastlangevin.samplers.cuda_graph import CudaGraphs
from fastlangevin.samplers.device_steps import DeviceSteps, Kind
from fastlangevin.samplers.options import CudaGraph
from fastlangevin.samplers.stepping import Stepper

__all__ = ["Replays", "replays"]

# Updates of a kind that must be left for "auto" to capture it: six calls of the score for nothing, where the device and
# not its launches takes the time, are then at most 6 in 100.
WORTH = 100

logger = logging.getLogger("fastlangevin")


class Graphs(Protocol):
    """A way of capturing updates, such as :class:`CudaGraphs`."""

    def warm(self, update: Callable[[], None]) -> None: ...
    def capture(self, update: Callable[[], None]) -> Callable[[], None]: ...
    def close(self) -> None: ...


def graphs_for(device: torch.device) -> Graphs | None:
    """Returns the way of capturing on a device, or None."""
    return CudaGraphs(device) if device.type == "cuda" else None


@contextmanager
def replays(chain: Stepper, done: int, mode: CudaGraph) -> Iterator[Replays | None]:
    """Yields the executor that replays the steps of a chain, or None if they are not captured.

    Raises:
        ValueError: ``mode`` is True where steps of this chain cannot be captured.
        RuntimeError: it is True and capturing one failed; also raised by the step.
    """
    graphs = None
    if mode is not False and not torch.compiler.is_compiling():
        graphs, why = _means(chain, done, mode)
        if mode is True and why is not None:
            raise ValueError(f"cuda_graph=True cannot be done: {why}; leave it 'auto'")
        if why is not None and chain.x.is_cuda:
            _tell(logging.INFO, why)
    if graphs is None:
        yield None
        return
    try:
        yield Replays(chain, graphs, mode)
    finally:
        graphs.close()


def _means(chain: Stepper, done: int, mode: CudaGraph) -> tuple[Graphs | None, str | None]:
    """Returns the way of capturing a chain's updates, or None and, if it is worth telling, the reason."""
    if chain.region is not None:
        return None, "with inpainting= the noise of the region is made between updates"
    if chain.noise is not None:
        return None, "this sampler makes its noise outside of the update"
    if chain.scheme.carries != ("x",):
        return None, f"{chain.scheme.name} keeps slots beside the state from step to step"
    if torch.cuda.is_available() and torch.cuda.is_current_stream_capturing():
        return None, "a CUDA graph is being captured already"
    if not chain.x.numel() or chain.scheme.total - done < _least(mode):
        return None, None
    graphs = graphs_for(chain.x.device)
    if graphs is None:
        return None, f"the samples are on {chain.x.device}, and CUDA graphs are of CUDA devices"
    if any(step.applies for step, _ in chain.scheme.runs()):
        return None, f"{chain.scheme.name} has rows that are functions"
    return graphs, None


def _least(mode: CudaGraph) -> int:
    """Returns how many updates of a kind must be left for a capture: with one there is nothing to replay."""
    return 2 if mode is True else WORTH


@functools.lru_cache(maxsize=256)
def _tell(level: int, why: str) -> None:
    logger.log(level, "updates are launched one by one, not as a CUDA graph: %s", why)


class Replays:
    """Makes the updates of a chain, in any order of their numbers."""

    def __init__(self, chain: Stepper, graphs: Graphs, mode: CudaGraph) -> None:
        self.chain = chain
        self.graphs = graphs
        self.mode = mode
        self.steps = DeviceSteps(chain)
        self.captured: dict[Kind, Callable[[], None]] = {}
        self.next = -1, -1
        self.failed = False

    def run(self, done: int) -> int:
        """Replays the step of a number: returns 1, or 0 if the stepper must make it."""
        # Norms that are kept are measured between the score and the update.
        watch = self.chain.watch
        measured = bool(watch.kept) and watch.wants(done, self.chain.scheme.level(done))
        kind = None if self.failed or measured else self._kind(done)
        if kind is None:
            return 0
        replay = self.captured[kind]
        if self.next != (done, self.steps.first):
            self.steps.seek(done)
        before = self.chain.evaluations
        replay()
        self.chain.evaluations = before + kind.evaluations
        self.next = done + 1, self.steps.first
        if not self.chain.x.is_inference():
            torch.autograd.graph.increment_version(self.chain.x)
        return 1

    def _kind(self, index: int) -> Kind | None:
        """The kind of a step, if one of that kind has been captured."""
        try:
            kind = self.steps.kind(index)
            if kind not in self.captured and self.steps.counts[kind] >= _least(self.mode):
                self.captured[kind] = self._capture(kind, index)
        except Exception as error:
            self.failed = True
            why = f"the update cannot be captured: {type(error).__name__}: {error}".split("\n")[0]
            if self.mode is True:
                raise RuntimeError(f"cuda_graph=True cannot be done: {why}; leave it 'auto'") from error
            _tell(logging.WARNING, why)
            return None
        return kind if kind in self.captured else None

    def _capture(self, kind: Kind, index: int) -> Callable[[], None]:
        x, steps = self.chain.x, self.steps
        last = steps.last(kind)
        kept, scratch, alone = x.clone(), x.clone(), x.clone()
        fault = self.chain.watch.record()
        counters, evaluations = steps.counters.clone(), self.chain.evaluations

        def warm_up() -> None:
            scratch.copy_(kept)
            steps.seek(index, counters)
            steps.step(kind, scratch, counters)

        self.next = -1, -1
        try:
            with _generators_kept(x):
                self.chain.run(last, alone)
            with _generators_kept(x), _casts_anew():
                self.graphs.warm(warm_up)
                steps.seek(index)
                replay = self.graphs.capture(lambda: steps.step(kind, x, steps.counters))
            with _generators_kept(x):
                x.copy_(kept)
                steps.seek(last)
                replay()
            if not same_bits(x, alone):
                raise RuntimeError(
                    "a replay has other bits than the loop's update: the score is not deterministic, or what it does "
                    "in Python differs from call to call"
                )
        except BaseException:
            torch.clear_autocast_cache()  # it may have a cast that was captured and never made
            raise
        finally:
            x.copy_(kept)
            self.chain.evaluations = evaluations
            if self.chain.watch.fault is not None and fault is not None:
                self.chain.watch.fault.copy_(fault)
        return replay


def _generators_kept(x: Tensor) -> AbstractContextManager[None]:
    """PyTorch's generators as they were when it ends."""
    return torch.random.fork_rng([x.device] if x.is_cuda else [])


@contextmanager
def _casts_anew() -> Iterator[None]:
    """Autocast without its cache: a cast must be part of the graph, and none of the graph's may be found by others."""
    cached = torch.is_autocast_cache_enabled()
    torch.set_autocast_cache_enabled(False)
    try:
        yield
    finally:
        torch.set_autocast_cache_enabled(cached)
