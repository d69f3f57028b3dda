// The sum of an update's terms and its noise over a range: a_0 s_0 + a_1 s_1 + ... + b z, left to right.
//
// Every element is read before it is written, at its own place alone, so the result may be any of the slots.
#pragma once

namespace {

// The terms over a range: where slots and factors lie, or the number that a factor is.
template <class C>
struct Terms {
    const C* slot[kTerms];
    const C* each[kTerms + 1];  // factors element by element, the last that of the noise
    C one[kTerms + 1];
};

// The slots as the arguments of a loop: taken from an array inside of it, the compiler would read them anew.
template <int kCount, bool kEach, bool kNoise, class C>
void add_up(C* out, const Terms<C>& terms, const C* z, int64_t n) {
    const auto [s0, s1, s2, s3, s4, s5] = terms.slot;
    const auto [e0, e1, e2, e3, e4, e5, eb] = terms.each;
    const auto [a0, a1, a2, a3, a4, a5, b] = terms.one;
#if defined(__GNUC__) && !defined(__clang__)
#pragma GCC ivdep
#endif
    for (int64_t i = 0; i < n; ++i) {
        C sum = (kEach ? e0[i] : a0) * s0[i];
        if constexpr (kCount > 1) sum = sum + (kEach ? e1[i] : a1) * s1[i];
        if constexpr (kCount > 2) sum = sum + (kEach ? e2[i] : a2) * s2[i];
        if constexpr (kCount > 3) sum = sum + (kEach ? e3[i] : a3) * s3[i];
        if constexpr (kCount > 4) sum = sum + (kEach ? e4[i] : a4) * s4[i];
        if constexpr (kCount > 5) sum = sum + (kEach ? e5[i] : a5) * s5[i];
        if constexpr (kNoise) sum = sum + (kEach ? eb[i] : b) * z[i];
        out[i] = sum;
    }
}

template <int kCount, class C>
void add_up(C* out, const Terms<C>& terms, const C* z, int64_t n, bool each) {
    if (each)
        z ? add_up<kCount, true, true>(out, terms, z, n) : add_up<kCount, true, false>(out, terms, z, n);
    else
        z ? add_up<kCount, false, true>(out, terms, z, n) : add_up<kCount, false, false>(out, terms, z, n);
}

template <class C>
void add_up(C* out, const Terms<C>& terms, int64_t count, const C* z, int64_t n, bool each) {
    switch (count) {
        case 1: return add_up<1>(out, terms, z, n, each);
        case 2: return add_up<2>(out, terms, z, n, each);
        case 3: return add_up<3>(out, terms, z, n, each);
        case 4: return add_up<4>(out, terms, z, n, each);
        case 5: return add_up<5>(out, terms, z, n, each);
        default: return add_up<6>(out, terms, z, n, each);
    }
}

// The same with noise and one number a factor, whose result goes past the caches.
template <int kCount>
void stream_up(float* out, const Terms<float>& terms, const float* z, int64_t n) {
    const float* const* slot = terms.slot;
    const float* const a = terms.one;
    for (int64_t i = 0; i < n; i += kLanes) {
        F sum = a[0] == 1.0f ? load(slot[0] + i) : a[0] * load(slot[0] + i);
        for (int t = 1; t < kCount; ++t) sum = sum + a[t] * load(slot[t] + i);
        stream(out + i, sum + a[kTerms] * load(z + i));
    }
}

inline void stream_up(float* out, const Terms<float>& terms, int64_t count, const float* z, int64_t n) {
    switch (count) {
        case 1: return stream_up<1>(out, terms, z, n);
        case 2: return stream_up<2>(out, terms, z, n);
        case 3: return stream_up<3>(out, terms, z, n);
        case 4: return stream_up<4>(out, terms, z, n);
        case 5: return stream_up<5>(out, terms, z, n);
        default: return stream_up<6>(out, terms, z, n);
    }
}

}  // namespace
