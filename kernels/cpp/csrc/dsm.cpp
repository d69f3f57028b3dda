// Perturbed samples, denoising score matching and norms.
#include "instruction_set.h"

#include "convert.h"
#include "normal.h"
#include "philox.h"
#include "operands.h"
#include "draw.h"
#include "sums.h"

namespace {

// A number of a level; NaN for a label that is none.
template <class C>
C of_level(const Plan& plan, const void* table, int64_t label) {
    return (uint64_t)label < (uint64_t)plan.dsm.levels ? static_cast<const C*>(table)[label]
                                                            : (C)__builtin_nan("");
}

// A number for each element: one for all, or the numbers of short samples written side by side.
template <class C>
struct One {
    C value;
    C operator[](int64_t) const { return value; }
};
inline F lanes_at(One<float> one, int64_t) { return F{} + one.value; }
inline F lanes_at(const float* many, int64_t i) { return load(many + i); }

constexpr int64_t kAtOnce = 16;
template <class C>
struct Spread {
    alignas(64) C data[kChunk + kAtOnce];
};

// body(numbers) once for the whole range, whose samples are too short for a loop each.
template <class C, class Number, class Body>
FL_INLINE void each_row(const Plan& plan, const Range& range, const Number& number, Spread<C>& spread,
                        const Body& body) {
    if (range.rows == 1) return body(One<C>{number(range.row)});
    C* to = spread.data;
    for (int64_t row = range.row; row < range.row + range.rows; ++row, to += plan.elements) {
        const C value = number(row);
        for (int64_t i = 0; i < plan.elements; i += kAtOnce)  // the next row overwrites what is too much
            for (int64_t j = 0; j < kAtOnce; ++j) to[i + j] = value;
    }
    body(static_cast<const C*>(spread.data));
}

}  // namespace

#include "dsm.h"
#include "sample_norms.h"
#include "perturb.h"

namespace {

template <class Buffers>
void run_chunks(const Plan& plan, int64_t first, int64_t last) {
    Buffers buffers;
    Source source(plan);
    for (int64_t chunk = first; chunk < last; ++chunk) run_chunk(plan, source, Range(plan, chunk), buffers);
}

template <class C>
void run(const Plan& plan, int64_t first, int64_t last) {
    if (plan.kind == kSampleNorms) return run_chunks<NormsBuffers<C>>(plan, first, last);
    if (plan.kind == kPerturb) return run_chunks<PerturbBuffers<C>>(plan, first, last);
    run_chunks<DsmBuffers<C>>(plan, first, last);
}

}  // namespace

void FL_SET::dsm(const Plan& plan, int64_t first, int64_t last) {
    if (plan.wide) return run<double>(plan, first, last);
    run<float>(plan, first, last);
    __atomic_thread_fence(__ATOMIC_SEQ_CST);  // orders the stores past the caches as well
}
