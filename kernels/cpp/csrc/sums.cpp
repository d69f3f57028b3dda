// What is left of denoising score matching when all chunks are done: samples that were cut, levels, the batch. One
// thread: a number a segment or a sample, 1/100 and less of the work.
#include "sums.h"

#include "plan.h"

namespace {

template <class C>
void sum_samples(const Plan& plan) {
    const Dsm& d = plan.dsm;
    const int64_t segments = (plan.elements + d.segment - 1) / d.segment;
    const C* parts = static_cast<const C*>(d.scratch);
    for (int64_t row = 0; row < plan.batch; ++row, parts += segments) {
        const uint64_t label = (uint64_t)d.labels[row];
        const C weight = label < (uint64_t)d.levels ? static_cast<const C*>(d.weight)[label] : (C)__builtin_nan("");
        static_cast<C*>(d.values)[row] = across(parts, segments) * (C)0.5 * weight;
    }
}

// The values of one level; `samples` in rising order. Values of other levels are zeros in its lanes.
template <class C>
C sum_level(const C* values, const uint32_t* samples, int64_t count, int64_t width) {
    if (count == 0) return 0;
    if (count == 1) return values[samples[0]];
    if (count == 2) return values[samples[0]] + values[samples[1]];
    alignas(64) C lanes[kSumLanes];
    memset(lanes, 0, width * sizeof(C));
    for (int64_t i = 0; i < count; ++i) {
        C& lane = lanes[samples[i] % kSumLanes];
        lane = lane + values[samples[i]];
    }
    return fold_lanes(lanes, width);
}

// Samples sorted by level, so that a level looks at its own alone: `order` has room for each, as 32 bits.
template <class C>
void sum_levels(const Plan& plan, uint32_t* order) {
    const Dsm& d = plan.dsm;
    const C* const values = static_cast<const C*>(d.values);
    const uint64_t levels = (uint64_t)d.levels;
    int64_t* const ends = d.level_counts;
    memset(ends, 0, levels * sizeof *ends);
    for (int64_t row = 0; row < plan.batch; ++row)
        if ((uint64_t)d.labels[row] < levels) ++ends[d.labels[row]];
    int64_t begin = 0;
    for (uint64_t level = 0; level < levels; ++level) {
        const int64_t count = ends[level];
        ends[level] = begin;
        begin += count;
    }
    for (int64_t row = 0; row < plan.batch; ++row)
        if ((uint64_t)d.labels[row] < levels) order[ends[d.labels[row]]++] = (uint32_t)row;
    const int64_t width = lanes_for(plan.batch);
    begin = 0;
    for (uint64_t level = 0; level < levels; ++level) {
        const int64_t end = ends[level];
        static_cast<C*>(d.level_sums)[level] = sum_level(values, order + begin, end - begin, width);
        ends[level] = end - begin;  // the count
        begin = end;
    }
    *static_cast<C*>(d.total) = across(values, plan.batch);
}

template <class C>
void finish(const Plan& plan) {
    if (plan.pieces > 1) sum_samples<C>(plan);
    if (plan.batch > kFewSamples) return sum_levels<C>(plan, static_cast<uint32_t*>(plan.dsm.scratch));
    uint32_t order[kFewSamples];
    sum_levels<C>(plan, order);
}

// Of samples that were cut.
template <class C>
void finish_sample_norms(const Plan& plan) {
    const SampleNorms& norms = plan.norms;
    const int64_t segments = (plan.elements + norms.segment - 1) / norms.segment;
    void* const results[] = {norms.of_x, norms.of_noise};
    for (int i = 0; i < 2; ++i) {
        const C* parts = static_cast<const C*>(norms.scratch[i]);
        for (int64_t row = 0; results[i] && row < plan.batch; ++row, parts += segments)
            static_cast<C*>(results[i])[row] = root(across(parts, segments));
    }
}

}  // namespace

void finish_sample_norms(const Plan& plan) {
    if (plan.pieces == 1) return;
    if (plan.wide) return finish_sample_norms<double>(plan);
    finish_sample_norms<float>(plan);
}

void finish_sums(const Plan& plan) {
    if (plan.wide) return finish<double>(plan);
    finish<float>(plan);
}
