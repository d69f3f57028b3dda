// Blocks of 32 elements in the computing type: whole vectors of any instruction set, so that all sum in one order.
#pragma once

namespace {

constexpr int kBlock = 32;
constexpr int64_t kBlocksAtOnce = 16;  // added up before they go into a double

template <class C>
struct VectorOf;
template <>
struct VectorOf<float> {
    typedef F type;
};
template <>
struct VectorOf<double> {
    typedef D type;
};
template <class C>
using Vector = typename VectorOf<C>::type;
template <class C>
constexpr int kVectors = kBlock * sizeof(C) / sizeof(F);

template <class C>
constexpr int kPlaces = kBlock / kVectors<C>;  // of a vector

template <class C>
struct Block {
    Vector<C> at[kVectors<C>];
};

template <class C>
FL_INLINE Vector<C> vector_at(const C* values, int j) {
    Vector<C> x;
    memcpy(&x, values + j * kPlaces<C>, sizeof x);
    return x;
}
template <class C>
FL_INLINE void put_vector(C* values, int j, Vector<C> x) {
    memcpy(values + j * kPlaces<C>, &x, sizeof x);
}

// `count` elements where they lie, or in the buffer with `pad` behind them.
template <class C, class T>
FL_INLINE const C* read_block(const T* from, int64_t count, C pad, C* buffer) {
    if (sizeof(T) == sizeof(C) && count == kBlock) return reinterpret_cast<const C*>(from);
    if (count == kBlock) {
        read_run(buffer, from, 1, kBlock);
    } else {
        for (int64_t i = 0; i < kBlock; ++i) buffer[i] = pad;
        read_run(buffer, from, 1, count);
    }
    return buffer;
}

// Where a block is to be put before write_block: where it belongs, or the buffer.
template <class C, class T>
FL_INLINE C* place_block(T* to, int64_t count, C* buffer) {
    return sizeof(T) == sizeof(C) && count == kBlock ? reinterpret_cast<C*>(to) : buffer;
}
template <class C, class T>
FL_INLINE void write_block(T* to, int64_t count, const C* buffer) {
    if (count < kBlock)
        write_run(to, buffer, 1, count);
    else if (sizeof(T) != sizeof(C))
        write_run(to, buffer, 1, kBlock);
}

// A number for each element of a block: one for all, or one for each place.
template <class C>
struct Same {
    Vector<C> value;
    Vector<C> operator[](int) const { return value; }
};
template <class C>
struct Each {
    alignas(64) C values[kBlock];
    Vector<C> operator[](int j) const { return vector_at(values, j); }
};

// totals[s][i] = sum of place i of what body(block, sums) adds to sums[s].
template <int kSums, class C, class Body>
FL_INLINE void sum_blocks(int64_t count, double (*totals)[kBlock], const Body& body) {
    for (int s = 0; s < kSums; ++s)
        for (int i = 0; i < kBlock; ++i) totals[s][i] = 0;
    for (int64_t start = 0; start < count; start += kBlocksAtOnce) {
        const int64_t end = start + kBlocksAtOnce < count ? start + kBlocksAtOnce : count;
        Block<C> sums[kSums] = {};
        for (int64_t block = start; block < end; ++block) body(block, sums);
        for (int s = 0; s < kSums; ++s) {
            alignas(64) C values[kBlock];
            for (int j = 0; j < kVectors<C>; ++j) put_vector(values, j, sums[s].at[j]);
            for (int i = 0; i < kBlock; ++i) totals[s][i] += (double)values[i];
        }
    }
}

}  // namespace
