"""Requests to the C++ library: the structs of csrc/plan.h, declared once for Python. That file documents the fields.

A request is packed in the order of its declaration by :func:`packer`; those of whole chains, for which 4 us more are
little, are filled by name. The library says where it has every field, and :func:`difference` compares that with these
declarations when it is loaded, in 0.12 ms.

Every field is of 64 bits: nothing is padded, and a request has the bytes of its fields one after the other.
"""

from __future__ import annotations

import ctypes
import functools
import itertools
import struct
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, ClassVar

from ..address import MAX_DRAWS, MAX_TERMS

__all__ = [
    "DECLARED",
    "ENTRIES",
    "AddEluRequest",
    "Address",
    "ChainRequest",
    "ChainRun",
    "Common",
    "Data",
    "Draws",
    "Dsm",
    "DsmRequest",
    "MixtureRequest",
    "MixtureTable",
    "MlpRequest",
    "NormalisationRequest",
    "PlainStep",
    "Request",
    "SampleNorms",
    "SampleNormsRequest",
    "Update",
    "difference",
    "packer",
]

# Of an update: out, the slots and their factors, b, noise, mask and known.
OPERANDS = 1 + 2 * MAX_TERMS + 4

# The letters of the module struct, by which csrc/requests.cpp names these types too.
LETTERS: dict[Any, str] = {ctypes.c_int64: "q", ctypes.c_uint64: "Q", ctypes.c_double: "d", ctypes.c_void_p: "P"}

Fields = list[tuple[str, Any]]


def _integers(*names: str) -> Fields:
    return [(name, ctypes.c_int64) for name in names]


def _words(*names: str) -> Fields:
    return [(name, ctypes.c_uint64) for name in names]


def _numbers(*names: str) -> Fields:
    return [(name, ctypes.c_double) for name in names]


def _pointers(*names: str) -> Fields:
    return [(name, ctypes.c_void_p) for name in names]


class Declared(ctypes.Structure):
    """A struct that is filled by a value for every field, by name; ctypes alone takes any name, and leaves zeros."""

    names: ClassVar[frozenset[str]]

    def __init_subclass__(cls) -> None:
        cls.names = frozenset(name for name, *_ in cls._fields_)

    def __init__(self, **values: Any) -> None:
        if values.keys() != self.names:
            raise TypeError(f"{type(self).__name__} has the fields {', '.join(name for name, *_ in self._fields_)}")
        super().__init__(**values)


class Common(Declared):
    _fields_ = [*_integers("instruction_set", "threads"), *_words("seed", "draw", "sample_offset", "purpose")]


class Address(Declared):
    _fields_ = [*_pointers("seeds", "draw_at", "ids"), *_integers("seed_stride")]


class Update(Declared):
    _fields_ = [
        *_integers("terms", "has_b"),
        ("factor", ctypes.c_double * MAX_TERMS),
        *_numbers("b"),
        *_pointers("fault"),
        *_integers("freeze", "number"),
        *_pointers("number_at"),
    ]


class Draws(Declared):
    _fields_ = [
        *_integers("count"),
        ("weight", ctypes.c_double * MAX_DRAWS),
        ("offset", ctypes.c_int64 * MAX_DRAWS),
        *_pointers("weights", "numbers"),
    ]


class Dsm(Declared):
    _fields_ = [
        *_pointers("scale", "weight", "slope", "upstream"),
        *_integers("upstream_stride"),
        *_pointers("labels"),
        *_integers("levels", "draws_labels", "level_purpose", "segment"),
        *_pointers("values", "level_sums", "level_counts", "total", "scratch"),
    ]


class SampleNorms(Declared):
    _fields_ = [*_integers("segment"), *_pointers("of_x", "of_noise"), ("scratch", ctypes.c_void_p * 2)]


class PlainStep(Declared):
    _fields_ = [
        ("common", Common),
        *_numbers("c", "a", "b"),
        *_pointers("fault"),
        *_integers("freeze"),
        *_pointers("ids", "out", "x", "score"),
        *_integers("batch", "elements"),
    ]


class Data(Declared):
    _fields_ = [*_pointers("data"), *_integers("dtype")]


class Request(Declared):
    _fields_ = [
        ("common", Common),
        ("update", Update),
        ("draws", Draws),
        *_integers("kind", "wide", "rank"),
        ("address", Address),
        ("operand", Data * OPERANDS),
    ]


class DsmRequest(Declared):
    _fields_ = [
        ("common", Common),
        *_integers("kind", "wide", "rank"),
        ("address", Address),
        ("dsm", Dsm),
        *((name, Data) for name in ("out", "x", "noise", "clean")),
    ]


class SampleNormsRequest(Declared):
    _fields_ = [
        ("common", Common),
        *_integers("wide", "rank"),
        ("address", Address),
        ("norms", SampleNorms),
        *((name, Data) for name in ("x", "noise")),
    ]


class NormalisationRequest(Declared):
    _fields_ = [
        *_integers("instruction_set", "threads", "backward", "activation", "channels_last", "dtype"),
        *_integers("batch", "channels", "pixels", "groups"),
        *_numbers("epsilon"),
        *_pointers("out", "x", "other", "total", "gamma", "alpha", "beta"),
        *_integers("gamma_stride", "alpha_stride", "beta_stride"),
        *_pointers("labels"),
        *_integers("levels"),
        *_pointers("mean", "rstd", "by_gamma", "by_alpha", "by_beta", "plane_means", "plane_variances"),
    ]


class AddEluRequest(Declared):
    _fields_ = [
        *_integers("instruction_set", "threads", "dtype", "count"),
        ("terms", ctypes.c_void_p * 3),
        *_pointers("total", "out"),
    ]


class MixtureTable(Declared):
    _fields_ = [*_pointers("rows"), *_integers("components", "features", "diagonal")]


class MixtureRequest(Declared):
    _fields_ = [
        *_integers("instruction_set", "threads", "batch"),
        ("table", MixtureTable),
        *_pointers("labels", "out", "x"),
    ]


class ChainRun(Declared):
    _fields_ = [*_numbers("c", "a", "b"), *_integers("has_b", "level", "times")]


class ChainRequest(Declared):
    _fields_ = [
        *_integers("instruction_set", "threads", "batch"),
        ("table", MixtureTable),
        *_words("seed", "draw", "sample_offset", "purpose"),
        *_pointers("seeds", "ids"),
        *_integers("seed_stride"),
        *_pointers("runs"),
        *_integers("run_count", "every"),
        *_pointers("frames", "x"),
    ]


class MlpRequest(Declared):
    _fields_ = [
        *_integers("instruction_set", "threads", "batch", "features", "width", "depth", "steps", "activation"),
        *_pointers("x", "weights", "biases", "head", "head_bias", "frame", "levels", "coefficients", "noisy"),
        *_numbers("mean"),
        *_words("seed", "draw", "sample_offset", "purpose"),
        *_pointers("seeds", "ids"),
        *_integers("seed_stride", "every"),
        *_pointers("frames"),
    ]


# What the library is called with, by the name of the entry in csrc/library.cpp.
ENTRIES: dict[str, type[Declared]] = {
    "fl_step_plain": PlainStep,
    "fl_run": Request,
    "fl_dsm": DsmRequest,
    "fl_sample_norms": SampleNormsRequest,
    "fl_normalise": NormalisationRequest,
    "fl_add_elu": AddEluRequest,
    "fl_mixture": MixtureRequest,
    "fl_chain": ChainRequest,
    "fl_mlp": MlpRequest,
}
# With what they are made of, and what they point to.
DECLARED: tuple[type[Declared], ...] = (
    Common,
    Address,
    Update,
    Draws,
    Dsm,
    SampleNorms,
    Data,
    MixtureTable,
    ChainRun,
    *ENTRIES.values(),
)


def _scalars(kind: Any) -> Iterator[str]:
    """The letters of a type's numbers and pointers, in the order in which they lie in memory."""
    if issubclass(kind, ctypes.Array):
        for _ in range(kind._length_):
            yield from _scalars(kind._type_)
    elif issubclass(kind, ctypes.Structure):
        for _, each, *_ in kind._fields_:
            yield from _scalars(each)
    else:
        yield LETTERS[kind]


@functools.cache
def packer(request: type[ctypes.Structure], tail: int = 0) -> Callable[..., bytes]:
    """Returns a function that packs the numbers of a request into its bytes.

    It makes those of a ``PlainStep`` in 0.23 us, where filling the structure by name takes 4.

    Args:
        request: a declaration; structs and arrays in it are taken apart.
        tail: so many integers follow.
    """
    form = struct.Struct("".join(_scalars(request)) + "q" * tail)
    assert form.size == ctypes.sizeof(request) + ctypes.sizeof(ctypes.c_int64) * tail
    return form.pack


def layout(declared: type[ctypes.Structure]) -> str:
    """A declaration as ``fl_layout`` of csrc/requests.cpp describes a struct: its name, its fields and its size."""
    words = [declared.__name__]
    for name, kind, *_ in declared._fields_:
        element = kind._type_ if issubclass(kind, ctypes.Array) else kind
        words.append(f"{name}:{getattr(declared, name).offset}:{LETTERS.get(element, element.__name__)}")
    return " ".join((*words, str(ctypes.sizeof(declared))))


def difference(told: Iterable[str], declared: Sequence[type[ctypes.Structure]] = DECLARED) -> str | None:
    """Returns where a struct of the library is another than the declared one, or None.

    Args:
        told: what ``fl_layout`` says, of every struct.
        declared: the declarations.
    """
    theirs = {text.partition(" ")[0]: text for text in told}
    ours = {each.__name__: layout(each) for each in declared}
    for name in {**ours, **theirs}:
        pairs = itertools.zip_longest(*(side.get(name, "").split() for side in (ours, theirs)), fillvalue="nothing")
        for mine, other in pairs:
            if mine != other:
                return f"of {name} Python has {mine} where the library has {other}"
    return None
