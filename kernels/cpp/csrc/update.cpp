// out = c*x + a*score + b*z, a chunk at a time, and the table of what an instruction set offers.
//
// 12 bytes an fp32 element: x and score are read, out is written, z never leaves the first-level cache.
#include "instruction_set.h"

#include "convert.h"
#include "normal.h"
#include "philox.h"
#include "operands.h"
#include "draw.h"
#include "watch.h"
#include "expm1.h"

namespace {

// Where operands that cannot be used in place are brought together. 64 values more: groups are written whole.
template <class C>
struct Buffers {
    alignas(64) float z[kChunk + 64];
    alignas(64) C out[kChunk], x[kChunk], score[kChunk], noise[kChunk], known[kChunk];
    alignas(64) C c[kChunk], a[kChunk], b[kChunk];
    uint8_t mask[kChunk];
};

// A coefficient that is one number over the whole range.
template <class C>
bool uniform(const Plan& plan, Name name, double number, int64_t flat, int64_t n, C& value) {
    const Operand& operand = plan.operand[name];
    if (!operand.data) {
        value = (C)number;
        return true;
    }
    const int64_t inner = plan.rank - 1;
    if (operand.stride[inner] != 0 || flat % plan.size[inner] + n > plan.size[inner]) return false;
    gather(plan, operand, flat, 1, &value);
    return true;
}

template <class C>
const C* spread_out(bool one, C value, const Plan& plan, Name name, int64_t flat, int64_t n, C* buffer) {
    if (!one) return values(plan, plan.operand[name], flat, n, buffer);
    for (int64_t i = 0; i < n; ++i) buffer[i] = value;
    return buffer;
}

// Updates return the bits of their largest magnitude where they are watched, for watch.h.
template <bool kWatched, class C, class Z>
BitsOf<C> update(C* out, const C* x, const C* score, const Z* z, C c, C a, C b, int64_t n) {
    Largest<kWatched, C> top;
    // 1 * x has the bits of x, so a chain's usual c costs nothing.
    if (z && c == C(1))
        for (int64_t i = 0; i < n; ++i) top.add(out[i] = (x[i] + a * score[i]) + b * (C)z[i]);
    else if (z)
        for (int64_t i = 0; i < n; ++i) top.add(out[i] = (c * x[i] + a * score[i]) + b * (C)z[i]);
    else
        for (int64_t i = 0; i < n; ++i) top.add(out[i] = c * x[i] + a * score[i]);
    return top.bits;
}

template <bool kWatched>
int32_t update_past_caches(float* out, const float* x, const float* score, const float* z, float c, float a, float b,
                           int64_t n) {
    S top = {};
    for (int64_t i = 0; i < n; i += kLanes) {
        const F moved = c == 1.0f ? load(x + i) : c * load(x + i);
        const F result = (moved + a * load(score + i)) + b * load(z + i);
        stream(out + i, result);
        if constexpr (kWatched) {
            const S bits = (S)((I)result & 0x7FFFFFFFu);
            top = bits > top ? bits : top;
        }
    }
    int32_t most = 0;
    for (int i = 0; kWatched && i < kLanes; ++i) most = top[i] > most ? top[i] : most;
    return most;
}

template <class C, class Z>
void update(C* out, const C* x, const C* score, const Z* z, const C* c, const C* a, const C* b, int64_t n) {
    if (z)
        for (int64_t i = 0; i < n; ++i) out[i] = (c[i] * x[i] + a[i] * score[i]) + b[i] * (C)z[i];
    else
        for (int64_t i = 0; i < n; ++i) out[i] = c[i] * x[i] + a[i] * score[i];
}

template <class C, class Z>
BitsOf<C> combine(const Plan& plan, int64_t flat, int64_t n, const Z* z, Buffers<C>& buffers, C* to) {
    const Update& p = plan.update;
    const C* const x = values(plan, plan.operand[kX], flat, n, buffers.x);
    const C* const score = values(plan, plan.operand[kScore], flat, n, buffers.score);
    C c, a, b = 0;
    const bool one_c = uniform(plan, kC, p.c, flat, n, c), one_a = uniform(plan, kA, p.a, flat, n, a);
    const bool one_b = !p.has_b || uniform(plan, kB, p.b, flat, n, b);
    if constexpr (sizeof(C) == sizeof(float))
        if (one_c && one_a && one_b && z && to != buffers.out && to != x && past_caches(plan, to, n))
            return p.fault ? update_past_caches<true>(to, x, score, z, c, a, b, n)
                           : update_past_caches<false>(to, x, score, z, c, a, b, n);
    if (one_c && one_a && one_b)
        return p.fault ? update<true>(to, x, score, z, c, a, b, n) : update<false>(to, x, score, z, c, a, b, n);
    update(to, x, score, z, spread_out(one_c, c, plan, kC, flat, n, buffers.c),
           spread_out(one_a, a, plan, kA, flat, n, buffers.a), spread_out(one_b, b, plan, kB, flat, n, buffers.b), n);
    return p.fault ? largest(to, n) : 0;
}

template <class C>
void run_range(const Plan& plan, Source& source, const Range& range, Buffers<C>& buffers) {
    const int64_t flat = range.flat, n = range.n;
    if (plan.draws) {
        if (plan.kind == kStep) {
            fetch<C>(plan, plan.operand[kX], flat, n);
            fetch<C>(plan, plan.operand[kScore], flat, n);
        }
        if (plan.kind == kUniform)
            draw<Uniform>(source, range, buffers.z);
        else
            draw<Normal>(source, range, buffers.z);
    }
    const Operand& out = plan.operand[kOut];
    C* const direct = plan.operand[kMask].data ? nullptr : in_place<C>(plan, out, flat, n);
    C* const to = direct ? direct : buffers.out;
    BitsOf<C> top = 0;
    if (plan.kind != kStep) {
        for (int64_t i = 0; i < n; ++i) to[i] = (C)buffers.z[i];
    } else if (plan.draws || !plan.update.has_b) {
        top = combine(plan, flat, n, plan.draws ? buffers.z : nullptr, buffers, to);
    } else {
        top = combine(plan, flat, n, values(plan, plan.operand[kNoise], flat, n, buffers.noise), buffers, to);
    }
    if (plan.operand[kMask].data) {
        gather_mask(plan, flat, n, buffers.mask);
        const C* const known = values(plan, plan.operand[kKnown], flat, n, buffers.known);
        for (int64_t i = 0; i < n; ++i) to[i] = buffers.mask[i] ? known[i] : to[i];
        if (plan.update.fault) top = largest(to, n);
    }
    if (plan.update.fault) record_faults(plan, range, to, top, source.draw);
    if (!direct) scatter(plan, flat, n, to);
}

// Sample by sample where one is left as it is.
template <class C>
FL_NOINLINE void run_unfrozen(const Plan& plan, Source& source, const Range& range, Buffers<C>& buffers) {
    Range part = range;
    part.rows = 1;
    part.n = range.n / range.rows;
    for (int64_t i = 0; i < range.rows; ++i, ++part.row, part.flat += part.n) {
        if (!is_frozen(plan, part.row, source.draw))
            run_range(plan, source, part, buffers);
        else if (plan.operand[kOut].data != plan.operand[kX].data)
            scatter(plan, part.flat, part.n, values(plan, plan.operand[kX], part.flat, part.n, buffers.x));
    }
}

template <class C>
void run_chunk(const Plan& plan, Source& source, int64_t chunk, Buffers<C>& buffers) {
    const Range range(plan, chunk);
    if (any_frozen(plan, range, source.draw)) return run_unfrozen(plan, source, range, buffers);
    run_range(plan, source, range, buffers);
}

template <class C>
void run_chunks(const Plan& plan, int64_t first, int64_t last) {
    Buffers<C> buffers;
    Source source(plan);
    for (int64_t chunk = first; chunk < last; ++chunk) run_chunk(plan, source, chunk, buffers);
}

// For sweeps over all floats: count is a multiple of 16.
void elu_and_slope(const float* y, int64_t count, float* values, float* slopes) {
    for (int64_t i = 0; i < count; i += kLanes) {
        store(values + i, elu(load(y + i)));
        store(slopes + i, elu_slope(load(y + i)));
    }
}

// For sweeps over all words: count is a multiple of 16.
void polar(const uint32_t* words, int64_t count, float* length, float* cosine, float* sine) {
    for (int64_t i = 0; i < count; i += kLanes) {
        I word;
        memcpy(&word, words + i, sizeof word);
        F c, s;
        cos_sin(word, c, s);
        store(length + i, radius(word));
        store(cosine + i, c);
        store(sine + i, s);
    }
}

}  // namespace

void FL_SET::update(const Plan& plan, int64_t first, int64_t last) {
    if (plan.wide) return run_chunks<double>(plan, first, last);
    run_chunks<float>(plan, first, last);
    __atomic_thread_fence(__ATOMIC_SEQ_CST);  // orders the stores past the caches as well
}

const Kernels FL_SET::kernels = {
    FL_QUOTED(FL_SET), kLanes,        update,    dsm,      normalise,     add_elu,
    mixture_score,     mixture_chain, mlp_chain, activate, elu_and_slope, polar,
};
