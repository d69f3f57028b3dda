// AVX-512 F, DQ, BW and VL: sixteen 32-bit lanes.
#pragma once

#include <immintrin.h>

#define FL_LANES 16
#include "vectors.h"

namespace {

FL_INLINE W multiply(W a, W b) { return (W)_mm512_mul_epu32((__m512i)a, (__m512i)b); }
FL_INLINE I low_words(W a, W b) { return (I)_mm512_shuffle_ps((__m512)a, (__m512)b, 0x88); }
FL_INLINE I high_words(W a, W b) { return (I)_mm512_shuffle_ps((__m512)a, (__m512)b, 0xDD); }
FL_INLINE F square_root(F x) { return (F)_mm512_sqrt_ps((__m512)x); }
FL_INLINE F select(I sign, F yes, F no) {
    return (F)_mm512_mask_blend_ps(_mm512_movepi32_mask((__m512i)sign), (__m512)no, (__m512)yes);
}
FL_INLINE F largest(F a, F b) { return (F)_mm512_max_ps((__m512)a, (__m512)b); }
FL_INLINE bool any(I signs) { return _mm512_movepi32_mask((__m512i)signs) != 0; }
FL_INLINE I exclusive_or(I a, I b, I c) {
    return (I)_mm512_ternarylogic_epi32((__m512i)a, (__m512i)b, (__m512i)c, 0x96);
}
FL_INLINE W exclusive_or(W a, W b, W c) {
    return (W)_mm512_ternarylogic_epi64((__m512i)a, (__m512i)b, (__m512i)c, 0x96);
}

FL_INLINE F multiply_add(F a, F b, F c) { return (F)_mm512_fmadd_ps((__m512)a, (__m512)b, (__m512)c); }

FL_INLINE void transpose(F& a, F& b, F& c, F& d) {
    const __m512d ab0 = (__m512d)_mm512_unpacklo_ps((__m512)a, (__m512)b);
    const __m512d ab1 = (__m512d)_mm512_unpackhi_ps((__m512)a, (__m512)b);
    const __m512d cd0 = (__m512d)_mm512_unpacklo_ps((__m512)c, (__m512)d);
    const __m512d cd1 = (__m512d)_mm512_unpackhi_ps((__m512)c, (__m512)d);
    a = (F)_mm512_unpacklo_pd(ab0, cd0);
    b = (F)_mm512_unpackhi_pd(ab0, cd0);
    c = (F)_mm512_unpacklo_pd(ab1, cd1);
    d = (F)_mm512_unpackhi_pd(ab1, cd1);
}

FL_INLINE void stream(float* to, F x) { _mm512_stream_ps(to, (__m512)x); }

#define FL_HALF_LANES 16
FL_INLINE F widen_half(const uint16_t* from) {
    return (F)_mm512_cvtph_ps(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(from)));
}
FL_INLINE void narrow_half(uint16_t* to, F x) {
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(to), _mm512_cvtps_ph((__m512)x, _MM_FROUND_TO_NEAREST_INT));
}

}  // namespace
