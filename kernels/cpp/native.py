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

import torch
from torch import Tensor

from ..address import Address
from ..environment import switch
from . import build as builder
from . import openmp
from .cache import cache_folder, note_digest, refusal, refusal_beside, while_locked
from .requests import ENTRIES, PlainStep, Request, difference, packer

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
    "randn",
    "refused",
    "step",
    "step_plain",
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

Coefficient = float | Tensor


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
    """Where the library has the fields of its structs."""
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
    """Where the library was loaded from."""
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


def step_plain(
    out: Tensor | None,
    x: Tensor,
    score: Tensor,
    c: float,
    a: float,
    b: float | None,
    seed: int,
    draw: int,
    sample_offset: int,
    purpose: int,
    fault: Tensor | None,
    freeze: bool,
) -> Tensor | None:
    """:func:`step` of numbers, where the tensors are contiguous, of fp32, in memory, and the same or apart.

    With few elements the time is that of the call, so nothing is asked twice. Shapes are the caller's to check.

    Args:
        out: written; None for a new tensor.
        x, score, c, a, b, seed, draw, sample_offset, purpose, fault, freeze: as for :func:`step`.

    Returns:
        What was written, or None where the tensors are others.
    """
    if not (x.dtype is _FLOAT32 and score.dtype is _FLOAT32 and x.is_contiguous() and score.is_contiguous()):
        return None
    total = x.numel()
    at, along = x.data_ptr(), score.data_ptr()
    if out is x:
        to = at
    elif out is None:
        out = torch.empty_like(x)
        to = out.data_ptr()
    elif out.dtype is _FLOAT32 and out.is_contiguous():
        to = out.data_ptr()
    else:
        return None
    if total == 0:
        return out
    # No address is that of zeros without memory, which PyTorch makes in forward mode.
    if not (to and at and along):
        return None
    if not ((to == at or abs(to - at) >= 4 * total) and (to == along or abs(to - along) >= 4 * total)):
        return None
    if _step_plain is None:
        load()
    batch = x.shape[0]
    request = _plain_pack(
        _set,
        1 if total < SERIAL_BELOW else torch.get_num_threads(),
        seed,
        draw,
        sample_offset,
        purpose,
        b is not None,
        c,
        a,
        0.0 if b is None else b,
        0 if fault is None else fault.data_ptr(),
        freeze,
        to,
        at,
        along,
        batch,
        total // batch,
    )
    if _step_plain(request):  # type: ignore[misc]
        refused()
    return out


def step(
    out: Tensor,
    x: Tensor,
    score: Tensor,
    *,
    c: Coefficient,
    a: Coefficient,
    b: Coefficient | None,
    seed: int | Tensor,
    draw: int | Tensor,
    sample_ids: Tensor | None,
    sample_offset: int,
    purpose: int,
    noise: Tensor | None,
    mask: Tensor | None,
    known: Tensor | None,
    fault: Tensor | None = None,
    freeze: bool = False,
) -> None:
    """Writes c*x + a*score + b*noise to ``out``.

    Args:
        out: same shape and dtype as ``x``, any strides; may be ``x``.
        x: state ``(B, ...)``: fp32, fp16, bf16 or fp64.
        score: same shape, any of these dtypes.
        c, a, b: floats, or tensors of the compute dtype expanded to the shape of ``x``; ``b=None``: no noise term.
        seed, draw, sample_ids, sample_offset, purpose: the noise's address, as :mod:`fastlangevin.noise` resolves it.
        noise: None to draw it here; else a tensor of the same shape.
        mask: bool, same shape: where it is True ``out`` is ``known``.
        known: same shape and dtype as ``x``.
        fault: int64 ``(B,)``, contiguous: lowered to ``draw`` where a sample's result is not finite.
        freeze: samples whose fault is below ``draw`` are left as they are.
    """
    if (
        noise is None
        and mask is None
        and sample_ids is None
        and type(c) is float
        and type(a) is float
        and (b is None or type(b) is float)
        and type(seed) is int
        and type(draw) is int
        and step_plain(out, x, score, c, a, b, seed, draw, sample_offset, purpose, fault, freeze) is not None
    ):
        return
    _launch(
        _STEP,
        Address(seed, draw, sample_ids, sample_offset, purpose),
        out,
        x=x,
        score=score,
        c=c,
        a=a,
        b=b,
        noise=noise,
        mask=mask,
        known=known if mask is not None else None,
        fault=fault,
        freeze=freeze,
    )


def randn(
    out: Tensor,
    *,
    uniform: bool,
    seed: int | Tensor,
    draw: int | Tensor,
    sample_ids: Tensor | None,
    sample_offset: int,
    purpose: int,
) -> None:
    """Fills ``out`` (``(B, ...)``, any strides) with standard normals, or with uniforms on (0, 1)."""
    _launch(_UNIFORM if uniform else _NORMAL, Address(seed, draw, sample_ids, sample_offset, purpose), out)


def _launch(
    kind: int,
    address: Address,
    out: Tensor,
    *,
    x: Tensor | None = None,
    score: Tensor | None = None,
    c: Coefficient | None = None,
    a: Coefficient | None = None,
    b: Coefficient | None = None,
    noise: Tensor | None = None,
    mask: Tensor | None = None,
    known: Tensor | None = None,
    fault: Tensor | None = None,
    freeze: bool = False,
) -> None:
    """Any call, as a ``Request``."""
    if out.numel() == 0:
        return
    operands: list[int] = []
    layout: list[int] = list(out.shape)
    for operand in (out, x, score, c, a, b, noise, mask, known):  # the enum Name of csrc/plan.h
        if isinstance(operand, Tensor):
            operands += (operand.data_ptr(), CODES[operand.dtype])
            layout += operand.stride()
        else:
            operands += (0, 0)
    request = packer(Request, len(layout))(
        _set,
        torch.get_num_threads(),
        *numbers_of(address),
        b is not None,
        *[0.0 if value is None or isinstance(value, Tensor) else float(value) for value in (c, a, b)],
        0 if fault is None else fault.data_ptr(),
        freeze,
        kind,
        out.dtype is torch.float64,
        out.ndim,
        *memory_of(address),
        *operands,
        *layout,
    )
    if load().fl_run(request):
        refused()


def numbers_of(address: Address) -> tuple[int, int, int, int]:
    """The end of ``Common``: seed, draw, offset and purpose, 0 for a seed or draw in memory."""
    seed, draw = (0 if isinstance(value, Tensor) else value for value in (address.seed, address.draw))
    return seed, draw, address.sample_offset, address.purpose


def memory_of(address: Address) -> tuple[int, int, int, int]:
    """The struct ``Address``: where seeds, draw and ids are in memory, else 0, and the seeds' stride."""
    seed, draw, ids = address.seed, address.draw, address.sample_ids
    return (
        seed.data_ptr() if isinstance(seed, Tensor) else 0,
        draw.data_ptr() if isinstance(draw, Tensor) else 0,
        0 if ids is None else ids.data_ptr(),
        seed.stride(0) if isinstance(seed, Tensor) and seed.ndim else 0,
    )


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
    """What a normal is made of, for sweeps over all words: its radius, and the cosine and sine of its angle.

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
