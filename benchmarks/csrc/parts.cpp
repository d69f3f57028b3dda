// Parts of the update, alone, for benchmarks/cycles.py: compiled once for each instruction set from the kernels' own
// headers and flags. Each part reads and writes buffers that the first-level cache holds, `times` over.
#include "instruction_set.h"

#include "convert.h"
#include "normal.h"
#include "philox.h"
#include "operands.h"
#include "draw.h"

namespace {

constexpr int64_t kGroups = kChunk / kGroup;

struct Buffers {
    alignas(64) uint32_t words[kChunk + 64];
    alignas(64) float values[kChunk + 64], x[kChunk], score[kChunk], out[kChunk];
} b;

// The compiler must not see that a part is done `times` over with the same operands.
FL_INLINE void forget() { __asm__ __volatile__("" ::: "memory"); }

template <class Part>
FL_INLINE void over_words(const Part& part) {
    for (int64_t i = 0; i < kChunk; i += kLanes) {
        I word;
        memcpy(&word, b.words + i, sizeof word);
        part(word, b.values + i);
    }
}

}  // namespace

extern "C" {
__attribute__((visibility("default"))) int64_t elements() { return kChunk; }

// Of the last turn.
__attribute__((visibility("default"))) const float* values() { return b.values; }

// Operations that wait for each other: a cycle each.
__attribute__((visibility("default"))) uint64_t chain(int64_t times) {
    uint64_t value = 1;
    for (int64_t i = 0; i < times; ++i) {
        uint64_t key = (uint64_t)i;
        for (int turn = 0; turn < 4; ++turn) {
            __asm__ __volatile__("" : "+r"(key));
            value ^= key;
            __asm__ __volatile__("" : "+r"(value));
        }
    }
    return value;
}

__attribute__((visibility("default"))) void part(int64_t which, int64_t times) {
    Stream stream;
    stream.set_key(7);
    stream.set_counter(7, 1, 2, 1u << 24);
    for (int64_t i = 0; i < kChunk; ++i) b.words[i] = (uint32_t)(i + 1) * 0x9E3779B9u;
    for (int64_t i = 0; i < kChunk; ++i) b.x[i] = b.score[i] = (float)i, b.values[i] = 1.0f;
    for (int64_t t = 0; t < times; ++t) {
        forget();
        switch (which) {
            case 0:  // words by Philox
                generate_words(stream, first_blocks((uint32_t)t), kGroups, b.words);
                break;
            case 1:  // radii
                over_words([](I word, float* to) { store(to, radius(word)); });
                break;
            case 2:  // cosines and sines: of every second word
                for (int64_t i = 0; i < kChunk; i += 2 * kLanes) {
                    I word;
                    memcpy(&word, b.words + i, sizeof word);
                    F cosine, sine;
                    cos_sin(word, cosine, sine);
                    store(b.values + i, cosine);
                    store(b.values + i + kLanes, sine);
                }
                break;
            case 3:  // normals of words that are there: two radii, two angles, four products, the transpose
                for (int64_t i = 0; i < kChunk; i += kGroup) {
                    I w[4];
                    memcpy(w, b.words + i, sizeof w);
                    F z0, z1, z2, z3;
                    Normal::apply(w[0], w[1], w[2], w[3], z0, z1, z2, z3);
                    Store{b.values}(i, z0, z1, z2, z3);
                }
                break;
            case 4:  // normals, words and all, as the kernels make them
                generate<Normal>(stream, (uint32_t)t, kGroups, Store{b.values});
                break;
            case 5:  // the update of normals that are there
                for (int64_t i = 0; i < kChunk; ++i) b.out[i] = (b.x[i] + 0.1f * b.score[i]) + 0.2f * b.values[i];
                break;
            default:  // both
                generate<Normal>(stream, (uint32_t)t, kGroups, Store{b.values});
                for (int64_t i = 0; i < kChunk; ++i) b.out[i] = (b.x[i] + 0.1f * b.score[i]) + 0.2f * b.values[i];
        }
        forget();
    }
}
}
