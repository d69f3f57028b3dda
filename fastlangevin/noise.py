"""The address of every random number: stream version 1.

A random value is a pure function of (seed, sample, draw, element, purpose). One Philox4x32-10 block serves four
neighbouring elements of one sample:

    key      k0, k1 = low and high word of the 64-bit seed
    counter  c0 = element // 4, elements counted in logical row-major order of one sample's shape
             c1 = low 32 bits of the global sample id
             c2 = draw number (the step of a chain, counted from 0 over all levels)
             c3 = purpose in the top 8 bits, high 24 bits of the sample id below

Word ``element % 4`` of the block belongs to the element. The fields have room for 2^34 elements a sample, 2^56
samples, 2^32 draws and 256 purposes. A field that is out of range raises; nothing wraps. The step never enters the
key and a rank never enters the seed, so a sample's noise does not depend on its batch, its process or its device.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from enum import IntEnum
from typing import TypedDict

import torch
from torch import Tensor

from fastlangevin.kernels.address import Address
from fastlangevin.memory import in_memory, is_compiling
from fastlangevin.reference import philox, signed64
from fastlangevin.values import index, is_integer, shown

__all__ = ["STREAM_VERSION", "Address", "AddressOptions", "Purpose", "SampleOptions", "resolve"]

STREAM_VERSION = 1

MAX_SEED = 2**64 - 1
MAX_DRAW = 2**32 - 1
MAX_SAMPLE_ID = 2**56 - 1
MAX_ELEMENTS = 2**34

Seed = int | Tensor
Generators = torch.Generator | Sequence[torch.Generator]


class Purpose(IntEnum):
    """The purpose of a random number. Two purposes never share a value, whatever the other fields are.

    The values are part of the stream: they are never renumbered. 128 to 255 are free for a caller's own use.
    """

    INITIAL_STATE = 0
    LANGEVIN = 1
    DSM_NOISE = 2
    DSM_LEVEL = 3
    INPAINTING = 4
    PROJECTION = 5
    AUGMENTATION = 6
    DATA_ORDER = 7
    SEED = 8
    FLIP = 9
    MIXTURE = 10
    USER = 128


class SampleOptions(TypedDict, total=False):
    """Keyword arguments of whatever draws random numbers: the seed, and which samples they are for.

    Attributes:
        seed: 0 to 2^64 - 1, or an int64 tensor of shape ``()`` or ``(B,)`` with the seeds' bits.
        generator: a ``torch.Generator`` that a seed is drawn from, or one for each sample. With neither ``seed`` nor
            ``generator`` the seed comes from PyTorch's default CPU generator, which ``torch.manual_seed`` governs.
        sample_ids: ``B`` global sample ids, 0 to 2^56 - 1; by default ``sample_offset`` and up.
        sample_offset: id of the first sample.
    """

    seed: Seed | None
    generator: Generators | None
    sample_ids: Tensor | Sequence[int] | None
    sample_offset: int


SAMPLE_OPTIONS = frozenset(SampleOptions.__annotations__)


class AddressOptions(SampleOptions, total=False):
    """Keyword arguments of the pieces: the address of the numbers of one call.

    Attributes:
        seed, generator, sample_ids, sample_offset: as for :class:`SampleOptions`.
        draw: number of the draw, 0 to 2^32 - 1, or a 0-dim int64 tensor that holds it.
        purpose: a :class:`Purpose`, or 128 to 255 for uses of your own.
    """

    draw: int | Tensor
    purpose: int


def integer(name: str, value: object, low: int, high: int) -> int:
    """``value`` as a Python int in [low, high]; NumPy's integers and integer tensors ``()`` are welcome too.

    Floats, complex numbers, bools of any library and arrays of one element are refused: they are slips, and a bool
    taken for a seed or a count gives samples of 0 or 1 without a word.
    """
    number = value if type(value) is int else index(value) if is_integer(value) else None
    if number is None:
        raise TypeError(f"{name} must be an integer from {low} to {high}, got {shown(value)} ({type(value).__name__})")
    if not low <= number <= high:
        raise ValueError(f"{name} must be from {low} to {high}, got {shown(number)}")
    return number


def tensor_word(value: int | Tensor, like: Tensor) -> Tensor:
    """A seed or draw number as an int64 tensor on ``like``'s device.

    Written as an addition because a compiled program then takes the number as an input: ``torch.tensor(value)`` would
    make it a constant and compile anew for every value.
    """
    if isinstance(value, Tensor):
        return value.to(like.device)
    if value >= 2**63 and torch.compiler.is_compiling():
        raise ValueError(
            "inside torch.compile an integer seed must be below 2**63, the largest integer a compiled program takes; "
            "pass it as an int64 tensor with the same bits: torch.tensor(seed - 2**64)"
        )
    return torch.zeros((), dtype=torch.int64, device=like.device) + signed64(value)


def seed_from(generator: torch.Generator | None) -> int:
    """A 64-bit seed from a generator, or from PyTorch's default CPU generator. Never synchronises a device."""
    if generator is None or generator.device.type == "cpu":
        low, high = torch.randint(0, 2**32, (2,), generator=generator, dtype=torch.int64, device="cpu").tolist()
        return int(low) | int(high) << 32
    # A device generator is read and advanced on the host: drawing from it would wait for the device.
    offset = generator.get_offset()
    generator.set_offset(offset + 4)
    key = generator.initial_seed() % 2**64
    numbers = (offset % 2**32, offset >> 32, 0, int(Purpose.SEED) << 24, key % 2**32, key >> 32)
    c0, c1, c2, c3, k0, k1 = torch.tensor(numbers, dtype=torch.int64, device="cpu")
    low_word, high_word, _, _ = philox(c0, c1, c2, c3, k0, k1)
    return int(low_word) | int(high_word) << 32


def one_source(seed: Seed | None, generator: Generators | None) -> None:
    """Raises where a seed is given in two ways, also in a call that draws nothing."""
    if seed is not None and generator is not None:
        raise ValueError("give seed= or generator=, not both")


def resolve_seed(seed: Seed | None, generator: Generators | None, batch: int, device: torch.device) -> Seed:
    """The seed of a call, from ``seed=``, ``generator=`` or neither.

    Args:
        seed: 0 to 2^64 - 1, or an int64 tensor holding the seed's bits: 0-dim, or ``(B,)`` for a seed per sample.
        generator: a ``torch.Generator``, or a sequence of ``B`` of them for a seed per sample.
        batch: ``B``, the number of samples.
        device: where a tensor of seeds is put.

    Returns:
        An int, or an int64 tensor on ``device`` of shape ``()`` or ``(B,)``.
    """
    one_source(seed, generator)
    if isinstance(seed, Tensor):
        if seed.dtype != torch.int64 or seed.shape not in ((), (batch,)):
            raise ValueError(
                f"seed as a tensor must be int64 of shape () or ({batch},), got {seed.dtype} of shape "
                f"{tuple(seed.shape)}; torch.tensor(seed) makes one of a seed below 2**63"
            )
        return in_memory("seed", seed.to(device))
    if seed is not None:
        return integer("seed", seed, 0, MAX_SEED)
    if generator is None or isinstance(generator, torch.Generator):
        return seed_from(generator)
    if not isinstance(generator, Sequence):
        raise TypeError(f"generator must be a torch.Generator or a sequence of them, got {type(generator).__name__}")
    generators = list(generator)
    if not all(isinstance(each, torch.Generator) for each in generators):
        raise TypeError("generator must be a torch.Generator or a sequence of them, one for each sample")
    if len(generators) != batch:
        raise ValueError(
            f"generator has {len(generators)} entries for {batch} samples; give one for each, or a single one"
        )
    return torch.tensor([signed64(seed_from(each)) for each in generators], dtype=torch.int64, device=device)


def check_samples(options: Mapping[str, object]) -> None:
    """Raises for an option that is none of :class:`SampleOptions`: whoever passes them on takes others itself."""
    for name in options:
        if name not in SAMPLE_OPTIONS:
            raise TypeError(
                f"there is no option {name}= here; beside the function's own arguments there are seed=, generator=, "
                "sample_ids= and sample_offset="
            )


def resolve(
    x: Tensor,
    purpose: int,
    draw: int | Tensor = 0,
    drawn: bool = True,
    /,
    *,
    seed: Seed | None = None,
    generator: Generators | None = None,
    sample_ids: Tensor | Sequence[int] | None = None,
    sample_offset: int = 0,
    **unknown: object,
) -> Address:
    """The address of a call, from the options that its user gave: this is done once for each call.

    What the caller decides is given by position, so that no option of a user's is taken for it.

    Args:
        x: a batch ``(B, ...)``, or one sample without dimensions: how many samples there are, and on which device.
        purpose, draw: as for :class:`AddressOptions`.
        drawn: whether anything is drawn. If not, a seed is checked but none is taken from a generator.
        seed, generator, sample_ids, sample_offset: as for :class:`SampleOptions`.
        unknown: refused, since the callers pass on what their users gave.

    Returns:
        The address, its tensors on the device of ``x`` and with their values in memory.

    Raises:
        TypeError, ValueError: an option is of the wrong kind or out of range, or there is none of its name.
    """
    if unknown:
        check_samples(unknown)
    # A plain number in its range is not looked at by a call of its own: small updates take as long as such calls.
    ids, offset = None, sample_offset
    if sample_ids is not None or not (type(offset) is int and 0 <= offset <= MAX_SAMPLE_ID // 2):
        ids, offset = resolve_sample_ids(sample_ids, offset, x.shape[0] if x.ndim else 1, x.device)
    if not (type(draw) is int and 0 <= draw <= MAX_DRAW):
        draw = resolve_draw(draw, x.device)
    if type(purpose) is Purpose:
        purpose = purpose._value_
    elif not (type(purpose) is int and 0 <= purpose <= 255):
        purpose = integer("purpose", purpose, 0, 255)
    if not drawn:
        one_source(seed, generator)
        seed, generator = 0 if seed is None else seed, None
    if generator is not None or not (type(seed) is int and 0 <= seed <= MAX_SEED):
        seed = resolve_seed(seed, generator, x.shape[0] if x.ndim else 1, x.device)
    return Address(seed, draw, ids, offset, purpose)


def resolve_draw(draw: int | Tensor, device: torch.device, name: str = "draw") -> int | Tensor:
    """The draw number: 0 to 2^32 - 1, or a 0-dim int64 tensor that holds it.

    A tensor on another device than the CPU is trusted to be in range: reading it would make the host wait. So is one
    in a program that is being compiled, which has no values yet.
    """
    if isinstance(draw, Tensor):
        if draw.dtype != torch.int64 or draw.ndim:
            raise ValueError(
                f"{name} as a tensor must be int64 of shape (), got {draw.dtype} of shape {tuple(draw.shape)}"
            )
        if draw.device.type == "cpu" and not torch.compiler.is_compiling():
            integer(name, draw.item(), 0, MAX_DRAW)
        return in_memory(name, draw.to(device))
    return integer(name, draw, 0, MAX_DRAW)


def resolve_sample_ids(
    sample_ids: Tensor | Sequence[int] | None, offset: int, batch: int, device: torch.device
) -> tuple[Tensor | None, int]:
    """The global ids of a batch: ``(ids, offset)``, of which ids is None for ``offset .. offset + batch - 1``.

    A tensor on another device than the CPU is trusted to be in range: reading it would make the host wait. So is one
    in a program that is being compiled, which has no values yet.
    """
    if not (type(offset) is int and 0 <= offset <= MAX_SAMPLE_ID):
        offset = integer("sample_offset", offset, 0, MAX_SAMPLE_ID)
    if sample_ids is None:
        if offset + batch - 1 > MAX_SAMPLE_ID:
            raise ValueError(
                f"sample_offset {offset} with {batch} samples goes past the last sample id, {MAX_SAMPLE_ID}"
            )
        return None, offset
    if offset:
        raise ValueError("give sample_ids= or sample_offset=, not both")
    if type(sample_ids) is not Tensor and not isinstance(sample_ids, Tensor):
        if not isinstance(sample_ids, Iterable) or getattr(sample_ids, "ndim", 1) != 1:
            raise TypeError(f"sample_ids must be an int64 tensor or a sequence of integers, got {shown(sample_ids)}")
        sample_ids = torch.tensor(
            [integer("sample_ids", each, 0, MAX_SAMPLE_ID) for each in sample_ids], dtype=torch.int64, device="cpu"
        )
    if sample_ids.dtype != torch.int64 or sample_ids.shape != (batch,):
        raise ValueError(
            f"sample_ids must be int64 of shape ({batch},), one for each sample, got {sample_ids.dtype} of shape "
            f"{tuple(sample_ids.shape)}"
        )
    here = sample_ids.is_cpu and not is_compiling()
    if here and batch:
        low, high = sample_ids.aminmax()
        if low < 0 or high > MAX_SAMPLE_ID:
            raise ValueError(f"sample_ids must be from 0 to {MAX_SAMPLE_ID}, got {int(low if low < 0 else high)}")
    if not here or type(sample_ids) is not Tensor or sample_ids.is_neg() or sample_ids._is_zerotensor():
        sample_ids = in_memory("sample_ids", sample_ids)
    return sample_ids if sample_ids.device == device else sample_ids.to(device), 0
