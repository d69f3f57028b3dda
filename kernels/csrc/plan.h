// What a call asks for, as Python packs it (Request, PlainStep) and as the kernels read it (Plan). No code here.
#pragma once

#include <cstdint>

enum Kind : int64_t { kStep, kNormal, kUniform };
enum Dtype : int64_t { kFloat32, kFloat16, kBfloat16, kFloat64, kBool };
enum Name { kOut, kX, kScore, kC, kA, kB, kNoise, kMask, kKnown, kOperands };

constexpr int kMaxRank = 63;  // dimensions of size 1 are dropped, so 2^63 elements have no more

// Fields that both requests share: the addresses of the noise and how to run.
struct Common {
    int64_t instruction_set, threads;
    uint64_t seed, draw, sample_offset, purpose;
    int64_t has_b;
    double c, a, b;
};

// out = c*x + a*score + b*noise with contiguous fp32 tensors and plain numbers: the usual call.
struct PlainStep {
    Common common;
    float* out;
    const float *x, *score;
    int64_t batch, elements;
};

struct Request {
    Common common;
    int64_t kind, wide, rank;           // wide: compute in fp64
    const int64_t *seeds, *draw_at, *ids;  // null: the number in common
    int64_t seed_stride;                // 0 or 1: a seed for all samples, or for each
    struct {
        void* data;  // null: absent, or for c, a and b the number in common
        int64_t dtype;
    } operand[kOperands];
    int64_t tail[];  // sizes[rank], then strides[rank] of each operand that has data
};

struct Operand {
    char* data;
    int64_t dtype;
    int64_t stride[kMaxRank];  // elements
};

struct Plan {
    Common common;
    int64_t kind, wide;
    const int64_t *seeds, *draw_at, *ids;
    int64_t seed_stride;
    // Dimensions that all operands can walk together are merged; flat positions count in logical row-major order.
    int64_t rank, size[kMaxRank];
    int64_t batch, elements;
    // A chunk is `rows` whole samples, or one of the `pieces` of a sample, each of `span` elements.
    int64_t rows, span, pieces, chunks;
    bool draws, mixed;
    Operand operand[kOperands];
};

constexpr int64_t kChunk = 512;  // elements worked on at a time: a few buffers of them fit the first-level cache

// What one instruction set offers.
struct Kernels {
    const char* name;
    int lanes;
    void (*run)(const Plan& plan, int64_t first_chunk, int64_t last_chunk);
    void (*polar)(const uint32_t* words, int64_t count, float* radius, float* cosine, float* sine);
};
