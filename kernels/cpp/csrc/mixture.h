// The score of a Gaussian mixture for kLanes chains side by side, in the order of operations that the reference's
// mixture.py writes down. A row of the table belongs to a component:
//
//     isotropic   g, h, i, m_1 .. m_D        diagonal   g, m_1 .. m_D, i_1 .. i_D
//
// then what rounding has left of each, and the logit below which a sample's score is computed in fp64.
// 31 operations a component for two elements, of which 16 are the power of 2.
#pragma once

namespace {

constexpr float kMinusHalfLog2E = -0x1.715476p-1f;

// 2^y for y up to 0, of -100 for all below and for NaN.
FL_INLINE F exp2_below_one(F y) {
    y = largest(y, F{} - 100.0f);
    const F shifted = y + 0x1.8p23f;  // the nearest integer in its lowest bits
    const F r = y - (shifted - 0x1.8p23f);
    F p = r * 0x1.5bb9f0p-10f + 0x1.3cea86p-7f;
    p = p * r + 0x1.c6b754p-5f;
    p = p * r + 0x1.ebf9bcp-3f;
    p = p * r + 0x1.62e42ap-1f;
    p = p * r + 1.0f;
    return (F)((I)p + ((I)shifted << 23));
}

// 2^y in fp64, of as many lanes as a vector of fp32 has.
FL_INLINE void exp2_below_one(double (&y)[kLanes]) {
    for (int lane = 0; lane < kLanes; ++lane) {
        const double x = y[lane] > -100.0 ? y[lane] : -100.0;
        const double shifted = x + 0x1.8p52, r = x - (shifted - 0x1.8p52);
        double p = r * 0x1.e8cac7351bb25p-32 + 0x1.e4cf5158b8ecap-28;
        p = p * r + 0x1.b5253d395e7c4p-24;
        p = p * r + 0x1.62c0223a5c824p-20;
        p = p * r + 0x1.ffcbfc588b0c7p-17;
        p = p * r + 0x1.430912f86c787p-13;
        p = p * r + 0x1.5d87fe78a6731p-10;
        p = p * r + 0x1.3b2ab6fba4e77p-7;
        p = p * r + 0x1.c6b08d704a0c0p-5;
        p = p * r + 0x1.ebfbdff82c58fp-3;
        p = p * r + 0x1.62e42fefa39efp-1;
        p = p * r + 1.0;
        uint64_t bits, whole;
        memcpy(&bits, &p, sizeof bits);
        memcpy(&whole, &shifted, sizeof whole);
        bits += whole << 52;
        memcpy(&y[lane], &bits, sizeof bits);
    }
}

template <bool kDiagonal>
FL_INLINE int64_t row_numbers(int64_t features) {
    return kDiagonal ? 1 + 2 * features : 3 + features;
}
template <bool kDiagonal>
FL_INLINE int64_t row_width(int64_t features) {
    return 2 * row_numbers<kDiagonal>(features) + 1;
}

// The score of a vector of chains in fp64, rounded to fp32. Rare: not one of its numbers takes a register of the others.
template <bool kDiagonal>
FL_NOINLINE void wide_score_of(const MixtureTable& table, const float* row, const F* from, F* to) {
    const int64_t features = table.features, rest = row_numbers<kDiagonal>(features);
    const int64_t width = row_width<kDiagonal>(features), means = kDiagonal ? 1 : 3;
    const auto number = [&](const float* at) { return (double)at[0] + (double)at[rest]; };
    double x[kMaxFeatures][kLanes], score[kMaxFeatures][kLanes], logits[kMaxComponents][kLanes];
    double most[kLanes], weight[kLanes];
    for (int64_t j = 0; j < features; ++j)
        for (int lane = 0; lane < kLanes; ++lane) x[j][lane] = (double)from[j][lane];
    const float* at = row;
    for (int64_t k = 0; k < table.components; ++k, at += width) {
        double total[kLanes];
        for (int64_t j = 0; j < features; ++j) {
            const double mean = number(at + means + j), inverse = kDiagonal ? number(at + 1 + features + j) : 0.0;
            for (int lane = 0; lane < kLanes; ++lane) {
                const double d = mean - x[j][lane], square = kDiagonal ? d * inverse * d : d * d;
                total[lane] = j ? total[lane] + square : square;
            }
        }
        const double factor = kDiagonal ? -0x1.71547652b82fep-1 : number(at + 1), g = number(at);
        for (int lane = 0; lane < kLanes; ++lane) {
            const double logit = total[lane] * factor + g;
            logits[k][lane] = logit;
            most[lane] = k && !(logit > most[lane]) ? most[lane] : logit;
        }
    }
    at = row;
    for (int64_t k = 0; k < table.components; ++k, at += width) {
        double e[kLanes], pull[kLanes];
        for (int lane = 0; lane < kLanes; ++lane) e[lane] = logits[k][lane] - most[lane];
        exp2_below_one(e);
        const double common = kDiagonal ? 0.0 : number(at + 2);
        for (int lane = 0; lane < kLanes; ++lane) {
            pull[lane] = kDiagonal ? e[lane] : e[lane] * common;
            weight[lane] = k ? weight[lane] + e[lane] : e[lane];
        }
        for (int64_t j = 0; j < features; ++j) {
            const double mean = number(at + means + j), inverse = kDiagonal ? number(at + 1 + features + j) : 0.0;
            for (int lane = 0; lane < kLanes; ++lane) {
                const double d = mean - x[j][lane], one = pull[lane] * (kDiagonal ? d * inverse : d);
                score[j][lane] = k ? score[j][lane] + one : one;
            }
        }
    }
    for (int lane = 0; lane < kLanes; ++lane) weight[lane] = 1.0 / weight[lane];
    for (int64_t j = 0; j < features; ++j)
        for (int lane = 0; lane < kLanes; ++lane) to[j][lane] = (float)(score[j][lane] * weight[lane]);
}

// D elements, or as many as the table says where D is 0; V vectors of chains, whose operations alternate: a component's
// depend on each other too closely to fill a processor. `logits` has room for all components.
template <int D, bool kDiagonal, int V, int R>
FL_INLINE void score_of(const MixtureTable& table, const float* row, const F (&x)[V][R], F (&score)[V][R],
                        F (*logits)[V]) {
    const int64_t features = D ? D : table.features, width = row_width<kDiagonal>(features);
    const int64_t means = kDiagonal ? 1 : 3;
    F most[V], weight[V];
    for (int v = 0; v < V; ++v) most[v] = weight[v] = F{};
    const float* at = row;
    for (int64_t k = 0; k < table.components; ++k, at += width) {
        for (int v = 0; v < V; ++v) {
            F total{};
            for (int64_t j = 0; j < features; ++j) {
                const F d = at[means + j] - x[v][j];
                const F square = kDiagonal ? d * at[1 + features + j] * d : d * d;
                total = j ? total + square : square;
            }
            logits[k][v] = total * (kDiagonal ? kMinusHalfLog2E : at[1]) + at[0];
            most[v] = k ? largest(logits[k][v], most[v]) : logits[k][v];
        }
    }
    at = row;
    for (int64_t k = 0; k < table.components; ++k, at += width) {
        F e[V];
        for (int v = 0; v < V; ++v) e[v] = exp2_below_one(logits[k][v] - most[v]);
        for (int v = 0; v < V; ++v) {
            const F pull = kDiagonal ? e[v] : e[v] * at[2];
            for (int64_t j = 0; j < features; ++j) {
                const F d = at[means + j] - x[v][j];
                const F one = pull * (kDiagonal ? d * at[1 + features + j] : d);
                score[v][j] = k ? score[v][j] + one : one;
            }
            weight[v] = k ? weight[v] + e[v] : e[v];
        }
    }
    for (int v = 0; v < V; ++v) {
        const F share = 1.0f / weight[v];
        for (int64_t j = 0; j < features; ++j) score[v][j] = score[v][j] * share;
    }
    I imprecise[V], some{};
    for (int v = 0; v < V; ++v) some = some | (imprecise[v] = ~(I)(most[v] >= broadcast(row[width - 1])));
    if (__builtin_expect(!any(some), 1)) return;
    for (int v = 0; v < V; ++v) {
        if (!any(imprecise[v])) continue;
        F state[R], wide[R];  // copies: `x` and `score` stay in registers
        for (int64_t j = 0; j < features; ++j) state[j] = x[v][j];
        wide_score_of<kDiagonal>(table, row, state, wide);
        for (int64_t j = 0; j < features; ++j) score[v][j] = select(imprecise[v], wide[j], score[v][j]);
    }
}

}  // namespace
