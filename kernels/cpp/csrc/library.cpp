// The plain C interface: picks the instruction set, makes the plan of a call and shares its pieces out.
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

// The sets of this architecture, best first; the portable one runs anywhere.
#if defined(__x86_64__)
#define FL_EACH_SET(apply) apply(avx512) apply(avx2) apply(sse2) apply(portable)
#elif defined(__aarch64__)
#define FL_EACH_SET(apply) apply(neon) apply(portable)
#else
#define FL_EACH_SET(apply) apply(portable)
#endif

#define FL_DECLARED(set)           \
    namespace set {                \
    extern const Kernels kernels;  \
    }
FL_EACH_SET(FL_DECLARED)

namespace {

#define FL_LISTED(set) &set::kernels,
const Kernels* const kSets[] = {FL_EACH_SET(FL_LISTED)};
constexpr int kCount = sizeof kSets / sizeof *kSets;

bool runs_here(const Kernels* set) {
#if defined(__x86_64__)
    if (set == &avx512::kernels) return level_here() >= kAvx512;
    if (set == &avx2::kernels) return level_here() >= kAvx2;
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

// The one guard of all entries: calls `body` with the kernels of set number `set`, or with the best that run here if it
// is negative. 1 if there is no such set, or this processor lacks it.
template <class Body>
int with_kernels(int64_t set, const Body& body) {
    if (set >= kCount || (set >= 0 && !runs_here(kSets[set]))) return 1;
    return body(set < 0 ? best() : *kSets[set]);
}

// What computes a plan of a kind.
auto entry(const Kernels& kernels, int64_t kind) {
    return kind == kPerturb || kind == kDsm || kind == kSampleNorms ? kernels.dsm : kernels.update;
}

// Calls `body(begin, end)` for all of `count` pieces: on this thread if `threads` is 1, else shared out, at least
// `grain` at a time.
template <class Body>
void share(int64_t threads, int64_t count, int64_t grain, const Body& body) {
    const auto run = [](void* context, int64_t begin, int64_t end) {
        const Environment environment;
        (*static_cast<const Body*>(context))(begin, end);
    };
    void* const context = const_cast<Body*>(&body);
    if (threads < 2) return run(context, 0, count);
    parallel(threads, count, grain, run, context);
}

// 8 us of work on one thread, about what waking another costs.
constexpr int64_t kGrain = 16384;
constexpr int64_t kSerialBelow = 2 * kGrain;
constexpr int64_t kHugePage = 1 << 19;  // 2 MiB of fp32

constexpr int64_t kBytes[] = {4, 2, 2, 8, 1};  // of a Dtype

int execute(const Kernels& kernels, Plan& plan) {
    const bool sums = plan.kind == kDsm || plan.kind == kSampleNorms;
    const auto run = entry(kernels, plan.kind);
    if (!plan.draws && run == kernels.update && !plan.update.fault) {  // no sample boundaries to mind
        plan.elements *= plan.batch;
        plan.batch = 1;
    }
    if (plan.elements == 0 || plan.batch == 0) return 0;
    const Operand& out = plan.operand[kOut];
    const bool packed = plan.rank == 1 && out.stride[0] == 1;
    if (out.data && out.data != plan.operand[kX].data && packed && plan.batch * plan.elements >= kLarge)
        expect_writes(out.data, plan.batch * plan.elements * kBytes[out.dtype]);
    cut(plan, kernels.lanes, sums ? kLongestSegment : kChunk);
    const int64_t total = plan.batch * plan.elements;
    // What a draw costs is what an element does: its normal.
    const int64_t draws = plan.kind == kStep && plan.noise.count > 1 ? plan.noise.count : 1;
    const int64_t threads = total * draws < kSerialBelow ? 1 : plan.common.threads;
    // Threads that share a new huge page wait for one of them to clear it: they get pages of their own.
    const int64_t fair = threads < 2 ? total : total / (4 * threads), grain = fair < kHugePage ? fair : kHugePage;
    const int64_t least = (kGrain + draws - 1) / draws;
    share(threads, plan.chunks, ((grain > least ? grain : least) + plan.span - 1) / plan.span,
          [&](int64_t begin, int64_t end) { run(plan, begin, end); });
    if (plan.kind == kSampleNorms || (plan.kind == kDsm && plan.dsm.values)) {
        const Environment environment;
        plan.kind == kSampleNorms ? finish_sample_norms(plan) : finish_sums(plan);
    }
    return 0;
}

int execute(Plan& plan) {
    return with_kernels(plan.common.instruction_set, [&](const Kernels& kernels) { return execute(kernels, plan); });
}

// `work` is roughly how many operations a sample takes.
template <class Request>
int share_samples(const Request& request, void (*Kernels::*kernel)(const Request&, int64_t, int64_t), int64_t work) {
    return with_kernels(request.instruction_set, [&](const Kernels& kernels) {
        const int64_t lanes = kChainVectors * kernels.lanes, blocks = (request.batch + lanes - 1) / lanes;
        const int64_t threads = request.batch * work < 64 * kSerialBelow ? 1 : request.threads;
        const int64_t fair = threads < 2 ? blocks : blocks / (16 * threads);
        share(threads, blocks, fair > 1 ? fair : 1,
              [&](int64_t begin, int64_t end) { (kernels.*kernel)(request, begin, end); });
        return 0;
    });
}

void set_operand(Plan& plan, int name, const Data& data) {
    plan.operand[name].data = static_cast<char*>(data.data);
    plan.operand[name].dtype = data.dtype;
}

}  // namespace

FL_EXPORT int fl_step_plain(const PlainStep* request) {
    Plan plan;
    plan.common = request->common;
    plan.update = {2, 1, {request->c, request->a}, request->b, request->fault, request->freeze,
                   (int64_t)request->common.draw, nullptr};
    plan.noise = {1, {1.0}, {}, nullptr, nullptr};
    plan.address = {nullptr, nullptr, request->ids, 0};
    plan.kind = kStep;
    plan.wide = 0;
    plan.draws = true;
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
    plan.noise = request->draws;
    plan.address = request->address;
    plan.kind = request->kind;
    plan.wide = request->wide;
    plan.draws = plan.kind != kStep || (request->update.has_b && !request->operand[kNoise].data);
    for (int i = 0; i < kStepOperands; ++i) set_operand(plan, i, request->operand[i]);
    plan.operand[kClean].data = nullptr;
    set_layout(plan, request->tail, request->rank);
    return execute(plan);
}

FL_EXPORT int fl_dsm(const DsmRequest* request) {
    Plan plan;
    plan.common = request->common;
    plan.address = request->address;
    plan.dsm = request->dsm;
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

FL_EXPORT int fl_sample_norms(const SampleNormsRequest* request) {
    Plan plan;
    plan.common = request->common;
    plan.address = request->address;
    plan.norms = request->norms;
    plan.kind = kSampleNorms;
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

FL_EXPORT int fl_normalise(const NormalisationRequest* request) {
    const NormalisationRequest& r = *request;
    return with_kernels(r.instruction_set, [&](const Kernels& kernels) {
        for (int64_t i = 0; r.labels && i < r.batch; ++i)
            if (r.labels[i] < 0 || r.labels[i] >= r.levels) return 2;
        const auto pass = [&](int64_t threads, NormalisationPass pass, int64_t count, int64_t grain) {
            share(threads, count, grain,
                  [&](int64_t begin, int64_t end) { kernels.normalise(r, pass, begin, end); });
        };
        const int64_t threads = r.batch * r.channels * r.pixels < kSerialBelow ? 1 : r.threads;
        // Samples stay in the cache from pass to pass.
        if (threads < 2 || r.batch % threads == 0 || r.batch >= 4 * threads) {
            pass(threads, kWholeSamples, r.batch, 1);
            return 0;
        }
        const int64_t units = r.batch * (r.channels_last ? (r.channels + 31) / 32 : r.channels);
        const int64_t grain = (units + 4 * threads - 1) / (4 * threads);
        pass(threads, kFirstPass, units, grain);
        if (r.groups && !r.backward) pass(1, kBetween, r.batch, 1);
        pass(threads, kSecondPass, units, grain);
        return 0;
    });
}

FL_EXPORT int fl_add_elu(const AddEluRequest* request) {
    return with_kernels(request->instruction_set, [&](const Kernels& kernels) {
        const int64_t blocks = (request->count + 31) / 32;
        const int64_t threads = request->count < kSerialBelow ? 1 : request->threads;
        const int64_t fair = threads < 2 ? blocks : (blocks + 4 * threads - 1) / (4 * threads);
        share(threads, blocks, fair > kGrain / 32 ? fair : kGrain / 32,
              [&](int64_t begin, int64_t end) { kernels.add_elu(*request, begin, end); });
        return 0;
    });
}

FL_EXPORT int fl_mixture(const MixtureRequest* request) {
    const MixtureTable& table = request->table;
    return share_samples(*request, &Kernels::mixture_score, table.components * (20 + 6 * table.features));
}

FL_EXPORT int fl_chain(const ChainRequest* request) {
    int64_t updates = 0;
    for (int64_t i = 0; i < request->run_count; ++i) updates += request->runs[i].times;
    const MixtureTable& table = request->table;
    const int64_t work = updates * (table.components * (20 + 6 * table.features) + 200);
    return share_samples(*request, &Kernels::mixture_chain, work);
}

FL_EXPORT int fl_mlp(const MlpRequest* request) {
    const MlpRequest& r = *request;
    return share_samples(r, &Kernels::mlp_chain, r.steps * r.width * (r.depth * r.width + 2 * r.features));
}

FL_EXPORT int fl_activate(int64_t set, int64_t activation, const float* y, int64_t count, float* values) {
    return with_kernels(set, [&](const Kernels& kernels) {
        const Environment environment;
        kernels.activate(activation, y, count, values);
        return 0;
    });
}

FL_EXPORT void fl_use_openmp(void* entry) { use_openmp(reinterpret_cast<Region>(entry)); }

FL_EXPORT int fl_elu(int64_t set, const float* y, int64_t count, float* values, float* slopes) {
    return with_kernels(set, [&](const Kernels& kernels) {
        const Environment environment;
        kernels.elu(y, count, values, slopes);
        return 0;
    });
}

FL_EXPORT int fl_polar(int64_t set, const uint32_t* words, int64_t count, float* radius, float* cosine, float* sine) {
    return with_kernels(set, [&](const Kernels& kernels) {
        const Environment environment;
        kernels.polar(words, count, radius, cosine, sine);
        return 0;
    });
}

// Name of set number `index`: null past the end, empty where this processor lacks it.
FL_EXPORT const char* fl_instruction_set(int64_t index) {
    if (index < 0 || index >= kCount) return nullptr;
    return runs_here(kSets[index]) ? kSets[index]->name : "";
}

FL_EXPORT const char* fl_source_hash() { return FL_SOURCE_HASH; }
