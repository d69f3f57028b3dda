// How the normalisations walk through a tensor, contiguous or channels_last.
#pragma once

namespace {

// One channel's plane, or up to 32 neighbouring channels of a sample in channels_last: blocks of 32 pixels, or pixels
// that are blocks of so many channels.
template <class C, bool kLast>
struct Unit {
    int64_t sample, channel, width, at, first, step, blocks, elements;

    Unit(const NormalisationRequest& r, int64_t index) {
        const int64_t units = kLast ? (r.channels + kBlock - 1) / kBlock : r.channels;
        sample = index / units;
        channel = index % units * (kLast ? kBlock : 1);
        width = !kLast ? 1 : r.channels - channel < kBlock ? r.channels - channel : kBlock;
        at = sample * r.channels + channel;
        first = kLast ? sample * r.channels * r.pixels + channel : at * r.pixels;
        step = kLast ? r.channels : kBlock;
        blocks = kLast ? r.pixels : (r.pixels + kBlock - 1) / kBlock;
        elements = r.pixels;
    }
    int64_t offset(int64_t block) const { return first + block * step; }
    int64_t count(int64_t block) const {
        if (kLast) return width;
        return block + 1 < blocks ? kBlock : elements - block * kBlock;
    }
    // number(i) for the unit's channel i, as a block takes it.
    template <class Number>
    inline auto spread(const Number& number) const {
        if constexpr (kLast) {
            Each<C> each;
            for (int64_t i = 0; i < kBlock; ++i) each.values[i] = i < width ? number(i) : (C)0;
            return each;
        } else {
            return Same<C>{Vector<C>{} + number(0)};
        }
    }
    // The sums of each channel from those of each place of a block.
    static void gather(double* totals) {
        if (!kLast) totals[0] = fold<kBlock>(totals);
    }
};

}  // namespace
