// ELU and its derivative: y and 1 where y > 0, else exp(y) - 1 and exp(y). Without fma, so that every instruction set
// gives the same bits.
//
// With k = round(y / ln 2) and r = y - k ln 2, |r| < 0.348: exp(y) = 2^k + 2^k p and exp(y) - 1 = 2^k p + (2^k - 1),
// where p = expm1(r) = r + r^2 Q(r) keeps the relative precision of a small y. Q is the minimax polynomial of degree 5,
// within 0.04 units of the last place; k ln 2 is exact in two parts. Over [-87, 0] the errors are at most
// 0.84 and 0.95 units of the last place. Below -87 exp(y) stays 2^-126.
#pragma once

namespace {

typedef double D __attribute__((vector_size(4 * FL_LANES)));

FL_INLINE void split(F y, F& power, F& p) {
    const F lowest = F{} - 87.0f;
    y = select((I)(y < lowest), lowest, y);        // a comparison, not a sign: a NaN goes on as it is
    const F shifted = y * 0x1.715476p+0f + 0x1.8p23f;  // the rounded quotient in its lowest bits
    const F k = shifted - 0x1.8p23f;
    const F r = (y - k * 0x1.62e000p-1f) - k * 0x1.0bfbe8p-15f;
    F q = r * 0x1.a032d4p-13f + 0x1.6d7348p-10f;
    q = q * r + 0x1.11118ap-7f;
    q = q * r + 0x1.5554b0p-5f;
    q = q * r + 0x1.555554p-3f;
    q = q * r + 0x1p-1f;
    p = r * r * q + r;
    power = (F)(((I)shifted + 127u) << 23);
}

FL_INLINE F elu(F y) {
    F power, p;
    split(y, power, p);
    return select((I)y, power * p + (power - 1.0f), y);
}
FL_INLINE F elu_slope(F y) {
    F power, p;
    split(y, power, p);
    return select((I)y, power * p + power, F{} + 1.0f);
}

FL_INLINE D elu(D y) {
    for (unsigned i = 0; i < sizeof y / sizeof(double); ++i) y[i] = y[i] > 0 ? y[i] : __builtin_expm1(y[i]);
    return y;
}
FL_INLINE D elu_slope(D y) {
    for (unsigned i = 0; i < sizeof y / sizeof(double); ++i) y[i] = y[i] > 0 ? 1 : __builtin_exp(y[i]);
    return y;
}

}  // namespace
