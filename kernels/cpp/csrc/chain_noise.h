// The noise of kLanes chains side by side, one a lane, at one draw: each of their blocks of Philox has another sample id.
//
// Where the chains share a seed, only c1 differs between them: with it half of the first four rounds is the same for all
// and done once, and of a block whose last two words nobody wants the last two rounds are halved: 15 multiplies are left
// of 20.
#pragma once

namespace {

struct ChainAddress {
    // Of the 64-bit lanes a and b whose low words are brought together by low_words: lane l of the result is lane
    // l / 4 * 2 + l % 2 of a where l % 4 < 2, else of b.
    alignas(64) uint64_t id[kLanes], top[kLanes], key0[kLanes], key1[kLanes];
    bool alike;
    uint64_t k0[10], k1[10];  // where the chains are alike

    FL_INLINE int place(int lane) { return lane / 4 * 2 + lane % 2 + (lane % 4 < 2 ? 0 : kLanes / 2); }

    template <class Request>
    ChainAddress(const Request& request, int64_t first) {
        alike = true;
        for (int lane = 0; lane < kLanes; ++lane) {
            const int64_t last = request.batch - 1, chain = first + lane < last ? first + lane : last;
            const uint64_t sample = request.ids ? (uint64_t)request.ids[chain] : request.sample_offset + (uint64_t)chain;
            const uint64_t seed = request.seeds ? (uint64_t)request.seeds[chain * request.seed_stride] : request.seed;
            const int at = place(lane);
            id[at] = sample & 0xFFFFFFFFu;
            top[at] = (sample >> 32 & 0x00FFFFFFu) | request.purpose << 24;
            key0[at] = seed & 0xFFFFFFFFu;
            key1[at] = seed >> 32;
            const int begin = place(0);
            alike = alike && top[at] == top[begin] && key0[at] == key0[begin] && key1[at] == key1[begin];
        }
        for (int round = 0; round < 10; ++round) {
            k0[round] = Stream::key0((uint32_t)key0[0], round);
            k1[round] = Stream::key1((uint32_t)key1[0], round);
        }
    }

    FL_INLINE W wide(uint64_t value) { return W{} + value; }

    FL_INLINE State begin(W id, uint32_t block, uint32_t draw, const ChainAddress& at) {
        const W m0 = spread(kMultiplier0), m1 = spread(kMultiplier1);
        const uint32_t k0[] = {(uint32_t)at.k0[0], (uint32_t)at.k0[1], (uint32_t)at.k0[2]};
        const uint32_t k1[] = {(uint32_t)at.k1[0], (uint32_t)at.k1[1], (uint32_t)at.k1[2], (uint32_t)at.k1[3]};
        const uint64_t p0 = (uint64_t)block * kMultiplier0, p1 = (uint64_t)draw * kMultiplier1;
        const uint32_t n2 = (uint32_t)(p0 >> 32) ^ (uint32_t)at.top[0] ^ k1[0];
        const uint64_t q1 = (uint64_t)n2 * kMultiplier1;
        const uint64_t r0 = (uint64_t)((uint32_t)(q1 >> 32) ^ (uint32_t)p1 ^ k0[1]) * kMultiplier0;
        const W q0 = multiply(id ^ spread((uint32_t)(p1 >> 32) ^ k0[0]), m0);
        const W r1 = multiply(high(q0) ^ spread((uint32_t)p0 ^ k1[1]), m1);
        const W s0 = multiply(high(r1) ^ spread((uint32_t)q1 ^ k0[2]), m0);
        const W s1 = multiply(q0 ^ spread((uint32_t)(r0 >> 32) ^ k1[2]), m1);
        return {exclusive_or(high(s1), r1, wide(at.k0[3])), s1, high(s0) ^ spread((uint32_t)r0 ^ k1[3]), s0};
    }

    FL_INLINE void words_alike(const ChainAddress& at, uint32_t block, uint32_t draw, I (&w)[4]) {
        State a = begin(load_words(at.id), block, draw, at);
        State b = begin(load_words(at.id + kLanes / 2), block, draw, at);
        for (int round = 4; round < 9; ++round) {
            State::round(a, wide(at.k0[round]), wide(at.k1[round]));
            State::round(b, wide(at.k0[round]), wide(at.k1[round]));
        }
        State::finish(a, b, wide(at.k0[9]), wide(at.k1[9]), w);
    }

    static FL_NOINLINE void words_apart(const ChainAddress& at, uint32_t block, uint32_t draw, I (&w)[4]) {
        State v[2];
        for (int half = 0; half < 2; ++half) {
            const int from = half * kLanes / 2;
            W k0 = load_words(at.key0 + from), k1 = load_words(at.key1 + from);
            v[half] = {spread(block), load_words(at.id + from), spread(draw), load_words(at.top + from)};
            for (int round = 0; round < 10; ++round) {
                State::round(v[half], k0, k1);
                k0 = k0 + (uint64_t)kWeyl0;
                k1 = k1 + (uint64_t)kWeyl1;
            }
        }
        w[0] = low_words(v[0].c0, v[1].c0);
        w[1] = low_words(v[0].c1, v[1].c1);
        w[2] = low_words(v[0].c2, v[1].c2);
        w[3] = low_words(v[0].c3, v[1].c3);
    }

    // The first `count` normals of a block, of up to four.
    FL_INLINE void normals(const ChainAddress& at, uint32_t block, uint32_t draw, int64_t count, F* z) {
        I w[4];
        if (at.alike)
            words_alike(at, block, draw, w);
        else
            words_apart(at, block, draw, w);
        F cosine, sine;
        cos_sin(w[1], cosine, sine);
        const F first = radius(w[0]);
        z[0] = first * cosine;
        if (count > 1) z[1] = first * sine;
        if (count < 3) return;
        cos_sin(w[3], cosine, sine);
        const F second = radius(w[2]);
        z[2] = second * cosine;
        if (count > 3) z[3] = second * sine;
    }
};

}  // namespace
