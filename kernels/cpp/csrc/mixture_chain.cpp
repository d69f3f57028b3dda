// Whole chains of Langevin dynamics on a Gaussian mixture, and its score alone.
//
//     x <- fl(fl(fl(c x) + fl(a score(x))) + fl(b z))        update after update, in registers
//
// Nothing is read from memory but the table of components, and nothing written but frames and the last state.
#include "instruction_set.h"

#include "normal.h"
#include "philox.h"
#include "chain_noise.h"
#include "mixture.h"

namespace {

// The samples from `begin` on, transposed: element j of all is a vector. Missing ones past the last repeat it.
void read_chains(const float* from, int64_t present, int64_t features, int64_t begin, F* x) {
    for (int64_t j = 0; j < features; ++j)
        for (int lane = 0; lane < kLanes; ++lane) {
            const int64_t chain = begin + lane < present ? begin + lane : present - 1;
            x[j][lane] = from[chain * features + j];
        }
}

void write_chains(float* to, int64_t present, int64_t features, int64_t begin, const F* x) {
    for (int lane = 0; lane < kLanes && begin + lane < present; ++lane)
        for (int64_t j = 0; j < features; ++j) to[(begin + lane) * features + j] = x[j][lane];
}

template <int D, bool kDiagonal>
void run_chains(const ChainRequest& q, int64_t first, int64_t present) {
    constexpr int kRoom = D ? D : kMaxFeatures, V = kChainVectors;
    const int64_t features = D ? D : q.table.features;
    const int64_t level_size = q.table.components * row_width<kDiagonal>(features);
    const ChainAddress address[V] = {{q, first}, {q, first + kLanes}};
    F x[V][kRoom], score[V][kRoom], z[V][(kRoom + 3) / 4 * 4], logits[kMaxComponents][V];
    float* const state = q.x + first * features;
    for (int v = 0; v < V; ++v) read_chains(state, present, features, v * kLanes, x[v]);
    uint32_t draw = (uint32_t)q.draw;
    int64_t left = q.every ? q.every - (int64_t)(q.draw % (uint64_t)q.every) : -1;
    float* frame = q.frames + first * features;
    for (const ChainRun *run = q.runs, *end = run + q.run_count; run < end; ++run) {
        const float* const row = q.table.rows + run->level * level_size;
        const float c = (float)run->c, a = (float)run->a, b = (float)run->b;
        for (int64_t t = 0; t < run->times; ++t, ++draw) {
            if (run->has_b)
                for (int64_t j = 0; j < features; j += 4)
                    for (int v = 0; v < V; ++v)
                        ChainAddress::normals(address[v], (uint32_t)(j / 4), draw, features - j, z[v] + j);
            score_of<D, kDiagonal>(q.table, row, x, score, logits);
            for (int v = 0; v < V; ++v)
                for (int64_t j = 0; j < features; ++j) {
                    x[v][j] = (c == 1.0f ? x[v][j] : c * x[v][j]) + a * score[v][j];
                    if (run->has_b) x[v][j] = x[v][j] + b * z[v][j];
                }
            if (--left == 0) {
                for (int v = 0; v < V; ++v) write_chains(frame, present, features, v * kLanes, x[v]);
                frame += q.batch * features;
                left = q.every;
            }
        }
    }
    for (int v = 0; v < V; ++v) write_chains(state, present, features, v * kLanes, x[v]);
}

// A level for each sample: one pass for each of the levels in a vector, which mostly is one.
template <int D, bool kDiagonal>
void run_scores(const MixtureRequest& q, int64_t first, int64_t present) {
    constexpr int kRoom = D ? D : kMaxFeatures;
    const int64_t features = D ? D : q.table.features;
    const int64_t level_size = q.table.components * row_width<kDiagonal>(features);
    F x[1][kRoom], score[1][kRoom], logits[kMaxComponents][1];
    read_chains(q.x + first * features, present, features, 0, x[0]);
    for (int64_t begin = 0, end; begin < present; begin = end) {
        const int64_t level = q.labels[first + begin];
        for (end = begin + 1; end < present && q.labels[first + end] == level;) ++end;
        score_of<D, kDiagonal>(q.table, q.table.rows + level * level_size, x, score, logits);
        for (int64_t lane = begin; lane < end; ++lane)
            for (int64_t j = 0; j < features; ++j) q.out[(first + lane) * features + j] = score[0][j][lane];
    }
}

// Blocks, as library.cpp counts them, in pieces of `piece` samples.
template <class Request>
void each_piece(const Request& q, int64_t first, int64_t last, int64_t piece,
                void (*run)(const Request&, int64_t, int64_t)) {
    const int64_t end = last * kChainVectors * kLanes < q.batch ? last * kChainVectors * kLanes : q.batch;
    for (int64_t at = first * kChainVectors * kLanes; at < end; at += piece)
        run(q, at, end - at < piece ? end - at : piece);
}

}  // namespace

void FL_SET::mixture_chain(const ChainRequest& request, int64_t first, int64_t last) {
    const bool diagonal = request.table.diagonal != 0;
    const auto each = [&](void (*run)(const ChainRequest&, int64_t, int64_t)) {
        each_piece(request, first, last, kChainVectors * kLanes, run);
    };
    switch (request.table.features) {
        case 1: return each(diagonal ? run_chains<1, true> : run_chains<1, false>);
        case 2: return each(diagonal ? run_chains<2, true> : run_chains<2, false>);
        case 3: return each(diagonal ? run_chains<3, true> : run_chains<3, false>);
        case 4: return each(diagonal ? run_chains<4, true> : run_chains<4, false>);
        default: return each(diagonal ? run_chains<0, true> : run_chains<0, false>);
    }
}

void FL_SET::mixture_score(const MixtureRequest& request, int64_t first, int64_t last) {
    const bool diagonal = request.table.diagonal != 0;
    const auto each = [&](void (*run)(const MixtureRequest&, int64_t, int64_t)) {
        each_piece(request, first, last, kLanes, run);
    };
    switch (request.table.features) {
        case 1: return each(diagonal ? run_scores<1, true> : run_scores<1, false>);
        case 2: return each(diagonal ? run_scores<2, true> : run_scores<2, false>);
        default: return each(diagonal ? run_scores<0, true> : run_scores<0, false>);
    }
}
