// The x86-64 baseline: SSE2, four 32-bit lanes.
#pragma once

#include <emmintrin.h>

#define FL_LANES 4
#include "vectors.h"

namespace {

FL_INLINE W multiply(W a, W b) { return (W)_mm_mul_epu32((__m128i)a, (__m128i)b); }
FL_INLINE I low_words(W a, W b) { return (I)_mm_shuffle_ps((__m128)a, (__m128)b, 0x88); }
FL_INLINE I high_words(W a, W b) { return (I)_mm_shuffle_ps((__m128)a, (__m128)b, 0xDD); }
FL_INLINE F square_root(F x) { return (F)_mm_sqrt_ps((__m128)x); }
FL_INLINE F select(I sign, F yes, F no) {
    const __m128 all = (__m128)_mm_srai_epi32((__m128i)sign, 31);
    return (F)_mm_or_ps(_mm_and_ps(all, (__m128)yes), _mm_andnot_ps(all, (__m128)no));
}
FL_INLINE F largest(F a, F b) { return (F)_mm_max_ps((__m128)a, (__m128)b); }
FL_INLINE bool any(I signs) { return _mm_movemask_ps((__m128)signs) != 0; }
FL_INLINE I exclusive_or(I a, I b, I c) { return a ^ b ^ c; }
FL_INLINE W exclusive_or(W a, W b, W c) { return a ^ b ^ c; }

FL_INLINE F multiply_add(F a, F b, F c) { return a * b + c; }

FL_INLINE void transpose(F& a, F& b, F& c, F& d) {
    const __m128 ab0 = _mm_unpacklo_ps((__m128)a, (__m128)b), ab1 = _mm_unpackhi_ps((__m128)a, (__m128)b);
    const __m128 cd0 = _mm_unpacklo_ps((__m128)c, (__m128)d), cd1 = _mm_unpackhi_ps((__m128)c, (__m128)d);
    a = (F)_mm_movelh_ps(ab0, cd0);
    b = (F)_mm_movehl_ps(cd0, ab0);
    c = (F)_mm_movelh_ps(ab1, cd1);
    d = (F)_mm_movehl_ps(cd1, ab1);
}

FL_INLINE void stream(float* to, F x) { _mm_stream_ps(to, (__m128)x); }

}  // namespace
