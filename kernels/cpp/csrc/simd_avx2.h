// AVX2 with F16C: eight 32-bit lanes.
#pragma once

#include <immintrin.h>

#define FL_LANES 8
#include "vectors.h"

namespace {

FL_INLINE W multiply(W a, W b) { return (W)_mm256_mul_epu32((__m256i)a, (__m256i)b); }
FL_INLINE I low_words(W a, W b) { return (I)_mm256_shuffle_ps((__m256)a, (__m256)b, 0x88); }
FL_INLINE I high_words(W a, W b) { return (I)_mm256_shuffle_ps((__m256)a, (__m256)b, 0xDD); }
FL_INLINE F square_root(F x) { return (F)_mm256_sqrt_ps((__m256)x); }
FL_INLINE F select(I sign, F yes, F no) { return (F)_mm256_blendv_ps((__m256)no, (__m256)yes, (__m256)sign); }
FL_INLINE F largest(F a, F b) { return (F)_mm256_max_ps((__m256)a, (__m256)b); }
FL_INLINE bool any(I signs) { return _mm256_movemask_ps((__m256)signs) != 0; }
FL_INLINE I exclusive_or(I a, I b, I c) { return a ^ b ^ c; }
FL_INLINE W exclusive_or(W a, W b, W c) { return a ^ b ^ c; }

FL_INLINE F multiply_add(F a, F b, F c) { return (F)_mm256_fmadd_ps((__m256)a, (__m256)b, (__m256)c); }

FL_INLINE void transpose(F& a, F& b, F& c, F& d) {
    const __m256d ab0 = (__m256d)_mm256_unpacklo_ps((__m256)a, (__m256)b);
    const __m256d ab1 = (__m256d)_mm256_unpackhi_ps((__m256)a, (__m256)b);
    const __m256d cd0 = (__m256d)_mm256_unpacklo_ps((__m256)c, (__m256)d);
    const __m256d cd1 = (__m256d)_mm256_unpackhi_ps((__m256)c, (__m256)d);
    a = (F)_mm256_unpacklo_pd(ab0, cd0);
    b = (F)_mm256_unpackhi_pd(ab0, cd0);
    c = (F)_mm256_unpacklo_pd(ab1, cd1);
    d = (F)_mm256_unpackhi_pd(ab1, cd1);
}

FL_INLINE void stream(float* to, F x) { _mm256_stream_ps(to, (__m256)x); }

#define FL_HALF_LANES 8
FL_INLINE F widen_half(const uint16_t* from) {
    return (F)_mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(from)));
}
FL_INLINE void narrow_half(uint16_t* to, F x) {
    _mm_storeu_si128(reinterpret_cast<__m128i*>(to), _mm256_cvtps_ph((__m256)x, _MM_FROUND_TO_NEAREST_INT));
}

}  // namespace
