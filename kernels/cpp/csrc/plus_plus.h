// What the channels of a sample have in common under InstanceNorm++, with ELU behind it: reference/instance_norm.py.
#pragma once

namespace {

// Row of a table that belongs to a sample.
inline int64_t row_of(const NormalisationRequest& r, int64_t sample) { return r.labels ? r.labels[sample] : sample; }

template <class C>
struct PlusPlus {
    const C *gamma, *alpha, *beta, *mean, *rstd;
    int64_t channels;
    double pixels, centre, inverse, shared = 0, along = 0;

    PlusPlus(const NormalisationRequest& r, int64_t sample) : channels(r.channels), pixels((double)r.pixels) {
        const int64_t row = row_of(r, sample);
        gamma = static_cast<const C*>(r.gamma) + row * r.gamma_stride;
        alpha = static_cast<const C*>(r.alpha) + row * r.alpha_stride;
        beta = static_cast<const C*>(r.beta) + row * r.beta_stride;
        mean = static_cast<const C*>(r.mean) + sample * channels;
        rstd = static_cast<const C*>(r.rstd) + sample * channels;
        double sum = 0, squares = 0;
        for (int64_t k = 0; k < channels; ++k) sum += (double)mean[k];
        centre = sum / (double)channels;
        for (int64_t k = 0; k < channels; ++k) squares += ((double)mean[k] - centre) * ((double)mean[k] - centre);
        inverse = 1 / __builtin_sqrt(squares / (double)(channels - 1) + r.epsilon);
    }
    static constexpr bool kHasAlpha = true;
    static Vector<C> activate(Vector<C> y) { return elu(y); }
    static Vector<C> slope_of(Vector<C> y) { return elu_slope(y); }

    // y = (x - mean) scale + shift
    C mean_at(int64_t k) const { return mean[k]; }
    C scale(int64_t k) const { return gamma[k] * rstd[k]; }
    C shift(int64_t k) const { return beta[k] + gamma[k] * alpha[k] * (C)m(k); }
    double m(int64_t k) const { return ((double)mean[k] - centre) * inverse; }
    void combine() {}

    double by_m(int64_t k, const C* by_shift) const { return (double)gamma[k] * (double)alpha[k] * (double)by_shift[k]; }
    // What the derivatives by all m have in common.
    void read(const C* by_shift) {
        for (int64_t k = 0; k < channels; ++k) {
            shared += by_m(k, by_shift);
            along += by_m(k, by_shift) * m(k);
        }
        shared /= (double)channels;
        along /= (double)(channels - 1);
    }
    // dx = scale dy + (constant - (x - mean) slope)
    C constant(int64_t k, const C* by_shift, const C*) const {
        const double by_mean = inverse * (by_m(k, by_shift) - shared - m(k) * along);
        return ((C)by_mean - scale(k) * by_shift[k]) / (C)pixels;
    }
    C slope(int64_t k, const C*, const C* moments) const { return scale(k) * rstd[k] * rstd[k] * moments[k] / (C)pixels; }
    C by_gamma(int64_t k, const C* by_shift, const C* moments) const {
        return rstd[k] * moments[k] + alpha[k] * (C)m(k) * by_shift[k];
    }
    C by_alpha(int64_t k, const C* by_shift) const { return gamma[k] * (C)m(k) * by_shift[k]; }
};

}  // namespace
