// The vector types, in the compilers' own vector extension (GCC and Clang), for FL_LANES 32-bit lanes.
//
// + - * ^ & | << >> are the language's operators on them; what has no operator is in the simd_*.h header of the
// instruction set: multiply, low_words, high_words, transpose, square_root, select, largest, any, exclusive_or, stream.
// largest(a, b) is b unless a > b, so also where one is NaN. any says whether the highest bit of some lane is set.
// multiply_add, fused where the set has that, is for what is nobody's stream.
//
// A group is FL_LANES blocks of Philox. Counters live in 64-bit lanes of two vectors, a and b, in an order such that
// low_words(a, b), which interleaves inside 128 bits, followed by the transpose of 4x4 inside 128 bits, leaves the
// 4 * FL_LANES values of the group in memory order: no shuffle crosses 128 bits. Lane i of a holds block
// (i / 2) + FL_LANES / 4 * (i % 2), and b holds those FL_LANES / 2 further on.
#pragma once

#include <cstdint>
#include <cstring>

#define FL_INLINE static inline __attribute__((always_inline))
// For loops that the registers of a large function would not suffice for.
#define FL_NOINLINE __attribute__((noinline))

namespace {

typedef float F __attribute__((vector_size(4 * FL_LANES)));
typedef uint32_t I __attribute__((vector_size(4 * FL_LANES)));
typedef int32_t S __attribute__((vector_size(4 * FL_LANES)));
typedef uint64_t W __attribute__((vector_size(4 * FL_LANES)));

constexpr int kLanes = FL_LANES;
constexpr int kGroup = 4 * FL_LANES;  // values a group makes

FL_INLINE constexpr int lane_block(int i) { return i / 2 + kLanes / 4 * (i % 2); }

FL_INLINE F load(const float* from) {
    F x;
    memcpy(&x, from, sizeof x);
    return x;
}
FL_INLINE void store(float* to, F x) { memcpy(to, &x, sizeof x); }
FL_INLINE F broadcast(float x) { return x - F{}; }  // a subtraction of zero, unlike an addition, is folded away

FL_INLINE W load_words(const uint64_t* from) {
    W x;
    memcpy(&x, from, sizeof x);
    return x;
}

FL_INLINE W spread(uint32_t value) { return W{} + (uint64_t)value; }
FL_INLINE W high(W x) { return x >> 32; }

// Signed 32-bit integer to fp32, rounded to nearest even.
FL_INLINE F to_float(I x) { return __builtin_convertvector((S)x, F); }

}  // namespace
