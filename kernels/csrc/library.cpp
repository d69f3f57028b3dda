// The plain C interface: picks the instruction set, makes the plan of a call and shares its chunks out.
#include <atomic>
#include <cstring>

#include "plan.h"
#include "pool.h"

#if defined(__x86_64__)
#include <xmmintrin.h>
#endif

#define FL_EXPORT extern "C" __attribute__((visibility("default")))

// Best first; the portable one runs anywhere.
#if defined(__x86_64__)
extern const Kernels fl_avx512, fl_avx2, fl_sse2;
#elif defined(__aarch64__)
extern const Kernels fl_neon;
#endif
extern const Kernels fl_portable;

namespace {

const Kernels* const kSets[] = {
#if defined(__x86_64__)
    &fl_avx512, &fl_avx2, &fl_sse2,
#elif defined(__aarch64__)
    &fl_neon,
#endif
    &fl_portable,
};
constexpr int kCount = sizeof kSets / sizeof *kSets;

bool runs_here(const Kernels* set) {
#if defined(__x86_64__)
    __builtin_cpu_init();
    if (set == &fl_avx512)
        return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512dq") &&
               __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512vl");
    if (set == &fl_avx2) return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("f16c");
#endif
    return set != nullptr;
}

const Kernels& best() {
    static std::atomic<int> known{-1};
    int index = known.load(std::memory_order_relaxed);
    if (index < 0) {
        index = 0;
        while (!runs_here(kSets[index])) ++index;
        known.store(index, std::memory_order_relaxed);
    }
    return *kSets[index];
}

// The default floating-point environment while it lives: the caller may flush subnormals or round elsewhere.
struct Environment {
#if defined(__x86_64__)
    unsigned saved = _mm_getcsr();
    Environment() { _mm_setcsr(0x1F80); }
    ~Environment() { _mm_setcsr(saved); }
#elif defined(__aarch64__)
    uint64_t saved;
    Environment() {
        asm volatile("mrs %0, fpcr" : "=r"(saved));
        asm volatile("msr fpcr, %0" : : "r"((uint64_t)0));
    }
    ~Environment() { asm volatile("msr fpcr, %0" : : "r"(saved)); }
#endif
};

struct Work {
    const Plan* plan;
    const Kernels* kernels;
};

void run(void* context, int64_t begin, int64_t end) {
    const Work& work = *static_cast<const Work*>(context);
    const Environment environment;
    work.kernels->run(*work.plan, begin, end);
}

// 8 us of work on one thread, about what waking another costs.
constexpr int64_t kGrain = 16384;
constexpr int64_t kSerialBelow = 2 * kGrain;

int execute(Plan& plan) {
    const int64_t set = plan.common.instruction_set;
    if (set >= kCount || (set >= 0 && !runs_here(kSets[set]))) return 1;
    const Kernels& kernels = set < 0 ? best() : *kSets[set];
    if (!plan.draws) {  // no sample boundaries to mind
        plan.elements *= plan.batch;
        plan.batch = 1;
    }
    if (plan.elements == 0 || plan.batch == 0) return 0;
    const int64_t blocks = (plan.elements + 3) / 4, groups = (blocks + kernels.lanes - 1) / kernels.lanes;
    // Side by side costs about 5/3 as much a block, but wastes none of a group.
    plan.mixed = plan.draws && 5 * blocks <= 3 * groups * kernels.lanes;
    plan.pieces = 1;
    if (plan.mixed) {
        plan.rows = kChunk / (4 * blocks);
        plan.span = plan.rows * plan.elements;
    } else if (plan.elements <= kChunk) {
        plan.rows = kChunk / plan.elements;
        plan.span = plan.rows * plan.elements;
    } else {
        plan.rows = 1;
        plan.span = kChunk;
        plan.pieces = (plan.elements + kChunk - 1) / kChunk;
    }
    plan.chunks = (plan.batch + plan.rows - 1) / plan.rows * plan.pieces;
    Work work{&plan, &kernels};
    if (plan.common.threads < 2 || plan.batch * plan.elements < kSerialBelow)
        run(&work, 0, plan.chunks);
    else
        parallel(plan.common.threads, plan.chunks, (kGrain + plan.span - 1) / plan.span, run, &work);
    return 0;
}

}  // namespace

FL_EXPORT int fl_step_plain(const PlainStep* request) {
    Plan plan;
    plan.common = request->common;
    plan.kind = kStep;
    plan.wide = 0;
    plan.seeds = plan.draw_at = plan.ids = nullptr;
    plan.seed_stride = 0;
    plan.rank = 1;
    plan.batch = request->batch;
    plan.elements = request->elements;
    plan.size[0] = plan.batch * plan.elements;
    plan.draws = request->common.has_b != 0;
    for (Operand& operand : plan.operand) operand.data = nullptr;
    const float* const data[] = {request->out, request->x, request->score};
    for (int i = 0; i < 3; ++i) {
        plan.operand[i].data = reinterpret_cast<char*>(const_cast<float*>(data[i]));
        plan.operand[i].dtype = kFloat32;
        plan.operand[i].stride[0] = 1;
    }
    return execute(plan);
}

FL_EXPORT int fl_run(const Request* request) {
    Plan plan;
    plan.common = request->common;
    plan.kind = request->kind;
    plan.wide = request->wide;
    plan.seeds = request->seeds;
    plan.draw_at = request->draw_at;
    plan.ids = request->ids;
    plan.seed_stride = request->seed_stride;
    plan.draws = plan.kind != kStep || (request->common.has_b && !request->operand[kNoise].data);

    const int64_t rank = request->rank;
    const int64_t* const sizes = request->tail;
    const int64_t* strides[kOperands];
    const int64_t* next = sizes + rank;
    for (int i = 0; i < kOperands; ++i) {
        plan.operand[i].data = static_cast<char*>(request->operand[i].data);
        plan.operand[i].dtype = request->operand[i].dtype;
        strides[i] = plan.operand[i].data ? next : nullptr;
        if (strides[i]) next += rank;
    }
    plan.batch = sizes[0];
    plan.elements = 1;
    for (int64_t d = 1; d < rank; ++d) plan.elements *= sizes[d];
    if (plan.batch == 0 || plan.elements == 0) return 0;

    plan.rank = 0;
    for (int64_t d = 0; d < rank; ++d) {
        if (sizes[d] == 1) continue;
        const int64_t last = plan.rank - 1;
        bool merge = last >= 0;
        for (int i = 0; merge && i < kOperands; ++i)
            merge = !strides[i] || plan.operand[i].stride[last] == strides[i][d] * sizes[d];
        const int64_t at = merge ? last : plan.rank++;
        plan.size[at] = merge ? plan.size[at] * sizes[d] : sizes[d];
        for (int i = 0; i < kOperands; ++i)
            if (strides[i]) plan.operand[i].stride[at] = strides[i][d];
    }
    if (plan.rank == 0) {
        plan.rank = 1;
        plan.size[0] = 1;
        for (Operand& operand : plan.operand) operand.stride[0] = 1;
    }
    return execute(plan);
}

FL_EXPORT int fl_polar(int64_t set, const uint32_t* words, int64_t count, float* radius, float* cosine, float* sine) {
    if (set >= kCount || (set >= 0 && !runs_here(kSets[set]))) return 1;
    const Environment environment;
    (set < 0 ? best() : *kSets[set]).polar(words, count, radius, cosine, sine);
    return 0;
}

// Name of set number `index`: null past the end, empty where this processor lacks it.
FL_EXPORT const char* fl_instruction_set(int64_t index) {
    if (index < 0 || index >= kCount) return nullptr;
    return runs_here(kSets[index]) ? kSets[index]->name : "";
}

FL_EXPORT const char* fl_source_hash() { return FL_SOURCE_HASH; }
