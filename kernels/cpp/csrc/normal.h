// Random words to values, in the order of operations that reference.py writes down: each of + - * sqrt rounded once.
//
//     u = (w0 + 1/2) 2^-32     radius = sqrt(-2 ln u)     angle = 2 pi (w1 // 2^7 + 1/2) 2^-25
//
// (radius cos, radius sin)
#pragma once

namespace {

FL_INLINE F radius(I word) {
    const I upper = (I)((S)word >> 31);
    const F folded = to_float(word ^ upper) + 0.5f;  // the complement in the upper half, where 1 - u is what is small
    const I bits = (I)folded;
    const F mantissa = (F)((bits & 0x007FFFFFu) | 0x3F800000u);
    const F exponent = to_float(~upper & (158u - (bits >> 23)));
    const F g = select(word, folded * 0x1p-31f, 2.0f - mantissa);
    F q = g * 0x1.6a1e54p-8f + -0x1.a3b986p-7f;
    q = q * g + 0x1.356c6cp-6f;
    q = q * g + -0x1.7291d6p-8f;
    q = q * g + 0x1.0e0482p-6f;
    q = q * g + 0x1.f30ff4p-6f;
    q = q * g + 0x1.55a3a8p-4f;
    q = q * g + 0x1.fffec0p-3f;
    const F tail = q * g * g + g;
    return square_root(exponent * 0x1.62e000p+0f + (exponent * 0x1.0bfbe8p-14f + tail));
}

FL_INLINE void cos_sin(I word, F& cosine, F& sine) {
    const I rounded = word + 0x20000000u;
    const F t = to_float((word << 2 & 0xFFFFFE00u) | 0x100u) * 0x1p-31f;  // exact
    const F square = t * t;
    F s = square * -0x1.2f6a1ap-15f + 0x1.466b5ep-9f;
    s = s * square + -0x1.4abbecp-4f;
    s = s * square + 0x1.921fb6p-1f;
    s = s * t;
    F c = square * 0x1.d45af0p-19f + -0x1.55b110p-12f;
    c = c * square + 0x1.03c1aep-6f;
    c = c * square + -0x1.3bd3ccp-2f;
    c = c * square + 0x1p+0f;
    const I swap = rounded << 1;
    // The cosine is negative where bits 31 and 30 differ, the sine where bit 31 is set.
    cosine = (F)((I)select(swap, s, c) ^ ((rounded ^ swap) & 0x80000000u));
    sine = (F)((I)select(swap, c, s) ^ (rounded & 0x80000000u));
}

// Four words of each block to four values of each block; then to memory order.
struct Normal {
    FL_INLINE void apply(I w0, I w1, I w2, I w3, F& z0, F& z1, F& z2, F& z3) {
        F c, s;
        cos_sin(w1, c, s);
        const F first = radius(w0);
        z0 = first * c;
        z1 = first * s;
        cos_sin(w3, c, s);
        const F second = radius(w2);
        z2 = second * c;
        z3 = second * s;
        transpose(z0, z1, z2, z3);
    }
};

// (word // 2^9 + 1/2) 2^-23: exact.
struct Uniform {
    FL_INLINE F one(I word) { return (to_float(word >> 9) + 0.5f) * 0x1p-23f; }
    FL_INLINE void apply(I w0, I w1, I w2, I w3, F& z0, F& z1, F& z2, F& z3) {
        z0 = one(w0), z1 = one(w1), z2 = one(w2), z3 = one(w3);
        transpose(z0, z1, z2, z3);
    }
};

}  // namespace
