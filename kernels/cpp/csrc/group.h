// What the channels of a sample have in common under group normalisation, with SiLU behind it:
// reference/group_norm.py.
#pragma once

namespace {

// sigma(y) = 1 / (1 + exp(-y)), through exp(-|y|), which is never large. Within 2 units of the last place above -87, and 0
// below, so that a product with y vanishes there.
FL_INLINE F sigmoid(F y) {
    const I negative = (I)y & (I{} + 0x80000000u);
    const F below = (F)((I)y | (I{} + 0x80000000u));
    F power, p;
    split(below, power, p);
    const F e = select((I)(below < F{} - 87.0f), F{}, power * p + power);
    return select(negative, e, F{} + 1.0f) / (1.0f + e);
}
FL_INLINE D sigmoid(D y) {
    for (unsigned i = 0; i < sizeof y / sizeof(double); ++i) {
        const double e = __builtin_exp(y[i] < 0 ? y[i] : -y[i]);
        y[i] = (y[i] < 0 ? e : 1) / (1 + e);
    }
    return y;
}

template <class C>
struct Group {
    const C *gamma, *beta, *plane_means, *plane_variances;
    C *mean, *rstd;
    int64_t channels, width;  // width: channels of a group
    double pixels, epsilon;

    Group(const NormalisationRequest& r, int64_t sample)
        : channels(r.channels), width(r.channels / r.groups), pixels((double)r.pixels), epsilon(r.epsilon) {
        gamma = static_cast<const C*>(r.gamma);
        beta = static_cast<const C*>(r.beta);
        mean = static_cast<C*>(r.mean) + sample * r.groups;
        rstd = static_cast<C*>(r.rstd) + sample * r.groups;
        plane_means = static_cast<const C*>(r.plane_means) + sample * channels;
        plane_variances = static_cast<const C*>(r.plane_variances) + sample * channels;
    }
    // The planes' statistics become those of their groups.
    void combine() {
        for (int64_t first = 0; first < channels; first += width) {
            double sum = 0, squares = 0;
            for (int64_t k = first; k < first + width; ++k) sum += (double)plane_means[k];
            const double centre = sum / (double)width;
            for (int64_t k = first; k < first + width; ++k) {
                const double away = (double)plane_means[k] - centre;
                squares += (double)plane_variances[k] + away * away;
            }
            mean[first / width] = (C)centre;
            rstd[first / width] = (C)(1 / __builtin_sqrt(squares / (double)width + epsilon));
        }
    }
    static constexpr bool kHasAlpha = false;
    static Vector<C> activate(Vector<C> y) { return y * sigmoid(y); }
    static Vector<C> slope_of(Vector<C> y) {
        const Vector<C> s = sigmoid(y);
        return s + y * s * (1 - s);
    }

    C mean_at(int64_t k) const { return mean[k / width]; }
    C scale(int64_t k) const { return gamma[k] * rstd[k / width]; }
    C shift(int64_t k) const { return beta[k]; }

    // Over a group: sums of gamma dy and of gamma dy (x - mean), the group's whose channel was asked for last.
    int64_t known = -1;
    double shared = 0, along = 0;
    void read(const C*) {}
    void sum_group(int64_t k, const C* by_shift, const C* moments) {
        if (k / width == known) return;
        known = k / width;
        shared = along = 0;
        for (int64_t j = known * width; j < (known + 1) * width; ++j) {
            shared += (double)gamma[j] * (double)by_shift[j];
            along += (double)gamma[j] * (double)moments[j];
        }
    }
    // dx = scale dy + (constant - (x - mean) slope)
    C constant(int64_t k, const C* by_shift, const C* moments) {
        sum_group(k, by_shift, moments);
        return (C)(-(double)rstd[known] * shared / ((double)width * pixels));
    }
    C slope(int64_t k, const C* by_shift, const C* moments) {
        sum_group(k, by_shift, moments);
        const double r = (double)rstd[known];
        return (C)(r * r * r * along / ((double)width * pixels));
    }
    C by_gamma(int64_t k, const C*, const C* moments) const { return rstd[k / width] * moments[k]; }
};

}  // namespace
