// Runs of one dtype at any stride to and from the compute type, each value rounded once to nearest even.
#pragma once

namespace {

struct Half {
    uint16_t bits;
};
struct Bfloat {
    uint16_t bits;
};

FL_INLINE float as_float(uint32_t bits) {
    float x;
    memcpy(&x, &bits, sizeof x);
    return x;
}
FL_INLINE uint32_t as_bits(float x) {
    uint32_t bits;
    memcpy(&bits, &x, sizeof bits);
    return bits;
}

FL_INLINE float widen(float x) { return x; }
FL_INLINE double widen(double x) { return x; }
FL_INLINE float widen(Bfloat x) { return as_float((uint32_t)x.bits << 16); }
FL_INLINE float widen(Half x) {
    const uint32_t magnitude = (uint32_t)(x.bits & 0x7FFF) << 13;
    const uint32_t scaled = as_bits(as_float(magnitude) * 0x1p112f);  // exact, subnormals too
    const uint32_t bits = magnitude >= 0x0F800000u ? magnitude | 0x7F800000u : scaled;
    return as_float(bits | (uint32_t)(x.bits & 0x8000) << 16);
}

FL_INLINE void narrow(float x, float& to) { to = x; }
FL_INLINE void narrow(double x, double& to) { to = x; }
FL_INLINE void narrow(float x, Bfloat& to) {
    const uint32_t bits = as_bits(x);
    const uint32_t rounded = (bits + 0x7FFFu + (bits >> 16 & 1)) >> 16;
    to.bits = (uint16_t)((bits & 0x7FFFFFFFu) > 0x7F800000u ? 0x7FC0u : rounded);
}
FL_INLINE void narrow(float x, Half& to) {
    const uint32_t bits = as_bits(x), magnitude = bits & 0x7FFFFFFFu;
    // Adding 1/2 puts the last place of a subnormal half at the last place of the sum.
    const uint32_t small = as_bits(as_float(magnitude) + 0.5f) - 0x3F000000u;
    const uint32_t normal = (magnitude - 0x38000000u + 0xFFFu + (magnitude >> 13 & 1)) >> 13;
    uint32_t half = magnitude < 0x38800000u ? small : normal;
    half = magnitude >= 0x47800000u ? 0x7C00u : half;
    half = magnitude > 0x7F800000u ? 0x7E00u : half;
    to.bits = (uint16_t)(half | (bits >> 16 & 0x8000u));
}

template <class C, class T>
FL_INLINE void read_run(C* to, const T* from, int64_t stride, int64_t n) {
    if (stride == 1)
        for (int64_t i = 0; i < n; ++i) to[i] = (C)widen(from[i]);
    else
        for (int64_t i = 0; i < n; ++i) to[i] = (C)widen(from[i * stride]);
}
template <class C, class T>
FL_INLINE void write_run(T* to, const C* from, int64_t stride, int64_t n) {
    if (stride == 1)
        for (int64_t i = 0; i < n; ++i) narrow(from[i], to[i]);
    else
        for (int64_t i = 0; i < n; ++i) narrow(from[i], to[i * stride]);
}

#ifdef FL_HALF_LANES
FL_INLINE void read_run(float* to, const Half* from, int64_t stride, int64_t n) {
    int64_t i = 0;
    if (stride == 1)
        for (; i + FL_HALF_LANES <= n; i += FL_HALF_LANES) store(to + i, widen_half(&from[i].bits));
    for (; i < n; ++i) to[i] = widen(from[i * stride]);
}
FL_INLINE void write_run(Half* to, const float* from, int64_t stride, int64_t n) {
    int64_t i = 0;
    if (stride == 1)
        for (; i + FL_HALF_LANES <= n; i += FL_HALF_LANES) narrow_half(&to[i].bits, load(from + i));
    for (; i < n; ++i) narrow(from[i], to[i * stride]);
}
#endif

// The flat range [flat, flat + n) of an operand as runs: body(done, offset, stride, length), in elements.
template <class Body>
FL_INLINE void each_run(const Plan& plan, const Operand& operand, int64_t flat, int64_t n, const Body& body) {
    const int64_t inner = plan.rank - 1;
    int64_t index[kMaxRank], offset = 0;
    for (int64_t d = inner; d > 0; --d) {
        index[d] = flat % plan.size[d];
        flat /= plan.size[d];
        offset += index[d] * operand.stride[d];
    }
    index[0] = flat;
    offset += flat * operand.stride[0];
    for (int64_t done = 0;;) {
        const int64_t left = plan.size[inner] - index[inner];
        const int64_t length = left < n - done ? left : n - done;
        body(done, offset, operand.stride[inner], length);
        done += length;
        if (done == n) return;
        index[inner] += length;
        offset += length * operand.stride[inner];
        for (int64_t d = inner; d > 0 && index[d] == plan.size[d]; --d) {
            index[d] = 0;
            ++index[d - 1];
            offset += operand.stride[d - 1] - plan.size[d] * operand.stride[d];
        }
    }
}

template <class C>
void gather(const Plan& plan, const Operand& operand, int64_t flat, int64_t n, C* to) {
    const auto read = [&](auto* from) {
        each_run(plan, operand, flat, n, [&](int64_t done, int64_t offset, int64_t stride, int64_t length) {
            read_run(to + done, from + offset, stride, length);
        });
    };
    switch (operand.dtype) {
        case kFloat32: return read(reinterpret_cast<const float*>(operand.data));
        case kFloat16: return read(reinterpret_cast<const Half*>(operand.data));
        case kBfloat16: return read(reinterpret_cast<const Bfloat*>(operand.data));
        case kFloat64: return read(reinterpret_cast<const double*>(operand.data));
    }
}

inline void gather_mask(const Plan& plan, int64_t flat, int64_t n, uint8_t* to) {
    const Operand& operand = plan.operand[kMask];
    each_run(plan, operand, flat, n, [&](int64_t done, int64_t offset, int64_t stride, int64_t length) {
        for (int64_t i = 0; i < length; ++i) to[done + i] = (uint8_t)(operand.data[offset + i * stride] != 0);
    });
}

inline void scatter(const Plan& plan, int64_t flat, int64_t n, const double* from) {
    const Operand& operand = plan.operand[kOut];
    each_run(plan, operand, flat, n, [&](int64_t done, int64_t offset, int64_t stride, int64_t length) {
        write_run(reinterpret_cast<double*>(operand.data) + offset, from + done, stride, length);
    });
}

inline void scatter(const Plan& plan, int64_t flat, int64_t n, const float* from) {
    const Operand& operand = plan.operand[kOut];
    const auto write = [&](auto* to) {
        each_run(plan, operand, flat, n, [&](int64_t done, int64_t offset, int64_t stride, int64_t length) {
            write_run(to + offset, from + done, stride, length);
        });
    };
    switch (operand.dtype) {
        case kFloat32: return write(reinterpret_cast<float*>(operand.data));
        case kFloat16: return write(reinterpret_cast<Half*>(operand.data));
        case kBfloat16: return write(reinterpret_cast<Bfloat*>(operand.data));
    }
}

}  // namespace
