// out = c*x + a*score + b*z, a chunk at a time: compiled once for each instruction set (FL_HEADER, FL_KERNELS).
//
// 12 bytes an fp32 element: x and score are read, out is written, z never leaves the first-level cache. Everything
// is in an anonymous namespace: two objects must not share a function, or the linker could keep the wrong one.
#include "plan.h"

#include FL_HEADER

#include "convert.h"
#include "normal.h"
#include "philox.h"
#include "draw.h"

namespace {

// Where operands that cannot be used in place are brought together. 64 values more: groups are written whole.
template <class C>
struct Buffers {
    alignas(64) float z[kChunk + 64];
    alignas(64) C out[kChunk], x[kChunk], score[kChunk], noise[kChunk], known[kChunk];
    alignas(64) C c[kChunk], a[kChunk], b[kChunk];
    uint8_t mask[kChunk];
};

template <class C>
constexpr int64_t dtype_of() {
    return sizeof(C) == 8 ? kFloat64 : kFloat32;
}

// The address of a flat range that can be used as it lies, or null.
template <class C>
C* in_place(const Plan& plan, const Operand& operand, int64_t flat, int64_t n) {
    const int64_t inner = plan.rank - 1;
    if (operand.dtype != dtype_of<C>() || operand.stride[inner] != 1) return nullptr;
    C* const data = reinterpret_cast<C*>(operand.data);
    if (inner == 0) return data + flat;
    int64_t at = flat % plan.size[inner], offset = at;
    if (at + n > plan.size[inner]) return nullptr;
    flat /= plan.size[inner];
    for (int64_t d = inner - 1; d >= 0; --d, flat /= plan.size[d + 1])
        offset += (d ? flat % plan.size[d] : flat) * operand.stride[d];
    return data + offset;
}

template <class C>
const C* values(const Plan& plan, const Operand& operand, int64_t flat, int64_t n, C* buffer) {
    if (const C* const data = in_place<C>(plan, operand, flat, n)) return data;
    gather(plan, operand, flat, n, buffer);
    return buffer;
}

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

template <class C, class Z>
void update(C* out, const C* x, const C* score, const Z* z, C c, C a, C b, int64_t n) {
    // 1 * x has the bits of x, so a chain's usual c costs nothing.
    if (z && c == C(1))
        for (int64_t i = 0; i < n; ++i) out[i] = (x[i] + a * score[i]) + b * (C)z[i];
    else if (z)
        for (int64_t i = 0; i < n; ++i) out[i] = (c * x[i] + a * score[i]) + b * (C)z[i];
    else
        for (int64_t i = 0; i < n; ++i) out[i] = c * x[i] + a * score[i];
}

// Past the caches: what is written is not read first, 12 bytes an element instead of 16. On a loaded Zen 3 with 2^24
// elements 1.65 ns against 1.85. Not for a result in place, whose lines are there already.
constexpr int64_t kStreamFrom = 1 << 22;

bool update_past_caches(float* out, const float* x, const float* score, const float* z, float c, float a, float b,
                        int64_t n) {
    if (out == x || n % kLanes != 0 || reinterpret_cast<uintptr_t>(out) % sizeof(F) != 0) return false;
    for (int64_t i = 0; i < n; i += kLanes) {
        const F moved = c == 1.0f ? load(x + i) : c * load(x + i);
        stream(out + i, (moved + a * load(score + i)) + b * load(z + i));
    }
    return true;
}

template <class C, class Z>
void update(C* out, const C* x, const C* score, const Z* z, const C* c, const C* a, const C* b, int64_t n) {
    if (z)
        for (int64_t i = 0; i < n; ++i) out[i] = (c[i] * x[i] + a[i] * score[i]) + b[i] * (C)z[i];
    else
        for (int64_t i = 0; i < n; ++i) out[i] = c[i] * x[i] + a[i] * score[i];
}

template <class C, class Z>
void combine(const Plan& plan, int64_t flat, int64_t n, const Z* z, Buffers<C>& buffers, C* to) {
    const Common& p = plan.common;
    const C* const x = values(plan, plan.operand[kX], flat, n, buffers.x);
    const C* const score = values(plan, plan.operand[kScore], flat, n, buffers.score);
    C c, a, b = 0;
    const bool one_c = uniform(plan, kC, p.c, flat, n, c), one_a = uniform(plan, kA, p.a, flat, n, a);
    const bool one_b = !p.has_b || uniform(plan, kB, p.b, flat, n, b);
    if constexpr (sizeof(C) == sizeof(float))
        if (one_c && one_a && one_b && z && to != buffers.out && plan.batch * plan.elements >= kStreamFrom &&
            update_past_caches(to, x, score, z, c, a, b, n))
            return;
    if (one_c && one_a && one_b) return update(to, x, score, z, c, a, b, n);
    update(to, x, score, z, spread_out(one_c, c, plan, kC, flat, n, buffers.c),
           spread_out(one_a, a, plan, kA, flat, n, buffers.a), spread_out(one_b, b, plan, kB, flat, n, buffers.b), n);
}

// Asks for an operand's lines before the noise is drawn, so that memory works while the processor does: on Zen 3 with
// 2^24 elements and two threads 17.0 ms against 18.0. The next chunk's lines instead (17.8), chunks of 256 or 1,024
// elements (17.8, 19.3) and the update in registers without the buffer of normals (17.2) gain nothing over it.
template <class C>
void fetch(const Plan& plan, const Operand& operand, int64_t flat, int64_t n) {
    const C* const data = in_place<C>(plan, operand, flat, n);
    if (!data) return;
    constexpr int64_t kLine = 64 / sizeof(C);
    for (int64_t i = 0; i < n; i += kLine) __builtin_prefetch(data + i);
}

template <class C>
void run_chunk(const Plan& plan, Source& source, int64_t chunk, Buffers<C>& buffers) {
    const int64_t row = chunk / plan.pieces * plan.rows, first = chunk % plan.pieces * plan.span;
    int64_t rows = plan.rows, n = plan.span;
    if (plan.pieces == 1) {
        if (rows > plan.batch - row) rows = plan.batch - row;
        n = rows * plan.elements;
    } else if (n > plan.elements - first) {
        n = plan.elements - first;
    }
    const int64_t flat = row * plan.elements + first;
    if (plan.draws) {
        if (plan.kind == kStep) {
            fetch<C>(plan, plan.operand[kX], flat, n);
            fetch<C>(plan, plan.operand[kScore], flat, n);
        }
        if (plan.kind == kUniform)
            draw<Uniform>(source, row, rows, first, n, buffers.z);
        else
            draw<Normal>(source, row, rows, first, n, buffers.z);
    }
    const Operand& out = plan.operand[kOut];
    C* const direct = plan.operand[kMask].data ? nullptr : in_place<C>(plan, out, flat, n);
    C* const to = direct ? direct : buffers.out;
    if (plan.kind != kStep) {
        for (int64_t i = 0; i < n; ++i) to[i] = (C)buffers.z[i];
    } else if (plan.draws || !plan.common.has_b) {
        combine(plan, flat, n, plan.draws ? buffers.z : nullptr, buffers, to);
    } else {
        combine(plan, flat, n, values(plan, plan.operand[kNoise], flat, n, buffers.noise), buffers, to);
    }
    if (plan.operand[kMask].data) {
        gather_mask(plan, flat, n, buffers.mask);
        const C* const known = values(plan, plan.operand[kKnown], flat, n, buffers.known);
        for (int64_t i = 0; i < n; ++i) to[i] = buffers.mask[i] ? known[i] : to[i];
    }
    if (!direct) scatter(plan, flat, n, to);
}

template <class C>
void run_chunks(const Plan& plan, int64_t first, int64_t last) {
    Buffers<C> buffers;
    Source source(plan);
    for (int64_t chunk = first; chunk < last; ++chunk) run_chunk(plan, source, chunk, buffers);
}

void run(const Plan& plan, int64_t first, int64_t last) {
    if (plan.wide) return run_chunks<double>(plan, first, last);
    run_chunks<float>(plan, first, last);
    __atomic_thread_fence(__ATOMIC_SEQ_CST);  // orders the stores past the caches as well
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

extern const Kernels FL_KERNELS;
const Kernels FL_KERNELS = {FL_NAME, kLanes, run, polar};
