"""The place of a call in its chain, of which its draw number is a function.

A scheduler may be shared by requests that call it in turns. A *run* is one call of ``set_timesteps``, a *chain* is what
one seed, or the generators of one request, draw in a run.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.multiprocessing.reductions import StorageWeakRef

from fastlangevin.noise import MAX_DRAW, Generators, Seed, integer

__all__ = ["Chains", "Run", "WithChains"]

# Chains that were left unfinished are remembered, so that one that goes on is not taken for a new one.
REMEMBERED = 4096
# Tensors of seeds and ids whose values are kept, so that a chain's are read once and not at every update.
READ = 8


class _Same:
    """A key that equals itself alone: a generator's."""

    def __init__(self, value: object) -> None:
        self.value = value

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Same) and self.value is other.value

    def __hash__(self) -> int:
        return id(self.value)


def _plain(key: Hashable) -> bool:
    """Returns whether a key has a meaning in another process."""
    return all(map(_plain, key)) if isinstance(key, tuple) else not isinstance(key, _Same)


@dataclass(eq=False)
class Run:
    """One call of ``set_timesteps``.

    Attributes:
        number: of the call.
        draws: draws of a whole chain.
        settings: what else it was given.
        levels: the ends of the noise levels that were set for it.
    """

    number: int
    draws: int
    settings: tuple[Any, ...] = ()
    levels: tuple[float, float] | None = None


@dataclass
class Stand:
    """The position of a chain: the number of its next draw. ``fault`` records results that are not finite."""

    run: Run
    draw: int
    fault: Tensor | None = None


@dataclass(frozen=True)
class _Read:
    tensor: Tensor
    version: int
    values: tuple[int, ...]


@dataclass(frozen=True)
class _View:
    run: Run
    storage: StorageWeakRef
    dtype: torch.dtype


class Chains:
    """The runs of a scheduler, and where their chains stand.

    Attributes:
        run: the latest.
        draw: the number after the last draw.
    """

    def __init__(self) -> None:
        self.run = Run(0, 0)
        self.draw = 0
        self._first = 0
        self._stands: OrderedDict[tuple[Hashable, int], Stand] = OrderedDict()
        self._last: Hashable = None
        self._views: dict[int, _View] = {}
        self._read: list[_Read] = []

    def key(
        self, seed: Seed | None, generator: Generators | None, sample_ids: Tensor | Sequence[int] | None, batch: int
    ) -> Hashable:
        """The chain that a call belongs to: its seed, or its generators, and its samples."""
        if seed is not None:
            source = self._values(seed)
        elif isinstance(generator, Sequence):
            source = tuple(map(_Same, generator))
        else:
            source = _Same(generator)
        return seed is not None, source, batch if sample_ids is None else self._values(sample_ids)

    def _values(self, given: int | Tensor | Sequence[int]) -> Hashable:
        if not isinstance(given, Tensor):
            return tuple(map(int, given)) if isinstance(given, Iterable) else int(given)
        if given.is_inference():  # without a version, which would tell of changes in place
            return tuple(given.flatten().tolist())
        for each in self._read:
            if each.tensor is given and each.version == given._version:
                return each.values
        values = tuple(given.flatten().tolist())
        self._read = [_Read(given, given._version, values), *self._read[: READ - 1]]
        return values

    def begin(self, timesteps: Tensor, draws: int, *settings: Any) -> None:
        """A run of these timesteps, in which chains begin at draw 0."""
        self.run = Run(self.run.number + 1, draws, settings)
        self.draw = self._first = 0
        for key in [key for key, stand in self._stands.items() if stand.draw >= stand.run.draws]:
            del self._stands[key]
        self._views = {key: view for key, view in self._views.items() if not view.storage.expired()}
        self.watch(timesteps)

    def watch(self, timesteps: Tensor) -> None:
        """Have the elements of these timesteps tell their places in the latest run."""
        # A weak reference keeps its address from being used again, so that no other storage is taken for this one.
        storage = StorageWeakRef(timesteps.untyped_storage())
        self._views[storage.cdata] = _View(self.run, storage, timesteps.dtype)

    def move_to(self, draw: int) -> None:
        """Forget all chains; the next one begins at a draw."""
        self.draw = self._first = integer("draw", draw, 0, MAX_DRAW + 1)
        self._stands.clear()

    def element(self, timestep: object) -> tuple[Run, int] | None:
        """Run and place of a timestep that is an element of a run's timesteps, expanded or not; it is not read."""
        if not isinstance(timestep, Tensor) or timestep.layout is not torch.strided:
            return None
        if any(size > 1 and stride for size, stride in zip(timestep.shape, timestep.stride(), strict=True)):
            return None
        try:
            view = self._views.get(StorageWeakRef(timestep.untyped_storage()).cdata)
        except (NotImplementedError, RuntimeError):  # tensors of torch.func and the like have no storage
            return None
        if view is None or view.dtype != timestep.dtype or not timestep.numel():
            return None
        return view.run, int(timestep.storage_offset())

    def find(self, key: Hashable, fits: Callable[[Run, int], bool], remedy: str) -> tuple[Run, int]:
        """Run and next draw of a chain whose call does not tell its place.

        Args:
            key: the chain's, of :meth:`key`.
            fits: whether the call could be a draw of a run; never past its last.
            remedy: how the call can tell its place.

        Raises:
            RuntimeError: it could belong to chains of two runs.
        """
        here = self.stand(key, self.run)
        begun = self._first if here is None else here.draw
        going = self.left(key, fits)
        if len(going) + fits(self.run, begun) > 1:
            raise self.unclear(going[-1].draw, remedy)
        return (going[0].run, going[0].draw) if going else (self.run, begun)

    def left(self, key: Hashable, fits: Callable[[Run, int], bool]) -> list[Stand]:
        """The chains of this key in other runs than the latest, of whose next draw ``fits`` is true."""
        return [
            stand
            for (other, number), stand in self._stands.items()
            if other == key and number != self.run.number and fits(stand.run, stand.draw)
        ]

    def unclear(self, draw: int, remedy: str) -> RuntimeError:
        """The error of a call that could be draw ``draw`` of a chain that was left, or belong to a later one."""
        return RuntimeError(
            f"set_timesteps() was called after draw {draw - 1} of an unfinished chain with this seed or generator. "
            "This call could continue that chain or belong to a later one, so its noise is not known. "
            f"{remedy}; or give each request a scheduler of its own (from_config(scheduler.config)); or set "
            "scheduler.draw = 0 to begin anew"
        )

    def stand(self, key: Hashable, run: Run) -> Stand | None:
        """Returns where a chain stands in a run, if it has begun."""
        return self._stands.get((key, run.number))

    def fault(self, key: Hashable, run: Run) -> Tensor | None:
        """A chain's record of results that are not finite, if it has one."""
        stand = self.stand(key, run)
        return None if stand is None else stand.fault

    def advance(self, key: Hashable, run: Run, draw: int, fault: Tensor | None) -> None:
        """The next draw of a chain is ``draw``."""
        self.draw, self._last = draw, key
        self._stands[key, run.number] = Stand(run, draw, fault)
        self._stands.move_to_end((key, run.number))
        if len(self._stands) > REMEMBERED:
            self._stands.popitem(last=False)

    def __getstate__(self) -> dict[str, Any]:
        """For copies, in which generators and storages are other objects: a chain of theirs is the next to begin."""
        stands = OrderedDict((key, Stand(each.run, each.draw)) for key, each in self._stands.items() if _plain(key))
        first = self._first if self._last is None or _plain(self._last) else self.draw
        return {**vars(self), "_stands": stands, "_first": first, "_last": None, "_views": {}, "_read": []}


class WithChains:
    """A scheduler's share in its chains."""

    timesteps: Tensor | None
    _chains: Chains

    @property
    def draw(self) -> int:
        """The number after the last draw's; setting it forgets all chains, and the next one begins there."""
        return self._chains.draw

    @draw.setter
    def draw(self, draw: int) -> None:
        self._chains.move_to(draw)

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state)
        if self.timesteps is not None:
            self._chains.watch(self.timesteps)
