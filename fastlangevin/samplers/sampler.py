"""A sampler that is run again and again: ``Sampler``, which keeps what does not change from run to run."""

from __future__ import annotations

import weakref
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import replace
from typing import Any, Unpack

import torch
from torch import Tensor

from fastlangevin.kernels.address import Address
from fastlangevin.noise import Purpose, SampleOptions
from fastlangevin.samplers.calls import Score, check_score, score_calls
from fastlangevin.samplers.chain import ChainState, SamplingResult
from fastlangevin.samplers.options import DEFAULTS, ChainOptions, check_names, complete, takes
from fastlangevin.samplers.replaying import Replays, replays
from fastlangevin.samplers.sample import changed, drive
from fastlangevin.samplers.start import begin
from fastlangevin.samplers.stepping import Stepper
from fastlangevin.schemes import Scheme
from fastlangevin.schemes.scheme import check_scheme

__all__ = ["Sampler"]


OPTIONS = {name: default for name, default in DEFAULTS.items() if name != "shape"}


class Sampler:
    """Runs a scheme many times, with the bits of :func:`fastlangevin.sample` of the same seed and ids.

    Arguments are checked once. On a CUDA device steps are captured once, as ``cuda_graph`` says, and replayed in all
    runs; the seed and the ids of a run stand in tensors that the graph reads. One run at a time: a sampler must not be
    called from two threads.

    Args:
        score: as for :func:`fastlangevin.sample`. Its weights must stay where they are in memory.
        scheme: a table of numbers.
        shape: ``(B, ...)`` of the samples.
        options: those of :class:`fastlangevin.samplers.ChainOptions`. Seed and ids are usually given to each run.

    Raises:
        TypeError, ValueError: an argument is of the wrong kind or out of range.
    """

    @takes(ChainOptions, OPTIONS)
    def __init__(self, score: Score, scheme: Scheme, shape: Sequence[int], **options: Any) -> None:
        everything: Any = {**options, "shape": shape}
        self._options = complete(everything, ChainOptions)
        check_scheme(scheme)
        if scheme.points > 1:
            raise ValueError(f"a Sampler makes samples of noise of their own, not rows of {scheme.name}; call sample()")
        check_score(score, scheme)
        self.scheme = changed(scheme, self._options)
        self.scheme.check()
        self._score = score_calls(score, self.scheme, self._options)
        self._graphs: Replays | None = None
        self._stepper: Stepper | None = None
        self._address: Address | None = None
        self._open = ExitStack()
        weakref.finalize(self, self._open.close)

    def __call__(self, **samples: Unpack[SampleOptions]) -> Tensor | SamplingResult:
        """Runs a chain.

        Args:
            samples: the seed and the samples' ids, :class:`fastlangevin.noise.SampleOptions`.

        Returns:
            The samples ``(B, ...)``, or a :class:`SamplingResult` if the sampler was made with ``full_output``.

        Raises:
            TypeError, ValueError: an argument is of the wrong kind or out of range.
            NonFiniteError: a state is not finite, with ``non_finite="raise"``.
        """
        check_names(SampleOptions, samples)
        everything: Any = {**self._options, **samples}
        options = complete(everything, ChainOptions)
        start = begin(self.scheme, options)
        with torch.no_grad():
            result = drive(self._score, self._ready(start), self._graphs, start, options)
        if self._graphs is not None:
            # The memory of the chain is that of the next run.
            result = replace(result, samples=result.samples.clone())
        return result if options["full_output"] else result.samples

    def _ready(self, start: ChainState) -> Stepper:
        """Returns the stepper of a run, in the memory of the run before if its steps are replayed."""
        if self._stepper is None:
            self._stepper = kept = Stepper(self._score.at, self.scheme, start, self._options)
            own, self._address = kept.address, _in_tensors(start)
            kept.address = self._address
            self._graphs = self._open.enter_context(replays(kept, 0, self._options["cuda_graph"]))
            if self._graphs is None:
                kept.address = own
            return kept
        if self._graphs is None:
            return Stepper(self._score.at, self.scheme, start, self._options)
        assert self._address is not None
        place = _in_tensors(start)
        for held, given in ((self._address.seed, place.seed), (self._address.sample_ids, place.sample_ids)):
            assert isinstance(held, Tensor)
            assert isinstance(given, Tensor)
            if held.shape != given.shape:
                raise ValueError(
                    "seed= must be of one kind in all runs of a Sampler: a number, or one for each sample; make another"
                )
            held.copy_(given)
        self._stepper.restart(start, self._address)
        return self._stepper


def _in_tensors(start: ChainState) -> Address:
    """The address of a chain with its seed and its ids in tensors on the state's device."""
    x, seed = start.x, start.seed
    if not isinstance(seed, Tensor):
        signed = seed - 2**64 if seed >= 2**63 else seed
        seed = torch.tensor(signed, dtype=torch.int64, device=x.device)
    ids = start.sample_ids
    if ids is None:
        first = start.sample_offset
        ids = torch.arange(first, first + len(x), dtype=torch.int64, device=x.device)
    return Address(seed.clone(), 0, ids.clone(), 0, int(Purpose.LANGEVIN))
