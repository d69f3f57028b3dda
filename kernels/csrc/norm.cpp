// InstanceNorm++ with its ELU and a residual, and its gradients: compiled once for each instruction set (FL_HEADER,
// FL_NORM). The formulas are in reference/norm.py.
//
// Two passes, since a plane's shift needs the means of all channels. A sample of the usual sizes stays in the
// second-level cache between them: 8 bytes an fp32 element of memory forward, 12 backward. The order of all sums follows
// from channels, pixels and layout alone.
#include "plan.h"

#include FL_HEADER

#include "convert.h"
#include "expm1.h"
#include "sums.h"
#include "blocks.h"

namespace {

constexpr double kEpsilon = 1e-5;

// One channel's plane, or up to 32 neighbouring channels of a sample in channels_last: blocks of 32 pixels, or pixels
// that are blocks of so many channels.
template <class C, bool kLast>
struct Unit {
    int64_t sample, channel, width, at, first, step, blocks, elements;

    Unit(const NormRequest& r, int64_t index) {
        const int64_t units = kLast ? (r.channels + kBlock - 1) / kBlock : r.channels;
        sample = index / units;
        channel = index % units * (kLast ? kBlock : 1);
        width = !kLast ? 1 : r.channels - channel < kBlock ? r.channels - channel : kBlock;
        at = sample * r.channels + channel;
        first = kLast ? sample * r.channels * r.pixels + channel : at * r.pixels;
        step = kLast ? r.channels : kBlock;
        blocks = kLast ? r.pixels : (r.pixels + kBlock - 1) / kBlock;
        elements = r.pixels;
    }
    int64_t offset(int64_t block) const { return first + block * step; }
    int64_t count(int64_t block) const {
        if (kLast) return width;
        return block + 1 < blocks ? kBlock : elements - block * kBlock;
    }
    // number(i) for the unit's channel i, as a block takes it.
    template <class Number>
    inline auto spread(const Number& number) const {
        if constexpr (kLast) {
            Each<C> each;
            for (int64_t i = 0; i < kBlock; ++i) each.values[i] = i < width ? number(i) : (C)0;
            return each;
        } else {
            return Same<C>{Vector<C>{} + number(0)};
        }
    }
    // The sums of each channel from those of each place of a block.
    static void gather(double* totals) {
        if (!kLast) totals[0] = fold<kBlock>(totals);
    }
};

// What a sample's channels have in common.
template <class C>
struct Sample {
    const C *gamma, *alpha, *beta, *mean, *rstd;
    int64_t channels;
    double centre, inverse, shared = 0, along = 0;

    Sample(const NormRequest& r, int64_t sample) : channels(r.channels) {
        gamma = static_cast<const C*>(r.gamma) + sample * r.gamma_stride;
        alpha = static_cast<const C*>(r.alpha) + sample * r.alpha_stride;
        beta = static_cast<const C*>(r.beta) + sample * r.beta_stride;
        mean = static_cast<const C*>(r.mean) + sample * channels;
        rstd = static_cast<const C*>(r.rstd) + sample * channels;
        double sum = 0, squares = 0;
        for (int64_t k = 0; k < channels; ++k) sum += (double)mean[k];
        centre = sum / (double)channels;
        for (int64_t k = 0; k < channels; ++k) squares += ((double)mean[k] - centre) * ((double)mean[k] - centre);
        inverse = 1 / __builtin_sqrt(squares / (double)(channels - 1) + kEpsilon);
    }
    double m(int64_t k) const { return ((double)mean[k] - centre) * inverse; }
    C scale(int64_t k) const { return gamma[k] * rstd[k]; }
    C shift(int64_t k) const { return beta[k] + gamma[k] * alpha[k] * (C)m(k); }
    double by_m(int64_t k, const C* by_shift) const { return (double)gamma[k] * (double)alpha[k] * (double)by_shift[k]; }
    // For by_mean: what the derivatives by all m have in common.
    void read(const C* by_shift) {
        for (int64_t k = 0; k < channels; ++k) {
            shared += by_m(k, by_shift);
            along += by_m(k, by_shift) * m(k);
        }
        shared /= (double)channels;
        along /= (double)(channels - 1);
    }
    double by_mean(int64_t k, const C* by_shift) const {
        return inverse * (by_m(k, by_shift) - shared - m(k) * along);
    }
};

template <class C, class T, bool kLast>
void find_statistics(const NormRequest& r, const Unit<C, kLast>& unit) {
    const T* const x = static_cast<const T*>(r.x);
    C* const mean = static_cast<C*>(r.mean) + unit.at;
    C* const rstd = static_cast<C*>(r.rstd) + unit.at;
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
    for (int64_t i = 0; i < unit.width; ++i) rstd[i] = (C)(1 / __builtin_sqrt(totals[0][i] / pixels + kEpsilon));
}

template <class C, class T, bool kLast>
void normalise(const NormRequest& r, const Unit<C, kLast>& unit, const Sample<C>& sample) {
    const T *const x = static_cast<const T*>(r.x), *const residual = static_cast<const T*>(r.other);
    T* const out = static_cast<T*>(r.out);
    const int64_t k = unit.channel;
    const auto mean = unit.spread([&](int64_t i) { return sample.mean[k + i]; });
    const auto scale = unit.spread([&](int64_t i) { return sample.scale(k + i); });
    const auto shift = unit.spread([&](int64_t i) { return sample.shift(k + i); });
    alignas(64) C buffers[3][kBlock];
    for (int64_t block = 0; block < unit.blocks; ++block) {
        const int64_t at = unit.offset(block), count = unit.count(block);
        const C* const values = read_block(x + at, count, (C)0, buffers[0]);
        const C* const more = residual ? read_block(residual + at, count, (C)0, buffers[1]) : nullptr;
        C* const to = place_block(out + at, count, buffers[2]);
#pragma GCC unroll 2
        for (int j = 0; j < kVectors<C>; ++j) {
            // The mean first: folded into the shift, it would cancel digits where it is large beside the spread.
            Vector<C> y = (vector_at(values, j) - mean[j]) * scale[j] + shift[j];
            if (r.activation) y = elu(y);
            put_vector(to, j, more ? vector_at(more, j) + y : y);
        }
        write_block(out + at, count, to);
    }
}

// Leaves the derivative by the shift in by_beta, and the sum of dy (x - mean) in by_gamma.
template <class C, class T, bool kLast>
void find_gradient_sums(const NormRequest& r, const Unit<C, kLast>& unit, const Sample<C>& sample) {
    const T *const x = static_cast<const T*>(r.x), *const upstream = static_cast<const T*>(r.other);
    const int64_t k = unit.channel;
    const auto mean = unit.spread([&](int64_t i) { return sample.mean[k + i]; });
    const auto scale = unit.spread([&](int64_t i) { return sample.scale(k + i); });
    const auto shift = unit.spread([&](int64_t i) { return sample.shift(k + i); });
    double totals[2][kBlock];
    alignas(64) C buffers[2][kBlock];
    sum_blocks<2, C>(unit.blocks, totals, [&](int64_t block, Block<C>* sums) {
        const int64_t at = unit.offset(block), count = unit.count(block);
        const C* const values = read_block(x + at, count, sample.mean[k], buffers[0]);
        const C* const g = read_block(upstream + at, count, (C)0, buffers[1]);
        for (int j = 0; j < kVectors<C>; ++j) {
            const Vector<C> d = vector_at(values, j) - mean[j];
            Vector<C> dy = vector_at(g, j);
            if (r.activation) dy *= elu_slope(d * scale[j] + shift[j]);
            sums[0].at[j] += dy;
            sums[1].at[j] += dy * d;
        }
    });
    unit.gather(totals[0]);
    unit.gather(totals[1]);
    for (int64_t i = 0; i < unit.width; ++i) {
        static_cast<C*>(r.by_beta)[unit.at + i] = (C)totals[0][i];
        static_cast<C*>(r.by_gamma)[unit.at + i] = (C)totals[1][i];
    }
}

template <class C, class T, bool kLast>
void write_gradients(const NormRequest& r, const Unit<C, kLast>& unit, const Sample<C>& sample) {
    const T *const x = static_cast<const T*>(r.x), *const upstream = static_cast<const T*>(r.other);
    T* const out = static_cast<T*>(r.out);
    const int64_t k = unit.channel;
    const C pixels = (C)r.pixels, *const by_shift = static_cast<const C*>(r.by_beta) + unit.at - k;
    C* const by_gamma = static_cast<C*>(r.by_gamma) + unit.at;
    C* const by_alpha = static_cast<C*>(r.by_alpha) + unit.at;
    const auto mean = unit.spread([&](int64_t i) { return sample.mean[k + i]; });
    const auto scale = unit.spread([&](int64_t i) { return sample.scale(k + i); });
    const auto shift = unit.spread([&](int64_t i) { return sample.shift(k + i); });
    const auto constant = unit.spread([&](int64_t i) {
        return ((C)sample.by_mean(k + i, by_shift) - sample.scale(k + i) * by_shift[k + i]) / pixels;
    });
    const auto slope = unit.spread([&](int64_t i) {
        return sample.scale(k + i) * sample.rstd[k + i] * sample.rstd[k + i] * by_gamma[i] / pixels;
    });
    for (int64_t i = 0; i < unit.width; ++i) {
        const C m = (C)sample.m(k + i);
        by_gamma[i] = sample.rstd[k + i] * by_gamma[i] + sample.alpha[k + i] * m * by_shift[k + i];
        by_alpha[i] = sample.gamma[k + i] * m * by_shift[k + i];
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
            if (r.activation) dy *= elu_slope(d * scale[j] + shift[j]);
            put_vector(to, j, scale[j] * dy + (constant[j] - d * slope[j]));
        }
        write_block(out + at, count, to);
    }
}

template <class C, class T, bool kLast>
void run_units(const NormRequest& r, NormPass pass, int64_t first, int64_t last) {
    if (pass == kWholeSamples) {
        const int64_t units = kLast ? (r.channels + kBlock - 1) / kBlock : r.channels;
        for (int64_t sample = first; sample < last; ++sample) {
            run_units<C, T, kLast>(r, kFirstPass, sample * units, (sample + 1) * units);
            run_units<C, T, kLast>(r, kSecondPass, sample * units, (sample + 1) * units);
        }
        return;
    }
    if (pass == kFirstPass && !r.backward) {
        for (int64_t index = first; index < last; ++index) find_statistics<C, T>(r, Unit<C, kLast>(r, index));
        return;
    }
    for (int64_t index = first; index < last;) {
        Unit<C, kLast> unit(r, index);
        Sample<C> sample(r, unit.sample);
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

template <class C, class T>
void run(const NormRequest& r, NormPass pass, int64_t first, int64_t last) {
    if (r.channels_last) return run_units<C, T, true>(r, pass, first, last);
    run_units<C, T, false>(r, pass, first, last);
}

}  // namespace

void FL_NORM(const NormRequest& request, NormPass pass, int64_t first, int64_t last);
void FL_NORM(const NormRequest& request, NormPass pass, int64_t first, int64_t last) {
    switch (request.dtype) {
        case kFloat32: return run<float, float>(request, pass, first, last);
        case kFloat16: return run<float, Half>(request, pass, first, last);
        case kBfloat16: return run<float, Bfloat>(request, pass, first, last);
        case kFloat64: return run<double, double>(request, pass, first, last);
    }
}
