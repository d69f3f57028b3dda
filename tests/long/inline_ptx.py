"""The inline PTX of the Triton kernels, executed on the CPU: proves by exhaustion what kernels/triton/ptx.py claims.

    python -m tests.long.inline_ptx                  all words, some minutes
    python -m tests.long.inline_ptx --every 4099     one word in 4099, for a look

The texts are taken from the kernels and executed instruction by instruction, each rounded as PTX defines it. Over all
words the radius must have the bits of the C++ kernels (which are the reference's), and angle and cosine those of their
plain forms. What PTX leaves open is rsqrt.approx, with a relative error of 2^-22.9 at most. Scaling by 4 scales every
step of the root by powers of two, so that the arguments in [1, 4) stand for all: for each of them, every number that
the error admits is tried. The two pairs that go wrong are why the kernels lean on ptxas besides, which makes the same
instructions of sqrt.rn.
"""

from __future__ import annotations

import argparse
import re
import sys
import time
from collections.abc import Callable, Iterator

import torch
from torch import Tensor
from tqdm import tqdm

from fastlangevin.kernels.cpp import native
from fastlangevin.kernels.triton import ptx
from fastlangevin.reference import random as reference

CHUNK = 2**18
RSQRT_ERROR = 2.0**-22.9
# Arguments of the root whose result would be wrong with 1/sqrt(x) taken this many units too large.
WRONG_ROOTS = {(float.fromhex("0x1.f82294p0"), 1), (float.fromhex("0x1.dd26e4p1"), 1)}
OPERAND = re.compile(r"\{[^}]*\}|[^,\s]+")


def fma(a: Tensor, b: Tensor, c: Tensor) -> Tensor:
    """a*b + c in fp32, rounded once.

    The product is exact in fp64. The sum is rounded to odd there, which a second rounding to nearest does not see.
    """
    product, addend = a.double() * b.double(), c.double()
    total = product + addend
    back = total - product
    lost = (product - (total - back)) + (addend - back)
    bits = total.view(torch.int64)
    inexact_even = (lost != 0) & (bits & 1 == 0)
    nearer_to_zero = (lost > 0) != (total > 0)
    return torch.where(inexact_even, bits + torch.where(nearer_to_zero, -1, 1), bits).view(torch.float64).float()


def nearest_rsqrt(x: Tensor) -> Tensor:
    return (1 / torch.sqrt(x.double())).float()


def _shifted(word: Tensor, count: int) -> Tensor:
    """A word moved right, zeros coming in."""
    return word >> count & (1 << (32 - count)) - 1


def _lop3(a: Tensor, b: Tensor, c: Tensor, table: int) -> Tensor:
    found = torch.zeros_like(a)
    for index in range(8):
        if table >> index & 1:
            found = found | ((a if index & 4 else ~a) & (b if index & 2 else ~b) & (c if index & 1 else ~c))
    return found


def _literal(text: str) -> int:
    value = int(text[2:], 16) if text.startswith("0f") else int(text, 0)
    return value - (value >> 31 << 32)


def execute(
    text: str, outputs: int, inputs: list[Tensor], rsqrt: Callable[[Tensor], Tensor] = nearest_rsqrt
) -> list[Tensor]:
    """Run a text of kernels/triton/ptx.py.

    Args:
        text: as it is given to Triton, ``$0`` and so on being its operands.
        outputs: how many of them are written.
        inputs: the others: words as int32, numbers as fp32, predicates as bool.
        rsqrt: what rsqrt.approx gives.

    Returns:
        The outputs as int32 words.
    """
    like = torch.zeros_like(inputs[0], dtype=torch.int32)
    registers = {
        f"${outputs + index}": each.view(torch.int32) if each.dtype == torch.float32 else each
        for index, each in enumerate(inputs)
    }

    def word(name: str) -> Tensor:
        return registers[name] if name in registers else torch.full_like(like, _literal(name))

    def number(name: str) -> Tensor:
        return word(name).view(torch.float32)

    body = text.strip().removeprefix("{").removesuffix("}")
    for statement in filter(None, map(str.strip, body.split(";"))):
        if statement.startswith(".reg"):
            continue
        guard = re.match(r"@(!?)(\S+)\s+", statement)
        operation, rest = statement[guard.end() if guard else 0 :].split(None, 1)
        to, *of = OPERAND.findall(rest)
        if operation == "mov.b64":
            low, high = OPERAND.findall(to[1:-1])
            registers[low], registers[high] = registers[of[0]].int(), (registers[of[0]] >> 32).int()
            continue
        match operation:
            case "mov.b32" | "mov.f32":
                value = word(of[0])
            case "shr.u32":
                value = _shifted(word(of[0]), _literal(of[1]))
            case "shl.b32":
                value = word(of[0]) << _literal(of[1])
            case "shf.r.wrap.b32":
                count = _literal(of[2])
                value = _shifted(word(of[0]), count) | word(of[1]) << (32 - count)
            case "lop3.b32":
                value = _lop3(*map(word, of[:3]), _literal(of[3]))
            case "add.u32":
                value = word(of[0]) + word(of[1])
            case "mul.wide.u32":
                value = (word(of[0]).long() & 0xFFFFFFFF) * (word(of[1]).long() & 0xFFFFFFFF)
            case "abs.f32":
                value = word(of[0]) & 0x7FFFFFFF
            case "neg.f32":
                value = word(of[0]) ^ -(2**31)
            case "cvt.rn.f32.s32":
                value = word(of[0]).float()
            case "add.rn.f32":
                value = number(of[0]) + number(of[1])
            case "sub.rn.f32":
                value = number(of[0]) - number(of[1])
            case "mul.rn.f32":
                value = number(of[0]) * number(of[1])
            case "fma.rn.f32":
                value = fma(*map(number, of))
            case "rsqrt.approx.ftz.f32":
                value = rsqrt(number(of[0]))
            case _:
                raise ValueError(f"{operation} is not known here")
        if value.dtype == torch.float32:
            value = value.view(torch.int32)
        if guard:
            holds = registers[guard[2]] != bool(guard[1])
            value = torch.where(holds, value, registers[to])
        registers[to] = value
    return [registers[f"${index}"] for index in range(outputs)]


def radius(words: Tensor) -> Tensor:
    """As ``philox.radius``, for int32 words."""
    upper = words < 0
    g, exponent = (each.view(torch.float32) for each in execute(ptx.FOLD.value, 2, [words, upper]))
    tail = reference._horner(reference.LOG_Q, g) * g * g + g
    (square,) = execute(ptx.ADD_EXPONENT.value, 1, [tail, exponent, upper])
    (root,) = execute(ptx.SQUARE_ROOT.value, 1, [square.view(torch.float32)])
    return root.view(torch.float32)


def wrong_words(words: Tensor) -> int:
    """How many of some int64 words have a radius or an angle with other bits."""
    short = words.int()
    plain = (short << 2 & ~0x1FF) | 0x100
    (angle,) = execute(ptx.ANGLE.value, 1, [short])
    return int(((radius(short) != native.polar(short)[0]) | (angle != plain)).sum())


def wrong_cosines(t: Tensor, coefficients: tuple[float, ...] = reference.COS) -> int:
    """For how many angles, in units of an eighth of a turn, fusing the first step changes the polynomial's value."""
    square = t * t
    last, before = (torch.full_like(t, each) for each in coefficients[:-3:-1])
    (value,) = execute(ptx.MULTIPLY_ADD.value, 1, [square, last, before])
    value = value.view(torch.float32)
    for coefficient in coefficients[-3::-1]:
        value = value * square + coefficient
    return int((value != reference._horner(coefficients, square)).sum())


def roots(x: Tensor) -> tuple[int, set[tuple[float, int]]]:
    """Try every admitted 1/sqrt(x) for fp32 arguments in [1, 4).

    Returns:
        The pairs tried, and those whose root is not the nearest: the argument, and units from the nearest 1/sqrt(x).
    """
    exact = torch.sqrt(x.double())
    nearest = nearest_rsqrt(x)
    tried, wrong = 0, set()
    for units in range(-3, 4):
        y = (nearest.view(torch.int32) + units).view(torch.float32)
        admitted = (y.double() * exact - 1).abs() <= RSQRT_ERROR
        (root,) = execute(ptx.SQUARE_ROOT.value, 1, [x], lambda _, y=y: y)
        tried += int(admitted.sum())
        wrong |= {(each, units) for each in x[admitted & (root.view(torch.float32) != exact.float())].tolist()}
    return tried, wrong


def chunks(first: int, last: int, every: int, quiet: bool, what: str) -> Iterator[Tensor]:
    for start in tqdm(range(first, last, CHUNK * every), disable=quiet, unit="chunk", desc=what):
        yield torch.arange(start, min(start + CHUNK * every, last), every)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--every", type=int, default=1, help="take one word in this many")
    parser.add_argument("--quiet", action="store_true", help="no progress bar")
    options = parser.parse_args()
    started = time.monotonic()
    tried, wrong = 0, set()
    for bits in chunks(0x3F800000, 0x40800000, options.every, options.quiet, "roots"):
        some, found = roots(bits.int().view(torch.float32))
        tried, wrong = tried + some, wrong | found
    print(f"{tried:,} pairs of an argument and its 1/sqrt; not rounded to nearest: {sorted(wrong) or 'none'}")
    angles = changed = 0
    for index in chunks(0, 2**22, options.every, options.quiet, "cosines"):
        # Of two opposite angles the square is the same.
        angles, changed = angles + len(index), changed + wrong_cosines((2 * index + 1).float() * 2.0**-23)
    print(f"{angles:,} angles, {changed} cosines with other bits")
    count = bad = 0
    for words in chunks(0, 2**32, options.every, options.quiet, "words"):
        count, bad = count + len(words), bad + wrong_words(words)
    print(f"{count:,} words, {bad} with other bits, in {time.monotonic() - started:.0f} s")
    return 0 if not bad and not changed and wrong <= WRONG_ROOTS else 1


if __name__ == "__main__":
    sys.exit(main())
