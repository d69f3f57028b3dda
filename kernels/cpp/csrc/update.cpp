// out = a_0 s_0 + a_1 s_1 + ... + b z, a chunk at a time, and the table of what an instruction set offers.
//
// 4 bytes an fp32 element for each slot that is read, and 4 for out: z never leaves the first-level cache. The update of a
// state and a score with one draw, which most samplers make, has loops of its own.
#include "instruction_set.h"

#include "convert.h"
#include "normal.h"
#include "philox.h"
#include "operands.h"
#include "draw.h"
#include "watch.h"
#include "terms.h"
#include "expm1.h"

namespace {

// Where operands that cannot be used in place are brought together. 64 values more: groups are written whole.
template <class C>
struct Buffers {
    alignas(64) float z[kChunk + 64];
    alignas(64) C out[kChunk], noise[kChunk], known[kChunk], slot[kTerms][kChunk], factor[kTerms + 1][kChunk];
    uint8_t mask[kChunk];
};

// A coefficient that is one number over the whole range.
template <class C>
bool uniform(const Plan& plan, int name, double number, int64_t flat, int64_t n, C& value) {
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
const C* spread_out(bool one, C value, const Plan& plan, int name, int64_t flat, int64_t n, C* buffer) {
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

// Whether the factors are one number each over a range: two terms that have them, and noise, take the loops above.
template <class C>
bool find_terms(const Plan& plan, int64_t flat, int64_t n, Buffers<C>& buffers, Terms<C>& terms) {
    const Update& p = plan.update;
    bool one[kTerms + 1] = {}, all = true;
    for (int t = 0; t < p.terms; ++t) {
        terms.slot[t] = values(plan, plan.operand[kX + t], flat, n, buffers.slot[t]);
        one[t] = uniform(plan, kFactor + t, p.factor[t], flat, n, terms.one[t]);
        all = all && one[t];
    }
    if (p.has_b) {
        one[kTerms] = uniform(plan, kB, p.b, flat, n, terms.one[kTerms]);
        all = all && one[kTerms];
    }
    if (all) return true;
    for (int t = 0; t < p.terms; ++t)
        terms.each[t] = spread_out(one[t], terms.one[t], plan, kFactor + t, flat, n, buffers.factor[t]);
    if (p.has_b)
        terms.each[kTerms] = spread_out(one[kTerms], terms.one[kTerms], plan, kB, flat, n, buffers.factor[kTerms]);
    return false;
}

template <class C>
const C* widened(const C* z, int64_t, C*) {
    return z;
}

const double* widened(const float* z, int64_t n, double* buffer) {
    if (!z) return nullptr;
    for (int64_t i = 0; i < n; ++i) buffer[i] = z[i];
    return buffer;
}

template <class C, class Z>
BitsOf<C> combine(const Plan& plan, int64_t flat, int64_t n, const Z* z, Buffers<C>& buffers, C* to) {
    const Update& p = plan.update;
    Terms<C> terms = {};
    const bool numbers = find_terms(plan, flat, n, buffers, terms);
    const C *const x = terms.slot[0], *const score = terms.slot[1];
    const C c = terms.one[0], a = terms.one[1], b = terms.one[kTerms];
    if constexpr (sizeof(C) == sizeof(float))
        if (numbers && z && to != buffers.out && to != x && past_caches(plan, to, n)) {
            if (p.terms == 2)
                return p.fault ? update_past_caches<true>(to, x, score, z, c, a, b, n)
                               : update_past_caches<false>(to, x, score, z, c, a, b, n);
            if (!p.fault) {
                stream_up(to, terms, p.terms, z, n);
                return 0;
            }
        }
    if (numbers && p.terms == 2)
        return p.fault ? update<true>(to, x, score, z, c, a, b, n) : update<false>(to, x, score, z, c, a, b, n);
    add_up(to, terms, p.terms, widened(z, n, buffers.noise), n, !numbers);
    return p.fault ? largest(to, n) : 0;
}

// z of several draws, or of one that has a weight or an offset, in the computing dtype.
template <class C>
void draw_sum(const Plan& plan, Source& source, const Range& range, Buffers<C>& buffers, C* sum) {
    const Draws& draws = plan.noise;
    const uint32_t first = source.draw;
    for (int64_t j = 0; j < draws.count; ++j) {
        source.draw = draws.numbers ? (uint32_t)draws.numbers[j] : first + (uint32_t)draws.offset[j];
        const C weight = draws.weights ? static_cast<const C*>(draws.weights)[j] : (C)draws.weight[j];
        draw<Normal>(source, range, buffers.z);
        const float* const z = buffers.z;
        if (j == 0)
            for (int64_t i = 0; i < range.n; ++i) sum[i] = weight * (C)z[i];
        else
            for (int64_t i = 0; i < range.n; ++i) sum[i] = sum[i] + weight * (C)z[i];
    }
    source.draw = first;
}

bool is_one_draw(const Draws& draws) {
    return draws.count == 1 && !draws.numbers && draws.weight[0] == 1.0 && draws.offset[0] == 0;
}

template <class C>
void run_range(const Plan& plan, Source& source, const Range& range, Buffers<C>& buffers) {
    const int64_t flat = range.flat, n = range.n;
    const bool several = plan.kind == kStep && plan.draws && !is_one_draw(plan.noise);
    if (plan.draws) {
        for (int t = 0; plan.kind == kStep && t < plan.update.terms; ++t)
            fetch<C>(plan, plan.operand[kX + t], flat, n);
        if (several)
            draw_sum(plan, source, range, buffers, buffers.noise);
        else if (plan.kind == kUniform)
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
    } else if (several) {
        top = combine(plan, flat, n, static_cast<const C*>(buffers.noise), buffers, to);
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
    if (plan.update.fault) record_faults(plan, range, to, top, step_number(plan));
    if (!direct) scatter(plan, flat, n, to);
}

// Sample by sample where one is left as it is.
template <class C>
FL_NOINLINE void run_unfrozen(const Plan& plan, Source& source, const Range& range, Buffers<C>& buffers) {
    Range part = range;
    part.rows = 1;
    part.n = range.n / range.rows;
    for (int64_t i = 0; i < range.rows; ++i, ++part.row, part.flat += part.n) {
        if (!is_frozen(plan, part.row, step_number(plan)))
            run_range(plan, source, part, buffers);
        else if (plan.operand[kOut].data != plan.operand[kX].data)
            scatter(plan, part.flat, part.n, values(plan, plan.operand[kX], part.flat, part.n, buffers.slot[0]));
    }
}

template <class C>
void run_chunk(const Plan& plan, Source& source, int64_t chunk, Buffers<C>& buffers) {
    const Range range(plan, chunk);
    if (any_frozen(plan, range, step_number(plan))) return run_unfrozen(plan, source, range, buffers);
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
