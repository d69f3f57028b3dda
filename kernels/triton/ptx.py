"""Operations of the stream that are written in PTX: each has the bits of its plain form, in fewer instructions.

The plain form is what the interpreter and other GPUs run, in the order of ``fastlangevin.reference``. Why the PTX has
the same bits stands beside each; ``python -m tests.long.inline_ptx`` executes the texts below on the CPU over all 2^32
words and compares. Products are fused that are exact, or all of whose arguments were tried; nothing else may be.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl

IS_INTERPRETED = tl.constexpr(bool(triton.knobs.runtime.interpret))
IS_PTX = tl.constexpr(not IS_INTERPRETED and torch.version.hip is None and getattr(torch.version, "xpu", None) is None)

# 2 ln 2 in two parts: the product of the first with an exponent is exact.
LN4_HIGH = tl.constexpr(float.fromhex("0x1.62e000p+0"))
LN4_LOW = tl.constexpr(float.fromhex("0x1.0bfbe8p-14"))

MULTIPLY = tl.constexpr("mul.rn.f32 $0, $1, $2;")
MULTIPLY_ADD = tl.constexpr("fma.rn.f32 $0, $1, $2, $3;")

# One IMAD.WIDE. LLVM takes most of 64-bit products apart again, into a high and a low one.
WIDE = tl.constexpr("{ .reg .b64 product; mul.wide.u32 product, $2, $3; mov.b64 {$1, $0}, product; }")

# A complement is one less than the negative: w + (w >> 31) is -~w in the upper half and w in the lower, and to nearest
# even a number and its negative are rounded alike, so that |.| leaves what converting the complement gives.
# The funnel shift puts the exponent's field, e, under 0x4B000000: that is the float 2^23 + e, and 2^23 + 158 less it is
# exact. Exact are 2 - mantissa, from 2^-23 to 1, and the product with 2^-31 too.
FOLD = tl.constexpr(
    """{
    .reg .b32 n, bits;
    .reg .f32 folded, value;
    shr.u32 n, $2, 31;
    add.u32 n, n, $2;
    cvt.rn.f32.s32 folded, n;
    abs.f32 folded, folded;
    add.rn.f32 folded, folded, 0f3F000000;
    mov.b32 bits, folded;
    shf.r.wrap.b32 n, bits, 0x258000, 23;
    mov.b32 value, n;
    sub.rn.f32 $1, 0f4B00009E, value;
    lop3.b32 n, bits, 0x007FFFFF, 0x3F800000, 0xEA;
    mov.b32 value, n;
    sub.rn.f32 value, 0f40000000, value;
    @$3 mul.rn.f32 value, folded, 0f30000000;
    mov.f32 $0, value;
    }"""
)

# LN4_HIGH has 12 digits and an exponent 6: their product is exact, and the sum with it is rounded once. In the upper
# half the exponent counts as 0, and adding fl(0 * LN4_LOW) and then 0 to a positive tail changes nothing.
ADD_EXPONENT = tl.constexpr(
    """{
    .reg .f32 value, low;
    mov.f32 value, $1;
    mul.rn.f32 low, $2, 0f3885FDF4;
    @!$3 add.rn.f32 value, low, value;
    @!$3 fma.rn.f32 value, $2, 0f3FB17000, value;
    mov.f32 $0, value;
    }"""
)

# What ptxas makes of sqrt.rn itself, less its test for arguments below 2^-101, infinities and NaN and its call for
# those: the squared radius is from 2^-32 to 45.8. tests/test_compile_gates.py compares the two for each architecture,
# so that these five are rounded to nearest wherever sqrt.rn is. Besides, over all mantissas and every y that the
# documented error of 2^-22.9 admits (50,859,330 pairs), they round wrongly for two, 0x1.f82294p0 and 0x1.dd26e4p1 with
# y a unit too large (tests/long/inline_ptx.py); a GPU with either would have a wrong sqrt.rn. Normal throughout:
# ftz is idle.
SQUARE_ROOT = tl.constexpr(
    """{
    .reg .f32 y, root, half, rest;
    rsqrt.approx.ftz.f32 y, $1;
    mul.rn.f32 root, $1, y;
    mul.rn.f32 half, y, 0f3F000000;
    neg.f32 rest, root;
    fma.rn.f32 rest, rest, root, $1;
    fma.rn.f32 $0, rest, half, root;
    }"""
)

# (word // 2^7) 2^9 + 2^8 modulo 2^32: a shift and a LEA, where LLVM's two masks take an instruction more.
ANGLE = tl.constexpr("{ .reg .b32 n; shr.u32 n, $1, 7; shl.b32 n, n, 9; add.u32 $0, n, 256; }")

# The result of a store is nobody's: an operation has one.
LOAD = tl.constexpr("{ mov.b32 $0, 0; @$2 ld.global.b32 $0, [$1]; }")
STORE = tl.constexpr("{ @$3 st.global.b32 [$1], $2; mov.b32 $0, 0; }")


@triton.jit
def multiply(x, y):
    """x*y for a sum that must not be contracted to a multiply-add; x is a tensor.

    For Blackwell LLVM packs pairs of fp32 operations, and the ptxas of CUDA 12.9, which Triton 3.6 carries, makes one
    FFMA2 of mul.rn.f32x2 and add.rn.f32x2 in spite of ``--fmad=false``; that of 13.1 does not. A product written in
    PTX is never packed.
    """
    if IS_PTX and x.dtype == tl.float32:
        return tl.inline_asm_elementwise(MULTIPLY, "=f,f,f", [x, y], dtype=tl.float32, is_pure=True, pack=1)
    else:
        return x * y


@triton.jit
def multiply_add(x, y, z):
    """x*y + z, rounded once in PTX: for arguments of which all that occur give the bits of two roundings in the end.

    Those are the first two coefficients of the cosine: over all 2^23 angles its bits are the same
    (tests/long/inline_ptx.py). Not so elsewhere: fused, the sine's first step changes 40 angles, the cosine's second
    298, the logarithm's first 160,230 words, and the low part of 2 ln 2, added in one step, 16 words of all 2^32.
    """
    if IS_PTX:
        return tl.inline_asm_elementwise(MULTIPLY_ADD, "=f,f,f,f", [x, y, z], dtype=tl.float32, is_pure=True, pack=1)
    else:
        return x * y + z


@triton.jit
def wide(x, y):
    """High and low word of the product of two words."""
    if IS_PTX:
        return tl.inline_asm_elementwise(WIDE, "=r,=r,r,r", [x, y], dtype=(tl.uint32, tl.uint32), is_pure=True, pack=1)
    else:
        product = x.to(tl.uint64) * y
        return (product >> 32).to(tl.uint32), product.to(tl.uint32)


@triton.jit
def fold(word, upper):
    """g and exponent of u = (word + 1/2) 2^-32 = 2^-exponent (1 - g/2); the upper half's exponent counts as 0."""
    if IS_PTX:
        return tl.inline_asm_elementwise(
            FOLD, "=f,=f,r,b", [word, upper], dtype=(tl.float32, tl.float32), is_pure=True, pack=1
        )
    else:
        folded = tl.where(upper, word ^ 0xFFFFFFFF, word).to(tl.int32).to(tl.float32) + 0.5
        bits = folded.to(tl.int32, bitcast=True)
        mantissa = ((bits & 0x007FFFFF) | 0x3F800000).to(tl.float32, bitcast=True)
        return tl.where(upper, folded * 2.0**-31, 2.0 - mantissa), (158 - (bits >> 23)).to(tl.float32)


@triton.jit
def add_exponent(tail, exponent, upper):
    """tail + 2 ln 2 exponent, or the tail alone in the upper half."""
    if IS_PTX:
        return tl.inline_asm_elementwise(
            ADD_EXPONENT, "=f,f,f,b", [tail, exponent, upper], dtype=tl.float32, is_pure=True, pack=1
        )
    else:
        exponent = tl.where(upper, 0.0, exponent)
        return multiply(exponent, LN4_HIGH) + (multiply(exponent, LN4_LOW) + tail)


@triton.jit
def square_root(x):
    """The correctly rounded root of x from 2^-101 on."""
    if IS_PTX:
        return tl.inline_asm_elementwise(SQUARE_ROOT, "=f,f", [x], dtype=tl.float32, is_pure=True, pack=1)
    else:
        return tl.sqrt_rn(x)


@triton.jit
def angle(word):
    """(word // 2^7 + 1/2) 2^9 modulo 2^32, as int32."""
    if IS_PTX:
        return tl.inline_asm_elementwise(ANGLE, "=r,r", [word], dtype=tl.int32, is_pure=True, pack=1)
    else:
        return (((word << 2) & 0xFFFFFE00) | 0x100).to(tl.int32, bitcast=True)


@triton.jit
def load_apart(ptrs, valid):
    """fp32 numbers, 0 where not ``valid``, for kernels with an access for each element of a sample.

    Triton's pass that chooses layouts goes, for each access to a block of pointers, through all that depends on it: 25
    seconds for chains of 64 elements, and 0.6 where the accesses are PTX, which it does not see.
    """
    if IS_PTX:
        at = ptrs.to(tl.int64)
        return tl.inline_asm_elementwise(LOAD, "=f,l,b", [at, valid], dtype=tl.float32, is_pure=False, pack=1)
    else:
        return tl.load(ptrs, mask=valid, other=0.0)


@triton.jit
def store_apart(ptrs, value, valid):
    """As :func:`load_apart`."""
    if IS_PTX:
        at = ptrs.to(tl.int64)
        tl.inline_asm_elementwise(STORE, "=r,l,f,b", [at, value, valid], dtype=tl.int32, is_pure=False, pack=1)
    else:
        tl.store(ptrs, value, mask=valid)


@triton.jit
def stay(x):
    """32 bits as they are: what is made of them is made anew in every turn of a loop, not before it and kept."""
    if IS_PTX:
        return tl.inline_asm_elementwise("mov.b32 $0, $1;", "=r,r", [x], dtype=x.dtype, is_pure=False, pack=1)
    else:
        return x
