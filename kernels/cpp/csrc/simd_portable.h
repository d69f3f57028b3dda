// Any processor, four lanes in the compiler's own vectors: what runs where no other header fits.
#pragma once

#define FL_LANES 4
#include "vectors.h"

namespace {

FL_INLINE W multiply(W a, W b) { return (a & 0xFFFFFFFFull) * (b & 0xFFFFFFFFull); }
FL_INLINE I low_words(W a, W b) { return I{(uint32_t)a[0], (uint32_t)a[1], (uint32_t)b[0], (uint32_t)b[1]}; }
FL_INLINE I high_words(W a, W b) { return low_words(a >> 32, b >> 32); }
FL_INLINE F square_root(F x) {
    return F{__builtin_sqrtf(x[0]), __builtin_sqrtf(x[1]), __builtin_sqrtf(x[2]), __builtin_sqrtf(x[3])};
}
FL_INLINE F select(I sign, F yes, F no) {
    const I all = (I)((S)sign >> 31);
    return (F)((all & (I)yes) | (~all & (I)no));
}
FL_INLINE F largest(F a, F b) { return select((I)(a > b), a, b); }
FL_INLINE bool any(I signs) { return (int32_t)(signs[0] | signs[1] | signs[2] | signs[3]) < 0; }
FL_INLINE I exclusive_or(I a, I b, I c) { return a ^ b ^ c; }
FL_INLINE W exclusive_or(W a, W b, W c) { return a ^ b ^ c; }

FL_INLINE F multiply_add(F a, F b, F c) { return a * b + c; }

FL_INLINE void transpose(F& a, F& b, F& c, F& d) {
    const F p = {a[0], b[0], c[0], d[0]}, q = {a[1], b[1], c[1], d[1]};
    const F r = {a[2], b[2], c[2], d[2]}, s = {a[3], b[3], c[3], d[3]};
    a = p, b = q, c = r, d = s;
}

FL_INLINE void stream(float* to, F x) { store(to, x); }

}  // namespace
