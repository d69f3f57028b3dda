// Denoising score matching: 8 bytes an fp32 element. The output is read and its gradient written, in one pass; the
// noise, the residual and its squares never leave the first-level cache.
#pragma once

namespace {

template <class C>
struct DsmBuffers {
    alignas(64) float z[kChunk + 64];
    alignas(64) C output[kChunk], other[kChunk], gradient[kChunk];
    Spread<C> scale, factor;
    alignas(64) C residual[kLongestSegment] = {};  // a segment's empty places are read, and taken for zeros
};

template <class C, class P>
FL_NOINLINE void find_residual(C* residual, P p, const C* h, const C* noise, const C* clean, const float* z,
                               int64_t n) {
    if (clean)
        for (int64_t i = 0; i < n; ++i) residual[i] = p[i] * (h[i] - clean[i]);
    else if (noise)
        for (int64_t i = 0; i < n; ++i) residual[i] = p[i] * h[i] + noise[i];
    else
        for (int64_t i = 0; i < n; ++i) residual[i] = p[i] * h[i] + (C)z[i];
}

template <class C, class P>
FL_NOINLINE void write_gradient(const Plan& plan, C* out, P factor, const C* residual, int64_t n, bool direct) {
    if constexpr (sizeof(C) == sizeof(float))
        if (direct && past_caches(plan, out, n)) {
            for (int64_t i = 0; i < n; i += kLanes) stream(out + i, lanes_at(factor, i) * load(residual + i));
            return;
        }
    for (int64_t i = 0; i < n; ++i) out[i] = factor[i] * residual[i];
}

// The residual of at most kChunk elements, and the gradient where it is wanted.
template <class C>
void match(const Plan& plan, Source& source, const Range& range, DsmBuffers<C>& buffers, C* residual) {
    const Dsm& d = plan.dsm;
    const int64_t flat = range.flat, n = range.n;
    if (plan.draws) {
        fetch<C>(plan, plan.operand[kX], flat, n);
        draw<Normal>(source, range, buffers.z);
    }
    const Operand &noise = plan.operand[kNoise], &clean = plan.operand[kClean], &gradient = plan.operand[kOut];
    const C* const h = values(plan, plan.operand[kX], flat, n, buffers.output);
    const C* const x = clean.data ? values(plan, clean, flat, n, buffers.other) : nullptr;
    const C* const z = noise.data && !x ? values(plan, noise, flat, n, buffers.other) : nullptr;
    const auto scale = [&](int64_t row) { return of_level<C>(plan, d.scale, d.labels[row]); };
    each_row(plan, range, scale, buffers.scale, [&](auto p) { find_residual(residual, p, h, z, x, buffers.z, n); });
    if (!gradient.data) return;
    C* const direct = in_place<C>(plan, gradient, flat, n);
    C* const to = direct ? direct : buffers.gradient;
    const auto factor = [&](int64_t row) {
        return of_level<C>(plan, d.slope, d.labels[row]) * static_cast<const C*>(d.upstream)[row * d.upstream_stride];
    };
    each_row(plan, range, factor, buffers.factor, [&](auto k) { write_gradient(plan, to, k, residual, n, direct); });
    if (!direct) scatter(plan, flat, n, to);
}

// `count` squares, the first of a segment whose other places are zeros.
template <int kPlaces, class C>
FL_NOINLINE C sum_segment(const C* residual, int64_t count) {
    alignas(64) C filled[kPlaces], groups[kPlaces / 4];
    if (count < kPlaces) {
        for (int i = 0; i < kPlaces; ++i) filled[i] = i < (int)count ? residual[i] : 0;
        residual = filled;
    }
    for (int i = 0; i < kPlaces / 4; ++i) {
        const C* const e = residual + 4 * i;
        groups[i] = (e[0] * e[0] + e[1] * e[1]) + (e[2] * e[2] + e[3] * e[3]);
    }
    return fold<kPlaces / 4>(groups);
}

template <class C>
C sum_segment(const C* residual, int64_t count, int64_t segment) {
    switch (segment) {
        case 4: return sum_segment<4>(residual, count);
        case 8: return sum_segment<8>(residual, count);
        case 16: return sum_segment<16>(residual, count);
        case 32: return sum_segment<32>(residual, count);
        case 64: return sum_segment<64>(residual, count);
        case 128: return sum_segment<128>(residual, count);
        case 256: return sum_segment<256>(residual, count);
        case 512: return sum_segment<512>(residual, count);
        default: return sum_segment<kLongestSegment>(residual, count);
    }
}

// take(row, sum) of the squares of each row of a range; where rows are cut, their segments' sums to the scratch.
template <class C, class Take>
void sum_rows(const Plan& plan, const Range& range, const C* values, int64_t segment, C* scratch, const Take& take) {
    const int64_t segments = (plan.elements + segment - 1) / segment;
    const int64_t each = range.rows == 1 ? range.n : plan.elements;
    for (int64_t row = range.row; row < range.row + range.rows; ++row, values += each) {
        C sums[kLongestSegment / 128 + 1];
        C* const parts = plan.pieces > 1 ? scratch + row * segments + range.first / segment : sums;
        int64_t count = 0;
        for (int64_t at = 0; at < each; at += segment, ++count)
            parts[count] = sum_segment(values + at, each - at < segment ? each - at : segment, segment);
        if (plan.pieces == 1) take(row, across(parts, count));
    }
}

template <class C>
void run_chunk(const Plan& plan, Source& source, const Range& range, DsmBuffers<C>& buffers) {
    for (int64_t done = 0; done < range.n; done += kChunk) {
        Range part = range;
        part.first += done;
        part.flat += done;
        part.n = range.n - done < kChunk ? range.n - done : kChunk;
        match(plan, source, part, buffers, buffers.residual + done);
    }
    const Dsm& d = plan.dsm;
    if (!d.values) return;
    sum_rows(plan, range, buffers.residual, d.segment, static_cast<C*>(d.scratch), [&](int64_t row, C sum) {
        static_cast<C*>(d.values)[row] = sum * (C)0.5 * of_level<C>(plan, d.weight, d.labels[row]);
    });
}

}  // namespace
