"""Philox4x32-10 and the normals made from it: Triton device functions.

The operations and their order are those of ``fastlangevin.reference``, so the bits are the same, provided that the
caller compiles with ``enable_fp_fusion=False``: a contracted multiply-add rounds once where the stream rounds twice.
libdevice's sine, cosine and logarithm would cost about 45 instructions a normal, which is all that an element of the
whole stream takes; ``kernels.ptx`` has what the compilers would make longer.
"""

from __future__ import annotations

import triton
import triton.language as tl

from .ptx import IS_INTERPRETED, add_exponent, angle, fold, multiply, multiply_add, square_root, wide

# -2 ln(1 - g/2) = g + g^2 Q(g) on [0, 1].
LOG_0 = tl.constexpr(float.fromhex("0x1.fffec0p-3"))
LOG_1 = tl.constexpr(float.fromhex("0x1.55a3a8p-4"))
LOG_2 = tl.constexpr(float.fromhex("0x1.f30ff4p-6"))
LOG_3 = tl.constexpr(float.fromhex("0x1.0e0482p-6"))
LOG_4 = tl.constexpr(float.fromhex("-0x1.7291d6p-8"))
LOG_5 = tl.constexpr(float.fromhex("0x1.356c6cp-6"))
LOG_6 = tl.constexpr(float.fromhex("-0x1.a3b986p-7"))
LOG_7 = tl.constexpr(float.fromhex("0x1.6a1e54p-8"))
# sin(pi/4 t) = t S(t^2) and cos(pi/4 t) = C(t^2) on [-1, 1].
SIN_0 = tl.constexpr(float.fromhex("0x1.921fb6p-1"))
SIN_1 = tl.constexpr(float.fromhex("-0x1.4abbecp-4"))
SIN_2 = tl.constexpr(float.fromhex("0x1.466b5ep-9"))
SIN_3 = tl.constexpr(float.fromhex("-0x1.2f6a1ap-15"))
COS_0 = tl.constexpr(float.fromhex("0x1p+0"))
COS_1 = tl.constexpr(float.fromhex("-0x1.3bd3ccp-2"))
COS_2 = tl.constexpr(float.fromhex("0x1.03c1aep-6"))
COS_3 = tl.constexpr(float.fromhex("-0x1.55b110p-12"))
COS_4 = tl.constexpr(float.fromhex("0x1.d45af0p-19"))

TWO_M31 = tl.constexpr(2.0**-31)
TWO_M23 = tl.constexpr(2.0**-23)


@triton.jit
def _round(c0, c1, c2, c3, k0, k1):
    high_0, low_0 = wide(c0, 0xD2511F53)
    high_1, low_1 = wide(c2, 0xCD9E8D57)
    return high_1 ^ c1 ^ k0, low_1, high_0 ^ c3 ^ k1, low_0


@triton.jit
def philox(c0, c1, c2, c3, k0, k1):
    """Four words of counter and two of key, all uint32, to four random words."""
    # The keys are advanced in 64 bits: the interpreter warns where a 32-bit scalar wraps.
    for i in tl.static_range(10):
        c0, c1, c2, c3 = _round(
            c0,
            c1,
            c2,
            c3,
            (k0.to(tl.uint64) + i * 0x9E3779B9).to(tl.uint32),
            (k1.to(tl.uint64) + i * 0xBB67AE85).to(tl.uint32),
        )
    return c0, c1, c2, c3


@triton.jit
def radius(word):
    """sqrt(-2 ln((word + 1/2) 2^-32)) in fp32."""
    upper = word.to(tl.int32, bitcast=True) < 0
    g, exponent = fold(word, upper)
    q = multiply(g, LOG_7) + LOG_6
    q = multiply(q, g) + LOG_5
    q = multiply(q, g) + LOG_4
    q = multiply(q, g) + LOG_3
    q = multiply(q, g) + LOG_2
    q = multiply(q, g) + LOG_1
    q = multiply(q, g) + LOG_0
    return square_root(add_exponent(multiply(q * g, g) + g, exponent, upper))


@triton.jit
def _flipped(x, sign):
    return (x.to(tl.uint32, bitcast=True) ^ sign).to(tl.float32, bitcast=True)


@triton.jit
def cos_sin(word):
    """Cosine and sine of 2 pi (word // 2^7 + 1/2) 2^-25 in fp32, both less the sign in the third value."""
    t = angle(word).to(tl.float32) * TWO_M31
    square = t * t
    sine = multiply(square, SIN_3) + SIN_2
    sine = multiply(sine, square) + SIN_1
    sine = multiply(sine, square) + SIN_0
    sine = sine * t
    cosine = multiply_add(square, COS_4, COS_3)
    cosine = multiply(cosine, square) + COS_2
    cosine = multiply(cosine, square) + COS_1
    cosine = multiply(cosine, square) + COS_0
    # The turn is rounded to quarters: an odd one makes (-sine, cosine) of (cosine, sine), two change both signs.
    rounded = word + 0x20000000
    odd = (rounded & 0x40000000) != 0
    return tl.where(odd, _flipped(sine, 0x80000000), cosine), tl.where(odd, cosine, sine), rounded & 0x80000000


@triton.jit
def pair(w0, w1):
    """Two words to two standard normals in fp32."""
    first, second, sign = cos_sin(w1)
    # One radius with the sign for two values with it: a product's sign is exact.
    length = _flipped(radius(w0), sign)
    # The objective adds them as they are: of plain products Triton 3.6 made FFMA2 for sm_100, in 16 bits.
    return multiply(length, first), multiply(length, second)


@triton.jit
def uniform(word):
    """(word // 2^9 + 1/2) 2^-23 in fp32: exact, never 0 or 1."""
    return ((word >> 9).to(tl.int32).to(tl.float32) + 0.5) * TWO_M23


@triton.jit
def load_as(ptrs, valid, dtype: tl.constexpr):
    """Elements widened or narrowed to fp32 or fp64."""
    return widened(tl.load(ptrs, mask=valid), dtype)


@triton.jit
def widened(value, dtype: tl.constexpr):
    if value.dtype == tl.bfloat16:
        value = value.to(tl.float32)  # the interpreter widens bf16 to no other type
    return value.to(dtype)


@triton.jit
def round_to(value, dtype: tl.constexpr):
    """To nearest even. The interpreter truncates to bf16, so there the rounding is written out in integers."""
    if IS_INTERPRETED and dtype == tl.bfloat16:
        bits = value.to(tl.float32).to(tl.uint32, bitcast=True).to(tl.uint64)
        rounded = ((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16).to(tl.uint16)
        return tl.where(value == value, rounded, 0x7FC0).to(tl.uint16).to(tl.bfloat16, bitcast=True)
    else:
        return value.to(dtype)
