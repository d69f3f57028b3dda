// The plain C interface: picks the instruction set, makes the plan of a call and shares its chunks out.
#include <atomic>

#include "layout.h"
#include "pages.h"
#include "plan.h"
#include "pool.h"
#include "processor.h"
#include "sums.h"

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
    if (set == &fl_avx512) return level_here() >= kAvx512;
    if (set == &fl_avx2) return level_here() >= kAvx2;
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
    void (*run)(const Plan&, int64_t, int64_t);
};

void run(void* context, int64_t begin, int64_t end) {
    const Work& work = *static_cast<const Work*>(context);
    const Environment environment;
    work.run(*work.plan, begin, end);
}

// 8 us of work on one thread, about what waking another costs.
constexpr int64_t kGrain = 16384;
constexpr int64_t kSerialBelow = 2 * kGrain;
constexpr int64_t kHugePage = 1 << 19;  // 2 MiB of fp32

constexpr int64_t kBytes[] = {4, 2, 2, 8, 1};  // of a Dtype

int execute(Plan& plan) {
    const int64_t set = plan.common.instruction_set;
    if (set >= kCount || (set >= 0 && !runs_here(kSets[set]))) return 1;
    const Kernels& kernels = set < 0 ? best() : *kSets[set];
    const bool sums = plan.kind == kDsm || plan.kind == kNorms, denoises = sums || plan.kind == kPerturb;
    if (!plan.draws && !denoises && !plan.update.fault) {  // no sample boundaries to mind
        plan.elements *= plan.batch;
        plan.batch = 1;
    }
    if (plan.elements == 0 || plan.batch == 0) return 0;
    const Operand& out = plan.operand[kOut];
    const bool packed = plan.rank == 1 && out.stride[0] == 1;
    if (out.data && out.data != plan.operand[kX].data && packed && plan.batch * plan.elements >= kLarge)
        expect_writes(out.data, plan.batch * plan.elements * kBytes[out.dtype]);
    cut(plan, kernels.lanes, sums ? kLongestSegment : kChunk);
    Work work{&plan, denoises ? kernels.denoise : kernels.run};
    const int64_t threads = plan.common.threads, total = plan.batch * plan.elements;
    if (threads < 2 || total < kSerialBelow) {
        run(&work, 0, plan.chunks);
    } else {
        // Threads that share a new huge page wait for one of them to clear it: they get pages of their own.
        const int64_t fair = total / (4 * threads), grain = fair < kHugePage ? fair : kHugePage;
        parallel(threads, plan.chunks, ((grain > kGrain ? grain : kGrain) + plan.span - 1) / plan.span, run, &work);
    }
    if (plan.kind == kNorms || (plan.kind == kDsm && plan.denoising.values)) {
        const Environment environment;
        plan.kind == kNorms ? finish_norms(plan) : finish_sums(plan);
    }
    return 0;
}

struct NormWork {
    const NormRequest* request;
    void (*run)(const NormRequest&, NormPass, int64_t, int64_t);
    NormPass pass;
};

void run_norm(void* context, int64_t begin, int64_t end) {
    const NormWork& work = *static_cast<const NormWork*>(context);
    const Environment environment;
    work.run(*work.request, work.pass, begin, end);
}

struct AddEluWork {
    const AddEluRequest* request;
    void (*run)(const AddEluRequest&, int64_t, int64_t);
};

void run_add_elu(void* context, int64_t begin, int64_t end) {
    const AddEluWork& work = *static_cast<const AddEluWork*>(context);
    const Environment environment;
    work.run(*work.request, begin, end);
}

template <class Request>
struct BlockWork {
    const Request* request;
    void (*run)(const Request&, int64_t, int64_t);
};

template <class Request>
void run_blocks(void* context, int64_t begin, int64_t end) {
    const BlockWork<Request>& work = *static_cast<const BlockWork<Request>*>(context);
    const Environment environment;
    work.run(*work.request, begin, end);
}

// `work` is roughly how many operations a sample takes.
template <class Request>
int share_samples(const Request& request, void (*Kernels::*entry)(const Request&, int64_t, int64_t), int64_t work) {
    const int64_t set = request.instruction_set;
    if (set >= kCount || (set >= 0 && !runs_here(kSets[set]))) return 1;
    const Kernels& kernels = set < 0 ? best() : *kSets[set];
    BlockWork<Request> call{&request, kernels.*entry};
    const int64_t lanes = kChainVectors * kernels.lanes;
    const int64_t blocks = (request.batch + lanes - 1) / lanes, threads = request.threads;
    if (threads < 2 || request.batch * work < 64 * kSerialBelow) {
        run_blocks<Request>(&call, 0, blocks);
    } else {
        const int64_t fair = blocks / (16 * threads);
        parallel(threads, blocks, fair > 1 ? fair : 1, run_blocks<Request>, &call);
    }
    return 0;
}

void set_operand(Plan& plan, int name, const Data& data) {
    plan.operand[name].data = static_cast<char*>(data.data);
    plan.operand[name].dtype = data.dtype;
}

}  // namespace

FL_EXPORT int fl_step_plain(const PlainStep* request) {
    Plan plan;
    plan.common = request->common;
    plan.update = request->update;
    plan.address = {};
    plan.kind = kStep;
    plan.wide = 0;
    plan.draws = request->update.has_b != 0;
    for (Operand& operand : plan.operand) operand.data = nullptr;
    const float* const data[] = {request->out, request->x, request->score};
    for (int i = 0; i < 3; ++i) set_operand(plan, i, {const_cast<float*>(data[i]), kFloat32});
    set_contiguous(plan, request->batch, request->elements);
    return execute(plan);
}

FL_EXPORT int fl_run(const Request* request) {
    Plan plan;
    plan.common = request->common;
    plan.update = request->update;
    plan.address = request->address;
    plan.kind = request->kind;
    plan.wide = request->wide;
    plan.draws = plan.kind != kStep || (request->update.has_b && !request->operand[kNoise].data);
    for (int i = 0; i < kStepOperands; ++i) set_operand(plan, i, request->operand[i]);
    plan.operand[kClean].data = nullptr;
    set_layout(plan, request->tail, request->rank);
    return execute(plan);
}

FL_EXPORT int fl_denoise(const DenoisingRequest* request) {
    Plan plan;
    plan.common = request->common;
    plan.address = request->address;
    plan.denoising = request->denoising;
    plan.kind = request->kind;
    plan.wide = request->wide;
    for (Operand& operand : plan.operand) operand.data = nullptr;
    set_operand(plan, kOut, request->out);
    set_operand(plan, kX, request->x);
    set_operand(plan, kNoise, request->noise);
    set_operand(plan, kClean, request->clean);
    plan.draws = !request->noise.data && !request->clean.data;
    if (request->rank == 0)
        set_contiguous(plan, request->tail[0], request->tail[1]);
    else
        set_layout(plan, request->tail, request->rank);
    return execute(plan);
}

FL_EXPORT int fl_norms(const NormsRequest* request) {
    Plan plan;
    plan.common = request->common;
    plan.address = request->address;
    plan.norms = request->norms;
    plan.kind = kNorms;
    plan.wide = request->wide;
    for (Operand& operand : plan.operand) operand.data = nullptr;
    set_operand(plan, kX, request->x);
    set_operand(plan, kNoise, request->noise);
    plan.draws = request->norms.of_noise && !request->noise.data;
    if (request->rank == 0)
        set_contiguous(plan, request->tail[0], request->tail[1]);
    else
        set_layout(plan, request->tail, request->rank);
    return execute(plan);
}

FL_EXPORT int fl_norm(const NormRequest* request) {
    const NormRequest& r = *request;
    const int64_t set = r.instruction_set, threads = r.threads;
    if (set >= kCount || (set >= 0 && !runs_here(kSets[set]))) return 1;
    for (int64_t i = 0; r.labels && i < r.batch; ++i)
        if (r.labels[i] < 0 || r.labels[i] >= r.levels) return 2;
    NormWork work{request, (set < 0 ? best() : *kSets[set]).norm, kWholeSamples};
    if (threads < 2 || r.batch * r.channels * r.pixels < kSerialBelow) {
        run_norm(&work, 0, r.batch);
    } else if (r.batch % threads == 0 || r.batch >= 4 * threads) {
        parallel(threads, r.batch, 1, run_norm, &work);  // samples stay in the cache from pass to pass
    } else {
        const int64_t units = r.batch * (r.channels_last ? (r.channels + 31) / 32 : r.channels);
        const int64_t grain = (units + 4 * threads - 1) / (4 * threads);
        work.pass = kFirstPass;
        parallel(threads, units, grain, run_norm, &work);
        if (r.groups && !r.backward) {
            work.pass = kBetween;
            run_norm(&work, 0, r.batch);
        }
        work.pass = kSecondPass;
        parallel(threads, units, grain, run_norm, &work);
    }
    return 0;
}

FL_EXPORT int fl_add_elu(const AddEluRequest* request) {
    const int64_t set = request->instruction_set, blocks = (request->count + 31) / 32;
    if (set >= kCount || (set >= 0 && !runs_here(kSets[set]))) return 1;
    AddEluWork work{request, (set < 0 ? best() : *kSets[set]).add_elu};
    if (request->threads < 2 || request->count < kSerialBelow) {
        run_add_elu(&work, 0, blocks);
    } else {
        const int64_t grain = (blocks + 4 * request->threads - 1) / (4 * request->threads);
        parallel(request->threads, blocks, grain > kGrain / 32 ? grain : kGrain / 32, run_add_elu, &work);
    }
    return 0;
}

FL_EXPORT int fl_mixture(const MixtureRequest* request) {
    return share_samples(*request, &Kernels::mixture, request->table.components * (20 + 6 * request->table.features));
}

FL_EXPORT int fl_chain(const ChainRequest* request) {
    int64_t updates = 0;
    for (int64_t i = 0; i < request->run_count; ++i) updates += request->runs[i].times;
    const MixtureTable& table = request->table;
    return share_samples(*request, &Kernels::chain, updates * (table.components * (20 + 6 * table.features) + 200));
}

FL_EXPORT int fl_mlp(const MlpRequest* request) {
    const MlpRequest& r = *request;
    return share_samples(r, &Kernels::mlp, r.steps * r.width * (r.depth * r.width + 2 * r.features));
}

FL_EXPORT int fl_activate(int64_t set, int64_t activation, const float* y, int64_t count, float* values) {
    if (set >= kCount || (set >= 0 && !runs_here(kSets[set]))) return 1;
    const Environment environment;
    (set < 0 ? best() : *kSets[set]).activate(activation, y, count, values);
    return 0;
}

FL_EXPORT void fl_use_openmp(void* entry) { use_openmp(reinterpret_cast<Region>(entry)); }

FL_EXPORT int fl_elu(int64_t set, const float* y, int64_t count, float* values, float* slopes) {
    if (set >= kCount || (set >= 0 && !runs_here(kSets[set]))) return 1;
    const Environment environment;
    (set < 0 ? best() : *kSets[set]).elu(y, count, values, slopes);
    return 0;
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
