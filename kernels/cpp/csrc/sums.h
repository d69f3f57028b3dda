// Sums of squares, in the one order that reference/dsm.py writes down. What a segment or the
// lanes lack is zero there, and zero added to a square changes no bit: so a sum may have as many zeros as are handy.
#pragma once

#include <cstdint>
#include <cstring>

struct Plan;
void finish_sums(const Plan& plan);
void finish_sample_norms(const Plan& plan);

namespace {

constexpr int kSumLanes = 256;

// By halves: the upper half of a power of two of entries onto the lower, until one is left.
//
// The last sixteen are written with vectors of four: left to itself GCC takes them one by one, 50 instructions for 10.
template <int kCount, class C>
inline C fold(C* entries) {
    if constexpr (kCount == 16) {
        typedef C Four __attribute__((vector_size(4 * sizeof(C))));
        Four a, b, c, d;
        memcpy(&a, entries, sizeof a);
        memcpy(&b, entries + 4, sizeof b);
        memcpy(&c, entries + 8, sizeof c);
        memcpy(&d, entries + 12, sizeof d);
        a = (a + c) + (b + d);
        return (a[0] + a[2]) + (a[1] + a[3]);
    } else if constexpr (kCount > 1) {
        for (int i = 0; i < kCount / 2; ++i) entries[i] = entries[i] + entries[kCount / 2 + i];
        return fold<kCount / 2>(entries);
    }
    return entries[0];
}

inline float root(float x) { return __builtin_sqrtf(x); }
inline double root(double x) { return __builtin_sqrt(x); }

// How many of the 256 lanes are worth having: those further on stay zero.
inline int64_t lanes_for(int64_t count) { return count <= 8 ? 8 : count <= 64 ? 64 : kSumLanes; }

template <class C>
inline C fold_lanes(C* lanes, int64_t width) {
    return width == 8 ? fold<8>(lanes) : width == 64 ? fold<64>(lanes) : fold<kSumLanes>(lanes);
}

// 256 lanes, each of which takes its entries in turn, then the lanes by halves.
template <class C>
inline C across(const C* entries, int64_t count) {
    if (count == 1) return entries[0];
    alignas(64) C lanes[kSumLanes];
    const int64_t width = lanes_for(count);
    for (int64_t i = 0; i < width; ++i) lanes[i] = i < count ? entries[i] : 0;
    for (int64_t start = width; start < count; start += kSumLanes) {
        const int64_t n = count - start < kSumLanes ? count - start : kSumLanes;
        for (int64_t i = 0; i < n; ++i) lanes[i] = lanes[i] + entries[start + i];
    }
    return fold_lanes(lanes, width);
}

}  // namespace
