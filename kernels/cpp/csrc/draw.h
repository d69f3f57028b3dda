// The noise of one chunk: values of a piece of a sample, or of a few whole samples, into a buffer.
#pragma once

namespace {

struct Store {
    float* to;
    inline __attribute__((always_inline)) void operator()(int64_t at, F z0, F z1, F z2, F z3) const {
        store(to + at, z0);
        store(to + at + kLanes, z1);
        store(to + at + 2 * kLanes, z2);
        store(to + at + 3 * kLanes, z3);
    }
};

// The address of noise of a plan, sample by sample; the key's words are made again only when the seed changes.
struct Source {
    const Plan& plan;
    uint32_t draw;
    uint64_t key;
    bool has_key = false;
    Stream stream;

    explicit Source(const Plan& p)
        : plan(p), draw((uint32_t)(p.address.draw_at ? (uint64_t)*p.address.draw_at : p.common.draw)) {}

    uint64_t seed(int64_t row) const {
        const Address& at = plan.address;
        return at.seeds ? (uint64_t)at.seeds[row * at.seed_stride] : plan.common.seed;
    }
    uint64_t sample(int64_t row) const {
        return plan.address.ids ? (uint64_t)plan.address.ids[row] : plan.common.sample_offset + (uint64_t)row;
    }
    static uint32_t top(uint64_t id, uint64_t purpose) {
        return (uint32_t)(id >> 32 & 0x00FFFFFFu) | (uint32_t)purpose << 24;
    }

    void select_row(int64_t row) {
        const uint64_t wanted = seed(row), id = sample(row);
        if (!has_key || wanted != key) {
            stream.set_key(wanted);
            key = wanted;
            has_key = true;
        }
        stream.set_counter(wanted, (uint32_t)id, draw, top(id, plan.common.purpose));
    }
};

// Whole groups: up to kGroup - 1 values past `n` are written.
template <class Values>
void fill(const Source& source, int64_t block, int64_t n, float* to) {
    generate<Values>(source.stream, (uint32_t)block, (n + kGroup - 1) / kGroup, Store{to});
}

// Rows too short for a group each: the blocks of all of them side by side, then packed to `elements` a row.
template <class Values>
void fill_mixed(const Source& source, int64_t first_row, int64_t rows, float* to) {
    const int64_t elements = source.plan.elements, blocks = (elements + 3) / 4, count = rows * blocks;
    const int64_t groups = (count + kLanes - 1) / kLanes;
    alignas(64) uint64_t lanes[5 * (kChunk / 4 + kLanes)];
    memset(lanes + (groups - 1) * 5 * kLanes, 0, 5 * kLanes * sizeof *lanes);
    int lane_of[kLanes];
    for (int i = 0; i < kLanes / 2; ++i) {
        lane_of[lane_block(i)] = i;
        lane_of[lane_block(i) + kLanes / 2] = i + kLanes / 2;
    }
    for (int64_t row = 0, at = 0; row < rows; ++row) {
        const uint64_t key = source.seed(first_row + row), id = source.sample(first_row + row);
        const uint32_t c3 = source.top(id, source.plan.common.purpose);
        for (int64_t block = 0; block < blocks; ++block, ++at) {
            uint64_t* lane = lanes + at / kLanes * 5 * kLanes + lane_of[at % kLanes];
            lane[0] = (uint64_t)block;
            lane[kLanes] = id;  // the high half of a lane is never read
            lane[2 * kLanes] = c3;
            lane[3 * kLanes] = key;
            lane[4 * kLanes] = key >> 32;
        }
    }
    generate_mixed<Values>(lanes, source.draw, groups, Store{to});
    if (elements % 4 != 0)
        for (int64_t row = 1; row < rows; ++row)
            memmove(to + row * elements, to + row * 4 * blocks, elements * sizeof *to);
}

// The values of a range, in flat order.
template <class Values>
void draw(Source& source, const Range& range, float* to) {
    if (source.plan.mixed) return fill_mixed<Values>(source, range.row, range.rows, to);
    const int64_t each = range.rows == 1 ? range.n : source.plan.elements;
    for (int64_t i = 0; i < range.rows; ++i) {  // what a row writes past its end, the next one overwrites
        source.select_row(range.row + i);
        fill<Values>(source, range.first / 4, each, to + i * each);
    }
}

}  // namespace
