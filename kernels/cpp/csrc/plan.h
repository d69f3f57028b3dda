// What a call asks for, as Python packs it (PlainStep, Request, DsmRequest, SampleNormsRequest, NormalisationRequest,
// AddEluRequest, MixtureRequest, ChainRequest, MlpRequest) and as the kernels read it (Plan; the last five as they are).
// Requests have fields of 64 bits alone. Python declares them in requests.py, and requests.cpp says where they are.
// No code here.
#pragma once

#include <cstdint>

enum Kind : int64_t { kStep, kNormal, kUniform, kPerturb, kDsm, kSampleNorms };
enum Dtype : int64_t { kFloat32, kFloat16, kBfloat16, kFloat64, kBool };
constexpr int kTerms = 6, kDraws = 4;
// An update has its terms' slots from kX on, the state first, and their factors from kFactor on. A perturbation has kOut,
// kX (the clean samples) and kNoise; denoising score matching has kOut (the gradient), kX (the network's output), kNoise
// and kClean.
enum Name {
    kOut,
    kX,
    kFactor = kX + kTerms,
    kB = kFactor + kTerms,
    kNoise,
    kMask,
    kKnown,
    kStepOperands,
    kClean = kStepOperands,
    kOperands
};

constexpr int kMaxRank = 63;  // dimensions of size 1 are dropped, so 2^63 elements have no more

// How to run, and the address of the noise where it is plain numbers.
struct Common {
    int64_t instruction_set, threads;
    uint64_t seed, draw, sample_offset, purpose;
};

// The address of the noise where it is in memory; null: the number in Common.
struct Address {
    const int64_t *seeds, *draw_at, *ids;
    int64_t seed_stride;  // 0 or 1: a seed for all samples, or for each
};

// out = factor[0] x + factor[1] slot[1] + ... + b z, left to right, and what is watched.
struct Update {
    int64_t terms, has_b;
    double factor[kTerms], b;
    int64_t* fault;  // of each sample, the number of the first step whose result is not finite; null: not looked at
    int64_t freeze;  // samples with an earlier fault are left as they are
    int64_t number;  // of the step
    const int64_t* number_at;  // where it is in memory; null: the field before
};

// What the noise is made of: z = weight[0] z_0 + weight[1] z_1 + ..., left to right.
struct Draws {
    int64_t count;  // of the draws here or in the table
    double weight[kDraws];
    int64_t offset[kDraws];  // of their numbers from the address's draw
    const void* weights;     // a table in the computing dtype, and the draw numbers themselves; null: the fields before
    const int64_t* numbers;
};

struct Dsm {
    const void *scale, *weight, *slope;  // of each level, in the computing dtype; scale is sigma for a perturbation
    const void* upstream;
    int64_t upstream_stride;  // 0 or 1: a derivative for all samples, or for each
    int64_t* labels;
    int64_t levels;
    int64_t draws_labels, level_purpose;  // of a perturbation: labels are written, from words of this purpose
    int64_t segment;                      // elements whose squares are summed first
    void *values, *level_sums;            // null where only the gradient is wanted, like the two below
    int64_t* level_counts;
    void *total, *scratch;  // scratch: as many numbers as segments, where a sample is cut or samples are many
};

struct SampleNorms {
    int64_t segment;         // elements whose squares are summed first
    void *of_x, *of_noise;   // (B,) in the computing dtype; null where they are not wanted
    void *scratch[2];        // as many numbers as segments for each of the two, where a sample is cut
};

// out = c*x + a*score + b*noise with contiguous fp32 tensors and plain numbers: the usual call.
struct PlainStep {
    Common common;
    double c, a, b;
    int64_t* fault;
    int64_t freeze;
    const int64_t* ids;  // of the samples; null: from the offset on
    float* out;
    const float *x, *score;
    int64_t batch, elements;
};

struct Data {
    void* data;  // null: absent, or for a factor the number in Update
    int64_t dtype;
};

struct Request {
    Common common;
    Update update;
    Draws draws;
    int64_t kind, wide, rank;  // wide: compute in fp64
    Address address;
    Data operand[kStepOperands];
    int64_t tail[];  // sizes[rank], then strides[rank] of each operand that has data
};

struct DsmRequest {
    Common common;
    int64_t kind, wide, rank;  // rank 0: all operands are contiguous, and the tail is batch and elements
    Address address;
    Dsm dsm;
    Data out, x, noise, clean;
    int64_t tail[];
};

struct SampleNormsRequest {
    Common common;
    int64_t wide, rank;  // rank 0: all operands are contiguous, and the tail is batch and elements
    Address address;
    SampleNorms norms;
    Data x, noise;
    int64_t tail[];
};

// InstanceNorm++, or group normalisation: contiguous tensors, (B, C, H, W) or channels_last.
struct NormalisationRequest {
    int64_t instruction_set, threads;
    int64_t backward, activation, channels_last, dtype;
    int64_t batch, channels, pixels;
    int64_t groups;  // 0: InstanceNorm++
    double epsilon;
    void* out;              // backward: the gradient by x
    const void *x, *other;  // other: what is added to x first, or null; backward: the gradient by out
    void* total;            // forward: x + other, which is normalised; null where there is no other
    const void *gamma, *alpha, *beta;                 // in the computing dtype, like all below; groups have no alpha
    int64_t gamma_stride, alpha_stride, beta_stride;  // from row to row
    const int64_t* labels;                            // each sample's row, below `levels`; null: its number
    int64_t levels;
    void *mean, *rstd;                    // of each channel, or group: written forward, read backward
    void *by_gamma, *by_alpha, *by_beta;  // backward: the gradients of each sample
    void *plane_means, *plane_variances;  // groups: (B, C) to work in
};
// All passes over samples, or one over planes (blocks of channels in channels_last), which all threads end first; the one
// between them is over samples.
enum NormalisationPass : int64_t { kWholeSamples, kFirstPass, kBetween, kSecondPass };

// out = ELU of the sum of the terms, of `count` neighbours in memory each; the third term, then the second, may be null.
struct AddEluRequest {
    int64_t instruction_set, threads, dtype, count;
    const void* terms[3];
    void *total, *out;  // total: the sum, or null
};

// The components of a mixture at all levels: see mixture.h.
struct MixtureTable {
    const float* rows;
    int64_t components, features, diagonal;
};
constexpr int kMaxComponents = 256, kMaxFeatures = 64;
// Vectors of chains that go side by side: on Zen 4 a step of 8 components in two dimensions then takes 5.7 ns a chain,
// alone 6.8.
constexpr int kChainVectors = 2;

// The score of a mixture: contiguous fp32 (batch, features), a level for each sample.
struct MixtureRequest {
    int64_t instruction_set, threads, batch;
    MixtureTable table;
    const int64_t* labels;
    float* out;
    const float* x;
};

// Updates of one rule at one level.
struct ChainRun {
    double c, a, b;
    int64_t has_b, level, times;
};

// Updates of chains, `x` in place; frames are written after those that end at a multiple of `every`, which may be 0.
struct ChainRequest {
    int64_t instruction_set, threads, batch;
    MixtureTable table;
    uint64_t seed, draw, sample_offset, purpose;
    const int64_t *seeds, *ids;
    int64_t seed_stride;
    const ChainRun* runs;
    int64_t run_count, every;
    float *frames, *x;
};

// `steps` updates of `batch` chains whose score is a multilayer perceptron: fp32, contiguous, on sizes up to the limits.
struct MlpRequest {
    int64_t instruction_set, threads, batch;
    int64_t features, width, depth, steps, activation;  // width: padded to a multiple of 8
    float* x;                                                  // (batch, features), written
    const float* weights;    // of each layer in turn: 8 rows side by side, [width / 8][inputs][8]
    const float* biases;     // (levels, depth, width)
    const float* head;       // (features, width)
    const float* head_bias;  // (features,)
    const float* frame;      // (levels, 3): factor of the input, of the head, of the pull to the mean
    const int64_t* levels;   // of each update
    const float* coefficients;  // c, a, b of each update
    const uint8_t* noisy;       // whether an update has noise at all
    double mean;
    uint64_t seed, draw, sample_offset, purpose;
    const int64_t *seeds, *ids;
    int64_t seed_stride;
    // After every draw whose number plus one divides by `every`, the state goes to the next of (frames, batch, features);
    // 0: none are kept.
    int64_t every;
    float* frames;
};

struct Operand {
    char* data;
    int64_t dtype;
    int64_t stride[kMaxRank];  // elements
};

struct Plan {
    Common common;
    Address address;
    Update update;
    Draws noise;
    Dsm dsm;
    SampleNorms norms;
    int64_t kind, wide;
    // Dimensions that all operands can walk together are merged; flat positions count in logical row-major order.
    int64_t rank, size[kMaxRank];
    int64_t batch, elements;
    // A chunk is `rows` whole samples, or one of the `pieces` of a sample, each of `span` elements.
    int64_t rows, span, pieces, chunks;
    bool draws, mixed;
    Operand operand[kOperands];
};

constexpr int64_t kChunk = 512;  // elements worked on at a time: a few buffers of them fit the first-level cache
constexpr int64_t kMlpFeatures = 32, kMlpWidth = 128;  // the largest sizes of a perceptron's chains
constexpr int64_t kLongestSegment = 1024;
constexpr int64_t kLarge = 1 << 22;  // elements of a result that no cache would keep until it is read
constexpr int64_t kFewSamples = 1024;  // up to so many are sorted by level without scratch

// What one instruction set offers.
struct Kernels {
    const char* name;
    int lanes;
    void (*update)(const Plan& plan, int64_t first_chunk, int64_t last_chunk);
    void (*dsm)(const Plan& plan, int64_t first_chunk, int64_t last_chunk);
    void (*normalise)(const NormalisationRequest& request, NormalisationPass pass, int64_t first, int64_t last);
    void (*add_elu)(const AddEluRequest& request, int64_t first_block, int64_t last_block);
    void (*mixture_score)(const MixtureRequest& request, int64_t first_block, int64_t last_block);
    void (*mixture_chain)(const ChainRequest& request, int64_t first_block, int64_t last_block);
    void (*mlp_chain)(const MlpRequest& request, int64_t first_block, int64_t last_block);
    void (*activate)(int64_t activation, const float* y, int64_t count, float* values);
    void (*elu)(const float* y, int64_t count, float* values, float* slopes);
    void (*polar)(const uint32_t* words, int64_t count, float* radius, float* cosine, float* sine);
};
