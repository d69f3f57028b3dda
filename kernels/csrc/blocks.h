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
struct Block {
    Vector<C> at[kVectors<C>];
};

// `count` elements, the rest being `pad`.
template <class C, class T>
FL_INLINE Block<C> load_block(const T* from, int64_t count, C pad) {
    alignas(64) C buffer[kBlock];
    const C* data = buffer;
    if (sizeof(T) == sizeof(C) && count == kBlock) {
        data = reinterpret_cast<const C*>(from);
    } else if (count == kBlock) {
        read_run(buffer, from, 1, kBlock);
    } else {
        for (int64_t i = 0; i < kBlock; ++i) buffer[i] = pad;
        read_run(buffer, from, 1, count);
    }
    Block<C> block;
    for (int j = 0; j < kVectors<C>; ++j) memcpy(&block.at[j], data + j * (kBlock / kVectors<C>), sizeof(F));
    return block;
}

template <class C, class T>
FL_INLINE void store_block(T* to, int64_t count, const Block<C>& block) {
    alignas(64) C buffer[kBlock];
    const bool direct = sizeof(T) == sizeof(C) && count == kBlock;
    C* const data = direct ? reinterpret_cast<C*>(to) : buffer;
    for (int j = 0; j < kVectors<C>; ++j) memcpy(data + j * (kBlock / kVectors<C>), &block.at[j], sizeof(F));
    if (direct) return;
    if (count == kBlock)
        write_run(to, buffer, 1, kBlock);
    else
        write_run(to, buffer, 1, count);
}

// A number for each element of a block: one for all, or one for each place.
template <class C>
struct Same {
    Vector<C> value;
    Vector<C> operator[](int) const { return value; }
};
template <class C>
struct Each {
    Block<C> values;
    Vector<C> operator[](int j) const { return values.at[j]; }
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
            for (int j = 0; j < kVectors<C>; ++j)
                memcpy(values + j * (kBlock / kVectors<C>), &sums[s].at[j], sizeof(F));
            for (int i = 0; i < kBlock; ++i) totals[s][i] += (double)values[i];
        }
    }
}

}  // namespace
