"""Finds or builds the C++ library, and launches its kernels on CPU tensors.

The library is loaded by the first launch: the one shipped beside this file where it was built from the sources beside
it, else one built into a per-user cache. The launchers check nothing that :mod:`fastlangevin.ops` has checked.
"""

from __future__ import annotations

import contextlib
import ctypes
import hashlib
import logging
import os
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..address import MAX_DRAWS, MAX_TERMS, ONE_DRAW, Address, DrawTable, Update, Words
from ..environment import switch
from . import build as builder
from . import openmp
from .cache import cache_folder, note_digest, refusal, refusal_beside, while_locked
from .requests import ENTRIES, OPERANDS, PlainStep, Request, difference, packer

__all__ = [
    "CODES",
    "SERIAL_BELOW",
    "chain_address",
    "chosen_set",
    "dsm",
    "elu",
    "instruction_sets",
    "load",
    "location",
    "memory_of",
    "normalise",
    "numbers_of",
    "polar",
    "quick_randn",
    "quick_step",
    "randn",
    "refused",
    "step",
    "use_instruction_set",
]

# Below this the library runs on the calling thread, so the number of threads need not be asked for.
SERIAL_BELOW = 32768

# The enum Dtype of csrc/plan.h.
CODES = {torch.float32: 0, torch.float16: 1, torch.bfloat16: 2, torch.float64: 3, torch.bool: 4}
_STEP, _NORMAL, _UNIFORM = range(3)
_plain_pack = packer(PlainStep)
_FLOAT32 = torch.float32
logger = logging.getLogger("fastlangevin")

_launch_lock = threading.Lock()
_library: ctypes.CDLL | None = None
_step_plain: Callable[[bytes], int] | None = None
_dsm: Callable[[bytes], int] | None = None
_normalise: Callable[[bytes], int] | None = None
_set = -1


def _open(path: Path) -> ctypes.CDLL:
    """The library at a path, if it was built from these sources."""
    library = ctypes.CDLL(str(path))
    library.fl_source_hash.restype = ctypes.c_char_p
    found = library.fl_source_hash().decode()
    if found != builder.source_hash():
        raise OSError(f"{path} was built from other sources")
    library.fl_layout.argtypes = [ctypes.c_int64]
    library.fl_layout.restype = ctypes.c_char_p
    differs = difference(_layouts(library))
    if differs is not None:
        raise OSError(f"{path} reads requests otherwise: {differs}")
    library.fl_use_openmp.argtypes = [ctypes.c_void_p]
    library.fl_use_openmp(openmp.entry())
    for name in ENTRIES:
        function = getattr(library, name)
        function.argtypes = [ctypes.c_char_p]
        function.restype = ctypes.c_int
    library.fl_instruction_set.argtypes = [ctypes.c_int64]
    library.fl_instruction_set.restype = ctypes.c_char_p
    library.fl_elu.argtypes = [ctypes.c_int64, ctypes.c_void_p, ctypes.c_int64, *[ctypes.c_void_p] * 2]
    library.fl_activate.argtypes = [*[ctypes.c_int64] * 2, ctypes.c_void_p, ctypes.c_int64, ctypes.c_void_p]
    library.fl_polar.argtypes = [ctypes.c_int64, ctypes.c_void_p, ctypes.c_int64, *[ctypes.c_void_p] * 3]
    library.fl_polar.restype = ctypes.c_int
    return library


def _layouts(library: ctypes.CDLL) -> Iterator[str]:
    """Returns where the library has the fields of its structs."""
    index = 0
    while (text := library.fl_layout(index)) is not None:
        yield text.decode()
        index += 1


def _built() -> ctypes.CDLL:
    """The library of the cache, built now if it is not there."""
    version = builder.compiler_version(builder.find_compiler())
    sources = builder.source_hash()
    key = hashlib.sha256(f"{sources} {os.uname().machine} {version}".encode()).hexdigest()[:24]
    cache = cache_folder()
    folder = cache / key
    path = folder / builder.LIBRARY

    def there() -> ctypes.CDLL | None:
        if refusal(path, sources) is None:
            with contextlib.suppress(OSError):
                return _open(path)
        return None

    def build() -> ctypes.CDLL:
        library = there()  # another process built it meanwhile
        if library is not None:
            return library
        # A minute or two on a slow machine, in which a first call would seem to hang.
        logger.warning("building the C++ kernels, once, into %s; FASTLANGEVIN_NO_BUILD=1 forbids it", folder)
        folder.mkdir(mode=0o700, exist_ok=True)
        builder.build(folder)
        note_digest(path)
        reason = refusal(path, sources)
        if reason is not None:
            raise OSError(reason)
        return _open(path)

    return there() or while_locked(cache / f"{key}.lock", build, lambda: builder.sweep(folder))


def load() -> ctypes.CDLL:
    """Loads the library, building it if need be.

    Raises:
        RuntimeError: it cannot be had; the message says why and what to do.
    """
    global _dsm, _library, _normalise, _step_plain
    with _launch_lock:
        if _library is not None:
            return _library
        shipped = Path(__file__).with_name(builder.LIBRARY)
        library = None
        reason = refusal_beside(shipped, builder.source_hash())
        if reason is None:
            try:
                library = _open(shipped)
            except (OSError, AttributeError) as error:
                reason = str(error)
        if library is None:
            if switch("FASTLANGEVIN_NO_BUILD", False):
                raise RuntimeError(
                    f"the C++ kernels are not built ({reason}) and FASTLANGEVIN_NO_BUILD forbids to build them now; "
                    "unset it, reinstall fastlangevin where a C++ compiler is, or use impl='reference'"
                )
            try:
                library = _built()
            except (OSError, AttributeError) as error:
                raise RuntimeError(
                    f"the C++ kernels were built but cannot be loaded: {error}; delete the folder {cache_folder()} and "
                    "try again, or use impl='reference'"
                ) from error
        _library = library
        _step_plain = library.fl_step_plain
        _dsm = library.fl_dsm
        _normalise = library.fl_normalise
        return library


def location() -> str:
    """Returns where the library was loaded from."""
    return str(load()._name)


def _set_names() -> list[str]:
    library = load()
    names: list[str] = []
    while (name := library.fl_instruction_set(len(names))) is not None:
        names.append(name.decode())
    return names


def instruction_sets() -> list[str]:
    """The instruction sets this processor has, best first."""
    return [name for name in _set_names() if name]


def use_instruction_set(name: str | None) -> None:
    """Makes every later launch of this process use an instruction set; None goes back to the best."""
    global _set
    if name is None:
        _set = -1
        return
    names = _set_names()
    if not name or name not in names:
        raise ValueError(f"instruction set {name!r} does not run here; this processor has {instruction_sets()}")
    _set = names.index(name)


def chosen_set() -> int:
    """The instruction set of the launches, as the library counts them; -1: the best."""
    return _set


def dsm(request: bytes) -> None:
    """Runs a request that :mod:`.dsm` has packed."""
    if _dsm is None:
        load()
    if _dsm(request):  # type: ignore[misc]
        refused()


def normalise(request: bytes) -> None:
    """Runs a request that :mod:`.normalisation` has packed."""
    if _normalise is None:
        load()
    code = _normalise(request)  # type: ignore[misc]
    if code == 2:
        raise ValueError("labels must be from 0 to the number of levels less 1, but one is not")
    if code:
        refused()


def quick_step(
    out: Tensor | None,
    x: Tensor,
    score: Tensor,
    factors: tuple[float, float, float],
    words: Words,
    watch: tuple[Tensor | None, bool],
) -> Tensor | None:
    """:func:`step` of contiguous fp32 tensors and numbers, if they are in memory, and the same or apart.

    With few elements the time is that of the call, so nothing is asked twice.

    Args:
        out: written; ``x``, or another contiguous fp32 tensor of its shape; None for a new one.
        x, score: state and score of one shape.
        factors: c, a and b.
        words: seed, draw, ids or None, sample offset and purpose.
        watch: the record of faults or None, and whether samples with one are left as they are.

    Returns:
        What was written, or None if the tensors are others.
    """
    seed, draw, ids, offset, purpose = words
    fault, freeze = watch
    total = x.nbytes // 4
    at, along = x.data_ptr(), score.data_ptr()
    if out is x:
        to = at
    elif out is None:
        out = torch.empty_like(x)
        to = out.data_ptr()
    else:
        to = out.data_ptr()
    if total == 0:
        return out
    # No address is that of zeros without memory, which PyTorch makes in forward mode.
    if not (to and at and along):
        return None
    apart = 4 * total
    if not (to == along or to - along >= apart or along - to >= apart):
        return None
    if not (to == at or to - at >= apart or at - to >= apart):
        return None
    if _step_plain is None:
        load()
    batch = x.shape[0]
    request = _plain_pack(
        _set,
        1 if total < SERIAL_BELOW else torch.get_num_threads(),
        seed,
        draw,
        offset,
        purpose,
        *factors,
        0 if fault is None else fault.data_ptr(),
        freeze,
        0 if ids is None else ids.data_ptr(),
        to,
        at,
        along,
        batch,
        total // batch,
    )
    if _step_plain(request):  # type: ignore[misc]
        refused()
    return out


def step(out: Tensor, update: Update) -> Tensor:
    """Writes the result of an update to ``out``, which may be any of its slots, in any strides, and returns it.

    Args:
        out: shape and dtype of the state; not empty.
        update: checked; its factors are floats, or tensors of the computing dtype expanded to the shape.
    """
    slots: list[Tensor | None] = [None] * MAX_TERMS
    factors: list[Any] = [None] * MAX_TERMS
    numbers = [0.0] * MAX_TERMS
    for place, (factor, slot) in enumerate(update.terms):
        slots[place] = slot
        if type(factor) is float:
            numbers[place] = factor
        else:
            factors[place] = factor
    number: Any = update.number
    b: Any = update.b
    known = update.known if update.mask is not None else None
    b_number = b if type(b) is float else 0.0
    b_each = b if b is not None and type(b) is not float else None
    in_memory = type(number) is not int
    _launch(
        _STEP,
        update.address,
        (out, *slots, *factors, b_each, update.noise, update.mask, known),
        (
            len(update.terms),
            b is not None,
            *numbers,
            b_number,
            0 if update.fault is None else update.fault.data_ptr(),
            update.freeze,
            0 if in_memory else number,
            number.data_ptr() if in_memory else 0,
        ),
        _ONE_DRAW if update.draws is ONE_DRAW else _draws(update),
    )
    return out


_NO_UPDATE = (0, 0, *[0.0] * MAX_TERMS, 0.0, 0, 0, 0, 0)
_ONE_DRAW = (1, *[1.0] * MAX_DRAWS, *[0] * MAX_DRAWS, 0, 0)
_NOTHING = (*_NO_UPDATE, *_ONE_DRAW)
# The dtype of the first operand, and the operands after it.
_REST = (CODES[torch.float32], *[0] * (2 * (OPERANDS - 1)))
# Of rows and columns of one operand: two sizes and two strides.
_rows_pack = packer(Request, 4)


def _draws(update: Update) -> tuple[Any, ...]:
    """The struct ``Draws``."""
    draws = update.draws
    if isinstance(draws, DrawTable):
        weights, numbers = draws
        return len(weights), *[0.0] * MAX_DRAWS, *[0] * MAX_DRAWS, weights.data_ptr(), numbers.data_ptr()
    more = MAX_DRAWS - len(draws)
    weight, offset = zip(*draws, strict=True)
    return len(draws), *weight, *[0.0] * more, *offset, *[0] * more, 0, 0


def randn(out: Tensor, address: Address, *, uniform: bool) -> None:
    """Fills ``out`` (``(B, ...)``, any strides) with standard normals, or with uniforms on (0, 1)."""
    operands = (out, *[None] * (OPERANDS - 1))
    _launch(_UNIFORM if uniform else _NORMAL, address, operands, _NO_UPDATE, _ONE_DRAW)


def quick_randn(out: Tensor, uniform: bool, words: Words) -> None:
    """:func:`randn` of a new fp32 tensor, contiguous and not empty, whose seed and draw are numbers."""
    seed, draw, ids, offset, purpose = words
    batch, total = out.shape[0], out.nbytes // 4
    if _library is None:
        load()
    threads = 1 if total < SERIAL_BELOW else torch.get_num_threads()
    kind, elements = _UNIFORM if uniform else _NORMAL, total // batch
    common = _set, threads, seed, draw, offset, purpose
    memory = 0, 0, 0 if ids is None else ids.data_ptr(), 0
    tail = batch, elements, elements, 1
    request = _rows_pack(*common, *_NOTHING, kind, False, 2, *memory, out.data_ptr(), *_REST, *tail)
    if _library.fl_run(request):  # type: ignore[union-attr]
        refused()


def _launch(
    kind: int,
    address: Address,
    operands: tuple[Tensor | None, ...],
    update: tuple[Any, ...],
    draws: tuple[Any, ...],
) -> None:
    """Any call, as a ``Request``.

    Args:
        kind: what is done.
        address: of the noise.
        operands: those of the enum ``Name`` of csrc/plan.h, the first of which is written.
        update, draws: the fields of ``Update`` and ``Draws``.
    """
    out, *_ = operands
    assert out is not None
    data: list[int] = []
    layout: list[int] = [*out.shape]
    codes = CODES
    for operand in operands:
        if operand is None:
            data += (0, 0)
        else:
            data += (operand.data_ptr(), codes[operand.dtype])
            layout += operand.stride()
    if _library is None:
        load()
    request = packer(Request, len(layout))(
        _set,
        torch.get_num_threads(),
        *numbers_of(address),
        *update,
        *draws,
        kind,
        out.dtype is torch.float64,
        out.ndim,
        *memory_of(address),
        *data,
        *layout,
    )
    if _library.fl_run(request):  # type: ignore[union-attr]
        refused()


def numbers_of(address: Address) -> tuple[int, int, int, int]:
    """The end of ``Common``: seed, draw, offset and purpose, 0 for a seed or draw in memory."""
    seed, draw, _, offset, purpose = address
    return seed if type(seed) is int else 0, draw if type(draw) is int else 0, offset, purpose


def memory_of(address: Address) -> tuple[int, int, int, int]:
    """``Address``: where seeds, draw and ids are in memory, else 0, and the seeds' stride."""
    seed, draw, ids, _, _ = address
    draw_at = 0 if type(draw) is int else draw.data_ptr()  # type: ignore[union-attr]
    ids_at = 0 if ids is None else ids.data_ptr()
    if type(seed) is int:
        return 0, draw_at, ids_at, 0
    assert isinstance(seed, Tensor)
    return seed.data_ptr(), draw_at, ids_at, seed.stride(0) if seed.ndim else 0


def chain_address(address: Address) -> dict[str, int]:
    """The address of a chain's first update, by the names that ``ChainRequest`` and ``MlpRequest`` have for it."""
    seed, draw, sample_offset, purpose = numbers_of(address)
    seeds, _, ids, seed_stride = memory_of(address)
    return {
        "seed": seed,
        "draw": draw,
        "sample_offset": sample_offset,
        "purpose": purpose,
        "seeds": seeds,
        "ids": ids,
        "seed_stride": seed_stride,
    }


def refused() -> None:
    """Raises for the instruction set that was asked for."""
    raise RuntimeError(f"instruction set number {_set} does not run here; this processor has {instruction_sets()}")


def polar(words: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The parts of a normal, for sweeps over all words: its radius, and the cosine and sine of its angle.

    Args:
        words: contiguous int32 tensor with the words' bits.

    Returns:
        Three fp32 tensors of the same shape: the radius, the cosine and the sine.
    """
    count = words.numel()
    padded = torch.zeros((count + 15) // 16 * 16, dtype=torch.int32, device="cpu") if count % 16 else words
    if count % 16:
        padded[:count] = words.flatten()
    results = torch.empty(3, padded.numel(), dtype=torch.float32, device="cpu")
    pointers = [results[i].data_ptr() for i in range(3)] if count else [0, 0, 0]
    if count and load().fl_polar(_set, padded.data_ptr(), padded.numel(), *pointers):
        refused()
    length, cosine, sine = (row[:count].reshape(words.shape) for row in results)
    return length, cosine, sine


def elu(y: Tensor) -> tuple[Tensor, Tensor]:
    """The activation of the norm, for sweeps over all floats: ELU and its derivative.

    Args:
        y: contiguous fp32 tensor.

    Returns:
        Two fp32 tensors of the same shape.
    """
    count = y.numel()
    padded = torch.zeros((count + 15) // 16 * 16, dtype=torch.float32, device="cpu")
    padded[:count] = y.flatten()
    results = torch.empty(2, padded.numel(), dtype=torch.float32, device="cpu")
    if load().fl_elu(_set, padded.data_ptr(), padded.numel(), results[0].data_ptr(), results[1].data_ptr()):
        refused()
    values, slopes = (row[:count].reshape(y.shape) for row in results)
    return values, slopes
