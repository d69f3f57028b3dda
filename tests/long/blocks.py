"""Records which Philox blocks a program draws, where the operations hand their arguments to the implementation.

The address that a launcher is given (seed, draw number, sample ids, purpose) is expanded to the words of key and
counter that the kernels make of it, one row a block. That the expansion is the kernels' own is checked on the calls
themselves: normals are made of the expanded rows, by Philox and Box and Muller's method alone, and what the launcher
wrote must follow from them to the bit.

A second pass over the same noise draws it again on purpose: the objective's ``dsm`` after ``perturb``, and the norm of
the noise that an update is about to draw. Such rows are kept apart, and each must be one that was drawn.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any
from unittest import mock

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fastlangevin import reference, runtime
from fastlangevin.kernels.address import Address, DrawTable, Update
from fastlangevin.kernels.operands import Objective, Perturbation, SampleNorms, Sums
from fastlangevin.noise import Purpose
from fastlangevin.runtime import Launchers

Words = NDArray[np.uint32]

MASK = np.uint64(0xFFFFFFFF)


@dataclass(frozen=True)
class Draw:
    """The blocks of one launch.

    Args:
        keys: seeds by their bits, ``(1,)`` or ``(B,)``.
        ids: global sample ids ``(B,)``.
        number: of the draw.
        purpose: 0 to 255.
        blocks: of each sample.
        part: of the run that it belongs to.
    """

    keys: NDArray[np.uint64]
    ids: NDArray[np.uint64]
    number: int
    purpose: int
    blocks: int
    part: str

    def __len__(self) -> int:
        return len(self.ids) * self.blocks

    def words(self) -> Words:
        """Rows c0, c1, c2, c3, k0, k1 of all blocks, sample by sample."""
        rows = np.empty((len(self.ids), self.blocks, 6), dtype=np.uint32)
        rows[:, :, 0] = np.arange(self.blocks, dtype=np.uint32)
        rows[:, :, 1] = (self.ids & MASK)[:, None]
        rows[:, :, 2] = self.number
        rows[:, :, 3] = ((self.ids >> np.uint64(32)) | np.uint64(self.purpose << 24))[:, None]
        rows[:, :, 4] = (self.keys & MASK)[:, None]
        rows[:, :, 5] = (self.keys >> np.uint64(32))[:, None]
        return rows.reshape(-1, 6)


def normals(rows: Words, shape: Sequence[int]) -> Tensor:
    """Standard normals of the given shape ``(B, ...)``, made of rows of blocks."""
    w0, w1, w2, w3 = _random_words(rows)
    four = torch.stack((*reference.normal_pair(w0, w1), *reference.normal_pair(w2, w3)), dim=-1)
    return _cut(four, shape)


def uniforms(rows: Words, shape: Sequence[int]) -> Tensor:
    """Uniforms likewise."""
    four = torch.stack(_random_words(rows), dim=-1)
    return _cut((((four >> 9).double() + 0.5) * 2.0**-23).float(), shape)


def _random_words(rows: Words) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    return reference.philox(*torch.from_numpy(rows.astype(np.int64)).unbind(1))


def _cut(four: Tensor, shape: Sequence[int]) -> Tensor:
    batch = shape[0]
    elements = int(np.prod(shape[1:], dtype=np.int64))
    return four.reshape(batch, -1)[:, :elements].reshape(*shape)


@dataclass
class Recorder:
    """What is drawn while it listens.

    Args:
        every: of the launches of one kind and purpose, one in this many is checked to the bit, and always the first.

    Attributes:
        draws: launches whose blocks must be new.
        redraws: launches whose blocks must have been drawn.
        checked: how many launches were checked, by launcher and purpose.
        wrong: those whose bits did not follow from their expanded blocks.
    """

    every: int = 50
    draws: list[Draw] = field(default_factory=list)
    redraws: list[Draw] = field(default_factory=list)
    checked: Counter[str] = field(default_factory=Counter)
    wrong: list[str] = field(default_factory=list)
    part: str = ""
    again: frozenset[Purpose] = frozenset()
    _seen: Counter[str] = field(default_factory=Counter)

    @contextmanager
    def listening(self) -> Iterator[None]:
        """Every launch of this process goes through the recorder, which refuses those of the reference."""
        automatic, load = runtime._automatic, runtime._load
        automatic("cpu")  # its cache must hold the launchers themselves, not those that are listened to

        def listening_automatic(device_type: str) -> tuple[str, Launchers]:
            name, launchers = automatic(device_type)
            return name, self._listened(launchers)

        def listening_load(name: str, device_type: str) -> Launchers:
            return self._listened(load(name, device_type))

        with (
            mock.patch.object(runtime, "_automatic", listening_automatic),
            mock.patch.object(runtime, "_load", listening_load),
        ):
            yield

    def _listened(self, real: Launchers) -> Launchers:
        if real.name == "reference":
            raise RuntimeError("nothing to listen to: the reference implementation runs; build the C++ kernels")

        def randn(out: Tensor, address: Address, *, uniform: bool) -> None:
            real.randn(out, address, uniform=uniform)
            draw = self._drawn(out, address)
            if self._checks("randn", draw):
                made = (uniforms if uniform else normals)(draw.words(), out.shape)
                self._compare("randn", draw, (out, made))

        def step(out: Tensor, update: Update) -> Tensor:
            if not update.draws_noise:
                return real.step(out, update)
            draws = [self._drawn(out, update.address._replace(draw=number)) for number in _numbers(update)]
            checks = self._checks("step", draws[0])
            before = [(term.a, term.slot.clone() if checks else term.slot) for term in update.terms]
            real.step(out, update)
            if checks:
                noise = _weighted(update, [normals(draw.words(), out.shape) for draw in draws])
                made = reference.combine(before, update.b, noise, update.mask, update.known)
                self._compare("step", draws[0], (out, made))
            return out

        def perturb(out: Tensor, drawn: Tensor | None, given: Perturbation) -> None:
            real.perturb(out, drawn, given)
            x, address = given.x, given.address
            if drawn is not None:
                draw = self._drawn(x[:, :0], address._replace(purpose=given.level_purpose), elements=1)
                if self._checks("perturb", draw):
                    made = reference.level_of(uniforms(draw.words(), (len(x), 1))[:, 0], given.sigmas.numel())
                    self._compare("perturb", draw, (drawn, made))
                given = given._replace(labels=drawn)
            if given.noise is None:
                draw = self._drawn(x, address)
                if self._checks("perturb", draw):
                    made, _ = reference.perturb(given._replace(noise=normals(draw.words(), x.shape)))
                    self._compare("perturb", draw, (out, made))

        def dsm(sums: Sums | None, gradient: Tensor | None, given: Objective, upstream: Tensor, segment: int) -> None:
            real.dsm(sums, gradient, given, upstream, segment)
            if given.clean is not None or given.noise is not None:
                return
            draw = self._drawn(given.output, given.address, again=True)
            if self._checks("dsm", draw):
                given = given._replace(noise=normals(draw.words(), given.output.shape))
                made, derivative = reference.dsm(given, upstream, gradient=gradient is not None)
                pairs = zip((*(sums or ()), gradient), (*(made if sums else ()), derivative), strict=True)
                self._compare("dsm", draw, *((one, two) for one, two in pairs if one is not None and two is not None))

        def norms(out: Tensor, given: SampleNorms, segment: int) -> None:
            real.norms(out, given, segment)
            if not given.of_noise or given.noise is not None:
                return
            draw = self._drawn(given.x, given.address, again=True)
            if self._checks("norms", draw):
                made = reference.norms(normals(draw.words(), given.x.shape).to(out.dtype))
                self._compare("norms", draw, (out[-1], made))

        # Without the quick ways of plain calls, which hand on the same numbers.
        slow = {name: None for name in real._fields if name.startswith("quick_")}
        return real._replace(randn=randn, step=step, perturb=perturb, dsm=dsm, norms=norms, **slow)

    def _drawn(self, like: Tensor, address: Address, *, elements: int | None = None, again: bool = False) -> Draw:
        seed, purpose = address.seed, int(address.purpose)
        keys = seed.reshape(-1).numpy().view(np.uint64) if isinstance(seed, Tensor) else np.array([seed], np.uint64)
        ids = reference.sample_numbers(address, like.shape[0], like.device).numpy().astype(np.uint64)
        size = like[0].numel() if elements is None else elements
        made = Draw(keys.copy(), ids, int(address.draw), purpose, -(-size // 4), self.part)
        (self.redraws if again or purpose in self.again else self.draws).append(made)
        return made

    def _checks(self, launcher: str, draw: Draw) -> bool:
        name = f"{launcher} {Purpose(draw.purpose).name}"
        self._seen[name] += 1
        return self._seen[name] % self.every == 1 or self.every == 1

    def _compare(self, launcher: str, draw: Draw, *pairs: tuple[Tensor, Tensor]) -> None:
        name = f"{launcher} {Purpose(draw.purpose).name}"
        self.checked[name] += 1
        if not all(torch.equal(got.double(), made.double()) for got, made in pairs):
            self.wrong.append(f"{name}, draw {draw.number} in {draw.part!r}")


def _numbers(update: Update) -> list[int]:
    """The numbers of the draws of an update."""
    if isinstance(update.draws, DrawTable):
        return [int(each) for each in update.draws.numbers]
    return [int(update.address.draw) + each.offset for each in update.draws]


def _weighted(update: Update, drawn: Sequence[Tensor]) -> Tensor:
    """z of an update, of the normals of each of its draws."""
    draws, dtype = update.draws, torch.float64 if update.state.dtype == torch.float64 else torch.float32
    weights = draws.weights if isinstance(draws, DrawTable) else torch.tensor([w for w, _ in draws], dtype=dtype)
    first, *more = (weight * each.to(dtype) for weight, each in zip(weights, drawn, strict=True))
    return sum(more, start=first)


def words_of_reference(work: Callable[[], object]) -> Words:
    """Rows of all blocks that the plain PyTorch implementation hands to Philox during ``work``, each once, in order."""
    seen: list[Words] = []

    def listening(*words: Tensor, **options: Any) -> tuple[Tensor, ...]:
        rows = torch.stack(torch.broadcast_tensors(*words), dim=-1).reshape(-1, 6)
        seen.append(rows.numpy().astype(np.uint32))
        return philox(*words, **options)

    philox = reference.random.philox
    with (
        mock.patch.object(reference.random, "philox", listening),
        mock.patch.object(runtime, "_automatic", return_value=("reference", runtime._REFERENCE)),
    ):
        work()
    return np.unique(np.concatenate(seen), axis=0)
