// x + sigma*z, a chunk at a time: 8 bytes an fp32 element, and the samples' levels from words of their own.
#pragma once

namespace {

// The levels of a range's rows, kLanes / 2 at a time, from word 0 of block 0 of each: Philox4x32-10 with a key a lane.
// Each thread draws those it needs, which costs less than handing them over; the first piece of a sample writes them.
// Up to kLanes / 2 - 1 levels past the last row are written to `to`.
inline void draw_levels(const Plan& plan, const Source& source, const Range& range, int64_t* to) {
    const Dsm& d = plan.dsm;
    constexpr int64_t kRows = kLanes / 2;
    for (int64_t begin = 0; begin < range.rows; begin += kRows) {
        uint64_t ids[kRows] = {}, tops[kRows] = {}, keys[kRows] = {};
        for (int64_t i = 0; i < kRows && begin + i < range.rows; ++i) {
            ids[i] = source.sample(range.row + begin + i);
            tops[i] = Source::top(ids[i], d.level_purpose);
            keys[i] = source.seed(range.row + begin + i);
        }
        State v = {W{}, load_words(ids), spread(source.draw), load_words(tops)};
        W k0 = load_words(keys), k1 = k0 >> 32;
        for (int round = 0; round < 10; ++round, k0 = k0 + (uint64_t)kWeyl0, k1 = k1 + (uint64_t)kWeyl1)
            State::round(v, k0, k1);
        const W odd = (v.c0 & 0xFFFFFFFFull) >> 9 << 1 | 1ull;
        const W level = multiply(odd, spread((uint32_t)d.levels)) >> 24;
        memcpy(to + begin, &level, sizeof level);
    }
    if (range.first == 0) memcpy(d.labels + range.row, to, range.rows * sizeof *to);
}

template <class C, class P, class Z>
FL_NOINLINE void perturb(const Plan& plan, C* out, const C* x, P sigma, const Z* z, int64_t n, bool direct) {
    if constexpr (sizeof(C) == sizeof(float))
        if (direct && past_caches(plan, out, n)) {
            for (int64_t i = 0; i < n; i += kLanes) stream(out + i, load(x + i) + lanes_at(sigma, i) * load(z + i));
            return;
        }
    for (int64_t i = 0; i < n; ++i) out[i] = x[i] + sigma[i] * (C)z[i];
}

template <class C>
struct PerturbBuffers {
    alignas(64) float z[kChunk + 64];
    alignas(64) C out[kChunk], x[kChunk], noise[kChunk];
    Spread<C> sigma;
    int64_t levels[kChunk + kLanes / 2], levels_from = -1;  // drawn: of the rows from there on
};

template <class C>
void run_chunk(const Plan& plan, Source& source, const Range& range, PerturbBuffers<C>& buffers) {
    const int64_t flat = range.flat, n = range.n;
    if (plan.draws) {
        fetch<C>(plan, plan.operand[kX], flat, n);
        draw<Normal>(source, range, buffers.z);
    }
    const C* const x = values(plan, plan.operand[kX], flat, n, buffers.x);
    const C* const noise = plan.draws ? nullptr : values(plan, plan.operand[kNoise], flat, n, buffers.noise);
    C* const direct = in_place<C>(plan, plan.operand[kOut], flat, n);
    C* const to = direct ? direct : buffers.out;
    const Dsm& d = plan.dsm;
    if (d.draws_labels && buffers.levels_from != range.row) {
        draw_levels(plan, source, range, buffers.levels);
        buffers.levels_from = range.row;
    }
    const int64_t* const levels = d.draws_labels ? buffers.levels : d.labels + range.row;
    const auto number = [&](int64_t row) { return of_level<C>(plan, d.scale, levels[row - range.row]); };
    each_row(plan, range, number, buffers.sigma, [&](auto sigma) {
        if (noise)
            perturb(plan, to, x, sigma, noise, n, direct);
        else
            perturb(plan, to, x, sigma, buffers.z, n, direct);
    });
    if (!direct) scatter(plan, flat, n, to);
}

}  // namespace
