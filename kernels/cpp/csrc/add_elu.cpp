// The sum of up to three tensors and its ELU.
//
// 12 bytes an fp32 element for two terms, 16 where the sum is kept. Rounded after each addition, as tensors of the partial
// sums would be.
#include "instruction_set.h"

#include "convert.h"
#include "expm1.h"
#include "blocks.h"

namespace {

template <class C, class T>
void run(const AddEluRequest& r, int64_t first, int64_t last) {
    const T* const terms[] = {static_cast<const T*>(r.terms[0]), static_cast<const T*>(r.terms[1]),
                              static_cast<const T*>(r.terms[2])};
    T *const total = static_cast<T*>(r.total), *const out = static_cast<T*>(r.out);
    alignas(64) C sum[kBlock], buffers[2][kBlock];
    T rounded[kBlock];
    for (int64_t block = first; block < last; ++block) {
        const int64_t at = block * kBlock, count = r.count - at < kBlock ? r.count - at : kBlock;
        const C* values = read_block(terms[0] + at, count, (C)0, sum);
        for (int term = 1; term < 3 && terms[term]; ++term) {
            const C* const more = read_block(terms[term] + at, count, (C)0, buffers[0]);
            for (int j = 0; j < kVectors<C>; ++j) put_vector(sum, j, vector_at(values, j) + vector_at(more, j));
            if (sizeof(T) != sizeof(C)) {
                write_run(rounded, sum, 1, kBlock);
                read_run(sum, rounded, 1, kBlock);
            }
            values = sum;
        }
        if (total) {
            if (count == kBlock && sizeof(T) == sizeof(C))
                memcpy(total + at, values, sizeof sum);
            else
                write_run(total + at, values, 1, count);
        }
        C* const to = place_block(out + at, count, buffers[1]);
        for (int j = 0; j < kVectors<C>; ++j) put_vector(to, j, elu(vector_at(values, j)));
        write_block(out + at, count, to);
    }
}

}  // namespace

void FL_SET::add_elu(const AddEluRequest& request, int64_t first, int64_t last) {
    switch (request.dtype) {
        case kFloat32: return run<float, float>(request, first, last);
        case kFloat16: return run<float, Half>(request, first, last);
        case kBfloat16: return run<float, Bfloat>(request, first, last);
        case kFloat64: return run<double, double>(request, first, last);
    }
}
