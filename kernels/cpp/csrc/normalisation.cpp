// InstanceNorm++ of a sum with its ELU, group normalisation with its SiLU, and their gradients. The
// formulas are in reference/instance_norm.py and reference/group_norm.py.
//
// Two passes, since a plane's scale or shift needs the statistics of other channels. A sample of the usual sizes stays in
// the second-level cache between them: 8 bytes an fp32 element of memory forward, 12 backward. The order of all sums
// follows from channels, pixels and layout alone.
#include "instruction_set.h"

#include "convert.h"
#include "expm1.h"
#include "sums.h"
#include "blocks.h"
#include "planes.h"
#include "plus_plus.h"
#include "group.h"

namespace {

// What is normalised.
template <class T>
const T* source(const NormalisationRequest& r) {
    return static_cast<const T*>(r.total ? r.total : r.x);
}

// Rounded as a tensor of the sum would be.
template <class C, class T, bool kLast>
void add_up(const NormalisationRequest& r, const Unit<C, kLast>& unit) {
    const T *const x = static_cast<const T*>(r.x), *const other = static_cast<const T*>(r.other);
    T* const total = static_cast<T*>(r.total);
    alignas(64) C buffers[3][kBlock];
    for (int64_t block = 0; block < unit.blocks; ++block) {
        const int64_t at = unit.offset(block), count = unit.count(block);
        const C* const a = read_block(x + at, count, (C)0, buffers[0]);
        const C* const b = read_block(other + at, count, (C)0, buffers[1]);
        C* const to = place_block(total + at, count, buffers[2]);
        for (int j = 0; j < kVectors<C>; ++j) put_vector(to, j, vector_at(a, j) + vector_at(b, j));
        write_block(total + at, count, to);
    }
}

// By the planes of one sample: mean and 1 / sqrt(variance + epsilon), or variance where groups of planes are combined.
template <class C, class T, bool kLast>
void find_statistics(const NormalisationRequest& r, const Unit<C, kLast>& unit) {
    const T* const x = source<T>(r);
    C* const mean = static_cast<C*>(r.groups ? r.plane_means : r.mean) + unit.at;
    C* const spread = static_cast<C*>(r.groups ? r.plane_variances : r.rstd) + unit.at;
    const double pixels = (double)r.pixels;
    double totals[1][kBlock];
    alignas(64) C buffer[kBlock];
    sum_blocks<1, C>(unit.blocks, totals, [&](int64_t block, Block<C>* sums) {
        const C* const values = read_block(x + unit.offset(block), unit.count(block), (C)0, buffer);
        for (int j = 0; j < kVectors<C>; ++j) sums[0].at[j] += vector_at(values, j);
    });
    unit.gather(totals[0]);
    for (int64_t i = 0; i < unit.width; ++i) mean[i] = (C)(totals[0][i] / pixels);
    const auto centre = unit.spread([&](int64_t i) { return mean[i]; });
    sum_blocks<1, C>(unit.blocks, totals, [&](int64_t block, Block<C>* sums) {
        const C* const values = read_block(x + unit.offset(block), unit.count(block), mean[0], buffer);
        for (int j = 0; j < kVectors<C>; ++j) {
            const Vector<C> d = vector_at(values, j) - centre[j];
            sums[0].at[j] += d * d;
        }
    });
    unit.gather(totals[0]);
    for (int64_t i = 0; i < unit.width; ++i) {
        const double variance = totals[0][i] / pixels;
        spread[i] = (C)(r.groups ? variance : 1 / __builtin_sqrt(variance + r.epsilon));
    }
}

template <class C, class T, bool kLast, class Sample>
void normalise(const NormalisationRequest& r, const Unit<C, kLast>& unit, const Sample& sample) {
    const T* const x = source<T>(r);
    T* const out = static_cast<T*>(r.out);
    const int64_t k = unit.channel;
    const auto mean = unit.spread([&](int64_t i) { return sample.mean_at(k + i); });
    const auto scale = unit.spread([&](int64_t i) { return sample.scale(k + i); });
    const auto shift = unit.spread([&](int64_t i) { return sample.shift(k + i); });
    alignas(64) C buffers[2][kBlock];
    for (int64_t block = 0; block < unit.blocks; ++block) {
        const int64_t at = unit.offset(block), count = unit.count(block);
        const C* const values = read_block(x + at, count, (C)0, buffers[0]);
        C* const to = place_block(out + at, count, buffers[1]);
#pragma GCC unroll 2
        for (int j = 0; j < kVectors<C>; ++j) {
            // The mean first: folded into the shift, it would cancel digits where it is large beside the spread.
            Vector<C> y = (vector_at(values, j) - mean[j]) * scale[j] + shift[j];
            if (r.activation) y = Sample::activate(y);
            put_vector(to, j, y);
        }
        write_block(out + at, count, to);
    }
}

// Where the sums of dy (x - mean) of a sample's planes are kept until its gradients are written.
template <class C>
C* moments_of(const NormalisationRequest& r, int64_t sample) {
    return static_cast<C*>(r.groups ? r.plane_variances : r.by_gamma) + sample * r.channels;
}

// Leaves the sums of dy in by_beta, and the moments.
template <class C, class T, bool kLast, class Sample>
void find_gradient_sums(const NormalisationRequest& r, const Unit<C, kLast>& unit, const Sample& sample) {
    const T *const x = static_cast<const T*>(r.x), *const upstream = static_cast<const T*>(r.other);
    const int64_t k = unit.channel;
    const auto mean = unit.spread([&](int64_t i) { return sample.mean_at(k + i); });
    const auto scale = unit.spread([&](int64_t i) { return sample.scale(k + i); });
    const auto shift = unit.spread([&](int64_t i) { return sample.shift(k + i); });
    double totals[2][kBlock];
    alignas(64) C buffers[2][kBlock];
    sum_blocks<2, C>(unit.blocks, totals, [&](int64_t block, Block<C>* sums) {
        const int64_t at = unit.offset(block), count = unit.count(block);
        const C* const values = read_block(x + at, count, sample.mean_at(k), buffers[0]);
        const C* const g = read_block(upstream + at, count, (C)0, buffers[1]);
        for (int j = 0; j < kVectors<C>; ++j) {
            const Vector<C> d = vector_at(values, j) - mean[j];
            Vector<C> dy = vector_at(g, j);
            if (r.activation) dy *= Sample::slope_of(d * scale[j] + shift[j]);
            sums[0].at[j] += dy;
            sums[1].at[j] += dy * d;
        }
    });
    unit.gather(totals[0]);
    unit.gather(totals[1]);
    for (int64_t i = 0; i < unit.width; ++i) {
        static_cast<C*>(r.by_beta)[unit.at + i] = (C)totals[0][i];
        moments_of<C>(r, unit.sample)[k + i] = (C)totals[1][i];
    }
}

template <class C, class T, bool kLast, class Sample>
void write_gradients(const NormalisationRequest& r, const Unit<C, kLast>& unit, Sample& sample) {
    const T *const x = static_cast<const T*>(r.x), *const upstream = static_cast<const T*>(r.other);
    T* const out = static_cast<T*>(r.out);
    const int64_t k = unit.channel;
    const C *const by_shift = static_cast<const C*>(r.by_beta) + unit.at - k, *const moments = moments_of<C>(r, unit.sample);
    const auto mean = unit.spread([&](int64_t i) { return sample.mean_at(k + i); });
    const auto scale = unit.spread([&](int64_t i) { return sample.scale(k + i); });
    const auto shift = unit.spread([&](int64_t i) { return sample.shift(k + i); });
    const auto constant = unit.spread([&](int64_t i) { return sample.constant(k + i, by_shift, moments); });
    const auto slope = unit.spread([&](int64_t i) { return sample.slope(k + i, by_shift, moments); });
    for (int64_t i = 0; i < unit.width; ++i) {
        if constexpr (Sample::kHasAlpha) static_cast<C*>(r.by_alpha)[unit.at + i] = sample.by_alpha(k + i, by_shift);
        static_cast<C*>(r.by_gamma)[unit.at + i] = sample.by_gamma(k + i, by_shift, moments);
    }
    alignas(64) C buffers[3][kBlock];
    for (int64_t block = 0; block < unit.blocks; ++block) {
        const int64_t at = unit.offset(block), count = unit.count(block);
        const C* const values = read_block(x + at, count, (C)0, buffers[0]);
        const C* const g = read_block(upstream + at, count, (C)0, buffers[1]);
        C* const to = place_block(out + at, count, buffers[2]);
#pragma GCC unroll 2
        for (int j = 0; j < kVectors<C>; ++j) {
            const Vector<C> d = vector_at(values, j) - mean[j];
            Vector<C> dy = vector_at(g, j);
            if (r.activation) dy *= Sample::slope_of(d * scale[j] + shift[j]);
            put_vector(to, j, scale[j] * dy + (constant[j] - d * slope[j]));
        }
        write_block(out + at, count, to);
    }
}

template <class C, class T, bool kLast, class Sample>
void run_units(const NormalisationRequest& r, NormalisationPass pass, int64_t first, int64_t last) {
    if (pass == kWholeSamples) {
        const int64_t units = kLast ? (r.channels + kBlock - 1) / kBlock : r.channels;
        for (int64_t sample = first; sample < last; ++sample) {
            run_units<C, T, kLast, Sample>(r, kFirstPass, sample * units, (sample + 1) * units);
            run_units<C, T, kLast, Sample>(r, kBetween, sample, sample + 1);
            run_units<C, T, kLast, Sample>(r, kSecondPass, sample * units, (sample + 1) * units);
        }
        return;
    }
    if (pass == kBetween) {
        if (!r.backward)
            for (int64_t sample = first; sample < last; ++sample) Sample(r, sample).combine();
        return;
    }
    if (pass == kFirstPass && !r.backward) {
        for (int64_t index = first; index < last; ++index) {
            const Unit<C, kLast> unit(r, index);
            if (r.total) add_up<C, T>(r, unit);
            find_statistics<C, T>(r, unit);
        }
        return;
    }
    for (int64_t index = first; index < last;) {
        Unit<C, kLast> unit(r, index);
        Sample sample(r, unit.sample);
        if (r.backward && pass == kSecondPass) sample.read(static_cast<const C*>(r.by_beta) + unit.sample * r.channels);
        const int64_t own = unit.sample;
        for (; index < last && (unit = Unit<C, kLast>(r, index)).sample == own; ++index) {
            if (!r.backward)
                normalise<C, T>(r, unit, sample);
            else if (pass == kFirstPass)
                find_gradient_sums<C, T>(r, unit, sample);
            else
                write_gradients<C, T>(r, unit, sample);
        }
    }
}

template <class C, class T, bool kLast>
void run_kind(const NormalisationRequest& r, NormalisationPass pass, int64_t first, int64_t last) {
    if (r.groups) return run_units<C, T, kLast, Group<C>>(r, pass, first, last);
    run_units<C, T, kLast, PlusPlus<C>>(r, pass, first, last);
}

template <class C, class T>
void run(const NormalisationRequest& r, NormalisationPass pass, int64_t first, int64_t last) {
    if (r.channels_last) return run_kind<C, T, true>(r, pass, first, last);
    run_kind<C, T, false>(r, pass, first, last);
}

}  // namespace

void FL_SET::normalise(const NormalisationRequest& request, NormalisationPass pass, int64_t first, int64_t last) {
    switch (request.dtype) {
        case kFloat32: return run<float, float>(request, pass, first, last);
        case kFloat16: return run<float, Half>(request, pass, first, last);
        case kBfloat16: return run<float, Bfloat>(request, pass, first, last);
        case kFloat64: return run<double, double>(request, pass, first, last);
    }
}
