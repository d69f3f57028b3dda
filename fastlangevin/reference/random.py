"""Random words, normals and uniforms at their addresses.

Random words are those of Philox4x32-10 (Salmon, Moraes, Dror and Shaw 2011) at the address that
:mod:`fastlangevin.noise` defines. Two words make two normals by Box and Muller's method:

    u = (w0 + 1/2) 2^-32        radius = sqrt(-2 ln u)
    angle = 2 pi (w1 // 2^7 + 1/2) 2^-25
    z0 = radius cos(angle), z1 = radius sin(angle)

The angle has 25 bits because 24 of an octant's are exact in fp32: with all 32 the conversion's rounding takes the error
of a normal from 3.9 to 4.5 units in the last place.

Every operation is one of + - * and sqrt in fp32, each rounded once and in the order written here, so that an
implementation which keeps the order has the same bits. The polynomials were fitted for this package
(``tests/long/polynomials.py``); ``tests/long/accuracy.py`` measures them over all 2^32 words.
"""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["normal_pair", "philox", "rand", "randn", "signed64", "square_root"]

PHILOX_ROUNDS = 10
MULTIPLIER_0 = 0xD2511F53
MULTIPLIER_1 = 0xCD9E8D57
WEYL_0 = 0x9E3779B9
WEYL_1 = 0xBB67AE85
MASK = 0xFFFFFFFF

# -2 ln(1 - g/2) = g + g^2 Q(g) on [0, 1].
LOG_Q = tuple(
    map(
        float.fromhex,
        (
            "0x1.fffec0p-3",
            "0x1.55a3a8p-4",
            "0x1.f30ff4p-6",
            "0x1.0e0482p-6",
            "-0x1.7291d6p-8",
            "0x1.356c6cp-6",
            "-0x1.a3b986p-7",
            "0x1.6a1e54p-8",
        ),
    )
)
# 2 ln 2 in two parts: the product of the first with an exponent is exact.
LN4_HIGH = float.fromhex("0x1.62e000p+0")
LN4_LOW = float.fromhex("0x1.0bfbe8p-14")
# sin(pi/4 t) = t S(t^2) and cos(pi/4 t) = C(t^2) on [-1, 1].
SIN = tuple(map(float.fromhex, ("0x1.921fb6p-1", "-0x1.4abbecp-4", "0x1.466b5ep-9", "-0x1.2f6a1ap-15")))
COS = tuple(map(float.fromhex, ("0x1p+0", "-0x1.3bd3ccp-2", "0x1.03c1aep-6", "-0x1.55b110p-12", "0x1.d45af0p-19")))


def philox(
    c0: Tensor, c1: Tensor, c2: Tensor, c3: Tensor, k0: Tensor, k1: Tensor, rounds: int = PHILOX_ROUNDS
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Philox4x32: four words of counter and two of key to four random words.

    Args:
        c0, c1, c2, c3, k0, k1: int64 tensors that broadcast, each value a word from 0 to 2^32 - 1.
        rounds: 10 in the stream; 7 has known answers too.

    Returns:
        Four int64 tensors of words.
    """
    for _ in range(rounds):
        # int64 products wrap modulo 2^64, which keeps the bits of the unsigned product.
        product_0 = c0 * MULTIPLIER_0
        product_1 = c2 * MULTIPLIER_1
        c0, c1, c2, c3 = (
            (product_1 >> 32 & MASK) ^ c1 ^ k0,
            product_1 & MASK,
            (product_0 >> 32 & MASK) ^ c3 ^ k1,
            product_0 & MASK,
        )
        k0 = k0 + WEYL_0 & MASK
        k1 = k1 + WEYL_1 & MASK
    return c0, c1, c2, c3


def _float(word: Tensor) -> Tensor:
    """int32 to fp32, rounded to nearest even."""
    return word.to(torch.int32).to(torch.float32)


def square_root(x: Tensor) -> Tensor:
    """The correctly rounded fp32 square root.

    PyTorch's own on the CPU is one unit off for some 15 % of arguments (2.13, vector library). The fp64 root rounds to
    the right fp32 value even where it is a unit off itself: no root of a 24-bit number is that near a midpoint.
    """
    return torch.sqrt(x.double()).float()


def _horner(coefficients: tuple[float, ...], x: Tensor) -> Tensor:
    value = x * coefficients[-1] + coefficients[-2]
    for coefficient in coefficients[-3::-1]:
        value = value * x + coefficient
    return value


def radius(word: Tensor) -> Tensor:
    """sqrt(-2 ln((word + 1/2) 2^-32)) in fp32, for words in an int64 tensor.

    In the upper half 1 - u = (~word + 1/2) 2^-32 is what is near zero, so the complement is converted.
    """
    upper = word >= 0x80000000
    folded = _float(torch.where(upper, word ^ MASK, word)) + 0.5
    bits = folded.view(torch.int32)
    mantissa = (bits & 0x007FFFFF | 0x3F800000).view(torch.float32)
    exponent = torch.where(upper, 0, 158 - (bits >> 23)).to(torch.float32)
    g = torch.where(upper, folded * 2.0**-31, 2.0 - mantissa)
    tail = _horner(LOG_Q, g) * g * g + g
    return square_root(exponent * LN4_HIGH + (exponent * LN4_LOW + tail))


def cos_sin(word: Tensor) -> tuple[Tensor, Tensor]:
    """Cosine and sine of 2 pi (word // 2^7 + 1/2) 2^-25 in fp32, for words in an int64 tensor."""
    rounded = word + 0x20000000 & MASK
    low = word << 2 & 0xFFFFFE00 | 0x100
    t = _float(low - (low >> 31 << 32)) * 2.0**-31
    square = t * t
    sine = _horner(SIN, square) * t
    cosine = _horner(COS, square)
    swap = rounded & 0x40000000 != 0
    first = torch.where(swap, sine, cosine)
    second = torch.where(swap, cosine, sine)
    return (
        torch.where(rounded + 0x40000000 & 0x80000000 != 0, -first, first),
        torch.where(rounded & 0x80000000 != 0, -second, second),
    )


def normal_pair(word_0: Tensor, word_1: Tensor) -> tuple[Tensor, Tensor]:
    """Two independent standard normals (fp32) from two random words (int64 tensors)."""
    length = radius(word_0)
    cosine, sine = cos_sin(word_1)
    return length * cosine, length * sine


def words(
    elements: int,
    sample_ids: Tensor,
    *,
    seed: int | Tensor,
    draw: int | Tensor,
    purpose: int,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """The random words of whole samples: four int64 tensors ``(B, ceil(elements / 4))``.

    Args:
        elements: elements of one sample.
        sample_ids: int64 ``(B,)``; its device is where the work is done.
        seed: an int, or an int64 tensor ``()`` or ``(B,)`` with its bits.
        draw: an int, or an int64 tensor ``()``.
        purpose: 0 to 255.
    """
    device = sample_ids.device
    block = torch.arange((elements + 3) // 4, dtype=torch.int64, device=device)[None, :]
    sample = sample_ids[:, None]
    key = torch.as_tensor(seed if isinstance(seed, Tensor) else signed64(seed), device=device)
    key = key.reshape(-1, 1)
    number = torch.as_tensor(draw, device=device).reshape(1, 1)
    return philox(
        block,
        sample & MASK,
        number & MASK,
        (sample >> 32 & 0x00FFFFFF) | purpose << 24,
        key & MASK,
        key >> 32 & MASK,
    )


def signed64(word: int) -> int:
    """The int64 with the bits of an unsigned 64-bit word: how a seed is kept in a tensor."""
    return word - 2**64 if word >= 2**63 else word


def _layout(parts: tuple[Tensor, ...], elements: int) -> Tensor:
    batch, blocks = parts[0].shape
    return torch.stack(parts, dim=-1).reshape(batch, 4 * blocks)[:, :elements]


def randn(elements: int, sample_ids: Tensor, *, seed: int | Tensor, draw: int | Tensor, purpose: int) -> Tensor:
    """Standard normals ``(B, elements)`` in fp32; arguments as for :func:`words`."""
    w0, w1, w2, w3 = words(elements, sample_ids, seed=seed, draw=draw, purpose=purpose)
    return _layout((*normal_pair(w0, w1), *normal_pair(w2, w3)), elements)


def rand(elements: int, sample_ids: Tensor, *, seed: int | Tensor, draw: int | Tensor, purpose: int) -> Tensor:
    """Uniforms ``(B, elements)`` in fp32: (word // 2^9 + 1/2) 2^-23, exact, never 0 or 1."""
    parts = words(elements, sample_ids, seed=seed, draw=draw, purpose=purpose)
    return _layout(tuple((_float(word >> 9) + 0.5) * 2.0**-23 for word in parts), elements)
