// NEON on 64-bit Arm: four 32-bit lanes.
#pragma once

#include <arm_neon.h>

#define FL_LANES 4
#include "vectors.h"

namespace {

FL_INLINE W multiply(W a, W b) { return (W)vmull_u32(vmovn_u64((uint64x2_t)a), vmovn_u64((uint64x2_t)b)); }
FL_INLINE I low_words(W a, W b) { return (I)vuzp1q_u32((uint32x4_t)a, (uint32x4_t)b); }
FL_INLINE I high_words(W a, W b) { return (I)vuzp2q_u32((uint32x4_t)a, (uint32x4_t)b); }
FL_INLINE F square_root(F x) { return (F)vsqrtq_f32((float32x4_t)x); }
FL_INLINE F select(I sign, F yes, F no) {
    const uint32x4_t all = vreinterpretq_u32_s32(vshrq_n_s32((int32x4_t)sign, 31));
    return (F)vbslq_f32(all, (float32x4_t)yes, (float32x4_t)no);
}
FL_INLINE F largest(F a, F b) { return select((I)(a > b), a, b); }
FL_INLINE bool any(I signs) { return (int32_t)vmaxvq_u32((uint32x4_t)signs) < 0; }
FL_INLINE I exclusive_or(I a, I b, I c) { return a ^ b ^ c; }
FL_INLINE W exclusive_or(W a, W b, W c) { return a ^ b ^ c; }

FL_INLINE F multiply_add(F a, F b, F c) {
    return (F)vfmaq_f32((float32x4_t)c, (float32x4_t)a, (float32x4_t)b);
}

FL_INLINE void transpose(F& a, F& b, F& c, F& d) {
    const uint64x2_t ab0 = vreinterpretq_u64_f32(vzip1q_f32((float32x4_t)a, (float32x4_t)b));
    const uint64x2_t ab1 = vreinterpretq_u64_f32(vzip2q_f32((float32x4_t)a, (float32x4_t)b));
    const uint64x2_t cd0 = vreinterpretq_u64_f32(vzip1q_f32((float32x4_t)c, (float32x4_t)d));
    const uint64x2_t cd1 = vreinterpretq_u64_f32(vzip2q_f32((float32x4_t)c, (float32x4_t)d));
    a = (F)vzip1q_u64(ab0, cd0);
    b = (F)vzip2q_u64(ab0, cd0);
    c = (F)vzip1q_u64(ab1, cd1);
    d = (F)vzip2q_u64(ab1, cd1);
}

FL_INLINE void stream(float* to, F x) { store(to, x); }

}  // namespace
