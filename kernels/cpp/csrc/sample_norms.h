// Norms of samples and of noise: 4 bytes an fp32 element. The noise never leaves the first-level cache.
#pragma once

namespace {

template <class C>
struct NormsBuffers {
    alignas(64) float z[kLongestSegment + 64];
    alignas(64) C x[kLongestSegment], noise[kLongestSegment];
};

template <class C>
const C* widened(const float* z, int64_t n, C* buffer) {
    if constexpr (sizeof(C) == sizeof(float)) return z;
    for (int64_t i = 0; i < n; ++i) buffer[i] = (C)z[i];
    return buffer;
}

template <class C>
void run_chunk(const Plan& plan, Source& source, const Range& range, NormsBuffers<C>& buffers) {
    const SampleNorms& norms = plan.norms;
    const int64_t flat = range.flat, n = range.n;
    if (norms.of_x) {
        const C* const x = values(plan, plan.operand[kX], flat, n, buffers.x);
        sum_rows(plan, range, x, norms.segment, static_cast<C*>(norms.scratch[0]),
                 [&](int64_t row, C sum) { static_cast<C*>(norms.of_x)[row] = root(sum); });
    }
    if (!norms.of_noise) return;
    if (plan.draws) draw<Normal>(source, range, buffers.z);
    const C* const z = plan.draws ? widened(buffers.z, n, buffers.noise)
                                  : values(plan, plan.operand[kNoise], flat, n, buffers.noise);
    sum_rows(plan, range, z, norms.segment, static_cast<C*>(norms.scratch[1]),
             [&](int64_t row, C sum) { static_cast<C*>(norms.of_noise)[row] = root(sum); });
}

}  // namespace
