// The activations of small networks, in fp32. Nobody's stream: the sums may be fused, and instruction sets differ by
// roundings. Each acts on a lane alone, so a chain's bits do not depend on its neighbours.
//
// exp(y) = 2^k (1 + r + r^2 Q(r)) with k = round(y / ln 2): minimax, within 0.05 units of the last place before roundings.
// ln(1 + e) = s (2 + s^2 G(s^2)), s = e / (2 + e), for e in [0, 1]: minimax, within 0.08 units.
// With roundings, over all floats, in units of the last place of the result (tests/test_mlp_chain.py):
//
//     silu      3 above -87, and -1.4e-36 below
//     tanh      3
//     softplus  3 above -87, and 1.6e-38 below
//     elu       1 (expm1.h)
//     relu      0
#pragma once

namespace {

// e^y for y in [-87, 87].
FL_INLINE F exponential(F y) {
    const F shifted = multiply_add(y, broadcast(0x1.715476p+0f), broadcast(0x1.8p23f));  // the quotient in its lowest bits
    const F k = shifted - 0x1.8p23f;
    F r = multiply_add(k, broadcast(-0x1.62e400p-1f), y);  // exact: 17 bits of ln 2
    r = multiply_add(k, broadcast(-0x1.7f7d1cp-20f), r);
    F q = multiply_add(r, broadcast(0x1.6a2352p-10f), broadcast(0x1.123a6cp-7f));
    q = multiply_add(q, r, broadcast(0x1.5558f4p-5f));
    q = multiply_add(q, r, broadcast(0x1.555490p-3f));
    q = multiply_add(q, r, broadcast(0x1.fffffcp-2f));
    q = multiply_add(q, r, broadcast(1.0f));
    q = multiply_add(q, r, broadcast(1.0f));
    return (F)((I)q + ((I)shifted << 23));
}

FL_INLINE F magnitude(F y) { return (F)((I)y & 0x7FFFFFFFu); }

struct Silu {
    FL_INLINE F apply(F y) {
        y = largest(broadcast(-87.0f), y);
        return y / (1.0f + exponential(largest(broadcast(-87.0f), -y)));
    }
};
struct Elu {
    FL_INLINE F apply(F y) { return elu(y); }
};
struct Softplus {
    FL_INLINE F apply(F y) {
        const F e = exponential(largest(broadcast(-87.0f), -magnitude(y)));
        const F s = e / (2.0f + e), t = s * s;
        F g = multiply_add(t, broadcast(0x1.1ef870p-2f), broadcast(0x1.1eb612p-2f));
        g = multiply_add(g, t, broadcast(0x1.99d27cp-2f));
        g = multiply_add(g, t, broadcast(0x1.555500p-1f));
        const F tail = multiply_add(g * t, s, s + s);
        return largest(F{}, y) + tail;
    }
};
struct Relu {
    FL_INLINE F apply(F y) { return largest(F{}, y); }
};
// -expm1(-2|y|) / (2 + expm1(-2|y|)): expm1 keeps the relative precision of a small y.
struct Tanh {
    FL_INLINE F apply(F y) {
        F power, p;
        split(magnitude(y) * -2.0f, power, p);
        const F below = power * p + (power - 1.0f);
        return (F)((I)(-below / (2.0f + below)) | ((I)y & 0x80000000u));
    }
};

enum Activation : int64_t { kSilu, kElu, kSoftplus, kRelu, kTanh };

}  // namespace
