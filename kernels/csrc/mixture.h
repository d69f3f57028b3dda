// The score of a Gaussian mixture for kLanes chains side by side, in the order of operations that the reference's
// mixture.py writes down. A row of the table belongs to a component:
//
//     isotropic   g, h, i, m_1 .. m_D        diagonal   g, m_1 .. m_D, i_1 .. i_D
//
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

// D elements, or as many as the table says where D is 0; V vectors of chains, whose operations alternate: a component's
// depend on each other too closely to fill a processor. `logits` has room for all components.
template <int D, bool kDiagonal, int V, int R>
FL_INLINE void score_of(const MixtureTable& table, const float* row, const F (&x)[V][R], F (&score)[V][R],
                        F (*logits)[V]) {
    const int64_t features = D ? D : table.features, width = kDiagonal ? 1 + 2 * features : 3 + features;
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
}

}  // namespace
