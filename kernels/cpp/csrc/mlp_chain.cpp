// Segments of chains whose score is a multilayer perceptron.
//
// A lane is a chain; a block of chains runs its whole segment before the next begins. Activations lie as [feature][chain]
// in the first-level cache, and a product keeps kTile sums of kUnroll vectors each in registers, its weights broadcast
// from memory. At width 64 and AVX-512 a block's two activations and the weights are 32 KiB. The products are fused
// multiply-adds where the set has them; noise and update keep the stream's order, each operation rounded.
#include "instruction_set.h"

#include "expm1.h"
#include "activations.h"
#include "normal.h"
#include "philox.h"
#include "chain_noise.h"

namespace {

// Sums in registers: at least as many as a fused multiply-add has cycles of latency times units, and few enough for the
// registers. Weights are packed for kPacked of them.
constexpr int kUnroll = kChainVectors;
constexpr int kTile = kLanes == 8 || kLanes == 4 ? 4 : 8;
constexpr int kPacked = 8;
constexpr int kChains = kUnroll * kLanes;

struct Chains {
    alignas(64) float x[kMlpFeatures][kChains], z[kMlpFeatures][kChains];
    alignas(64) float hidden[2][kMlpWidth][kChains];
};

// out[i] = f(bias[i] + sum of weights[i * row + k * column] * in[k]) for kRows rows.
template <int kRows, class Activation>
FL_INLINE void product(const float* weights, int64_t row, int64_t column, const float* bias, const float (*in)[kChains],
                       int64_t inputs, float (*out)[kChains]) {
    F sums[kRows][kUnroll];
    for (int i = 0; i < kRows; ++i)
        for (int v = 0; v < kUnroll; ++v) sums[i][v] = broadcast(bias[i]);
    for (int64_t k = 0; k < inputs; ++k, weights += column) {
        F x[kUnroll];
        for (int v = 0; v < kUnroll; ++v) x[v] = load(in[k] + v * kLanes);
        for (int i = 0; i < kRows; ++i) {
            const F w = broadcast(weights[i * row]);
            for (int v = 0; v < kUnroll; ++v) sums[i][v] = multiply_add(w, x[v], sums[i][v]);
        }
    }
    for (int i = 0; i < kRows; ++i)
        for (int v = 0; v < kUnroll; ++v) store(out[i] + v * kLanes, Activation::apply(sums[i][v]));
}

struct Identity {
    FL_INLINE F apply(F y) { return y; }
};

template <class Activation>
FL_NOINLINE void layer(const float* weights, const float* bias, const float (*in)[kChains], int64_t inputs,
                       int64_t outputs, float (*out)[kChains]) {
    for (int64_t i = 0; i < outputs; i += kTile)
        product<kTile, Activation>(weights + i / kPacked * kPacked * inputs + i % kPacked, 1, kPacked, bias + i, in,
                                   inputs, out + i);
}

FL_NOINLINE void head(const MlpRequest& r, const float (*in)[kChains], float (*out)[kChains]) {
    int64_t i = 0;
    for (; i + kTile <= r.features; i += kTile)
        product<kTile, Identity>(r.head + i * r.width, r.width, 1, r.head_bias + i, in, r.width, out + i);
    for (; i + 2 <= r.features; i += 2)
        product<2, Identity>(r.head + i * r.width, r.width, 1, r.head_bias + i, in, r.width, out + i);
    for (; i < r.features; ++i)
        product<1, Identity>(r.head + i * r.width, r.width, 1, r.head_bias + i, in, r.width, out + i);
}

FL_NOINLINE void draw(const ChainAddress* address, uint32_t number, int64_t features, Chains& chains) {
    for (int v = 0; v < kUnroll; ++v)
        for (int64_t d = 0; d < features; d += 4) {
            F z[4];
            ChainAddress::normals(address[v], (uint32_t)(d / 4), number, features - d, z);
            for (int64_t i = 0; i < 4 && d + i < features; ++i) store(chains.z[d + i] + v * kLanes, z[i]);
        }
}

template <class Activation>
void step(const MlpRequest& r, const ChainAddress* address, Chains& chains, int64_t index) {
    const int64_t level = r.levels[index];
    const float mean = (float)r.mean, scale = r.frame[level * 3], gain = r.frame[level * 3 + 1], pull = r.frame[level * 3 + 2];
    const float c = r.coefficients[index * 3], a = r.coefficients[index * 3 + 1], b = r.coefficients[index * 3 + 2];
    float(*in)[kChains] = chains.hidden[0], (*out)[kChains] = chains.hidden[1];
    for (int64_t d = 0; d < r.features; ++d)
        for (int at = 0; at < kChains; at += kLanes)
            store(in[d] + at, (load(chains.x[d] + at) - mean) * scale);
    const float *weights = r.weights, *bias = r.biases + level * r.depth * r.width;
    for (int64_t l = 0, inputs = r.features; l < r.depth; ++l, inputs = r.width) {
        layer<Activation>(weights, bias, in, inputs, r.width, out);
        weights += inputs * r.width;
        bias += r.width;
        float(*const swap)[kChains] = in;
        in = out;
        out = swap;
    }
    head(r, in, out);
    const bool noisy = r.noisy[index];
    if (noisy) draw(address, (uint32_t)r.draw + (uint32_t)index, r.features, chains);
    for (int64_t d = 0; d < r.features; ++d)
        for (int at = 0; at < kChains; at += kLanes) {
            const F x = load(chains.x[d] + at);
            const F score = gain * load(out[d] + at) - pull * (x - mean);
            const F moved = c * x + a * score;
            store(chains.x[d] + at, noisy ? moved + b * load(chains.z[d] + at) : moved);
        }
}

void keep(const MlpRequest& r, const Chains& chains, int64_t first, int64_t rows, float* to) {
    for (int64_t i = 0; i < rows; ++i)
        for (int64_t d = 0; d < r.features; ++d) to[(first + i) * r.features + d] = chains.x[d][i];
}

template <class Activation>
void run(const MlpRequest& r, int64_t first, int64_t last) {
    Chains chains;
    for (int64_t block = first; block < last; ++block) {
        const int64_t row = block * kChains, rows = row + kChains < r.batch ? kChains : r.batch - row;
        const ChainAddress address[kUnroll] = {{r, row}, {r, row + kLanes}};
        for (int i = 0; i < kChains; ++i)  // lanes past the batch are its last chain again
            for (int64_t d = 0; d < r.features; ++d)
                chains.x[d][i] = r.x[(i < rows ? row + i : r.batch - 1) * r.features + d];
        float* frame = r.frames;
        for (int64_t index = 0; index < r.steps; ++index) {
            step<Activation>(r, address, chains, index);
            if (r.every == 0 || (r.draw + (uint64_t)index + 1) % (uint64_t)r.every != 0) continue;
            keep(r, chains, row, rows, frame);
            frame += r.batch * r.features;
        }
        keep(r, chains, row, rows, r.x);
    }
}

template <class Activation>
void activate_all(const float* y, int64_t count, float* values) {
    for (int64_t i = 0; i < count; i += kLanes) store(values + i, Activation::apply(load(y + i)));
}

}  // namespace

void FL_SET::mlp_chain(const MlpRequest& request, int64_t first, int64_t last) {
    switch (request.activation) {
        case kSilu: return run<Silu>(request, first, last);
        case kElu: return run<Elu>(request, first, last);
        case kSoftplus: return run<Softplus>(request, first, last);
        case kRelu: return run<Relu>(request, first, last);
        case kTanh: return run<Tanh>(request, first, last);
    }
}

// For sweeps over all floats: count is a multiple of 16.
void FL_SET::activate(int64_t activation, const float* y, int64_t count, float* values) {
    switch (activation) {
        case kSilu: return activate_all<Silu>(y, count, values);
        case kElu: return activate_all<Elu>(y, count, values);
        case kSoftplus: return activate_all<Softplus>(y, count, values);
        case kRelu: return activate_all<Relu>(y, count, values);
        case kTanh: return activate_all<Tanh>(y, count, values);
    }
}
