// Digests of what the library computes, a line a case, for tests/long/emulation.py: linked with the kernels' objects for
// a processor that need not be there. Inputs are hashes of their places, the same on every machine.
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <vector>

#include "plan.h"

extern "C" {
int fl_step_plain(const PlainStep* request);
int fl_run(const Request* request);
int fl_dsm(const DsmRequest* request);
int fl_sample_norms(const SampleNormsRequest* request);
int fl_mixture(const MixtureRequest* request);
int fl_chain(const ChainRequest* request);
int fl_polar(int64_t set, const uint32_t* words, int64_t count, float* radius, float* cosine, float* sine);

const char* fl_instruction_set(int64_t index);
}

namespace {

uint64_t mixed(uint64_t x) {
    x ^= x >> 31;
    x *= 0x9E3779B97F4A7C15u;
    x ^= x >> 29;
    x *= 0xBF58476D1CE4E5B9u;
    return x ^ x >> 32;
}

// Of magnitudes around one, a few zeros, infinities, subnormals and NaN among them where `rare`.
std::vector<float> numbers(int64_t count, uint64_t salt, bool rare = false) {
    std::vector<float> out(count);
    for (int64_t i = 0; i < count; ++i) {
        const uint64_t word = mixed(salt << 40 ^ (uint64_t)i);
        out[i] = ((float)(int64_t)(word & 0xFFFFFF) - 8388608.0f) / 4194304.0f;
        const float others[] = {0.0f, -0.0f, INFINITY, -INFINITY, 1e-42f, 3e38f, NAN, -1e-45f};
        if (rare && i % 97 == 96) out[i] = others[word >> 32 & 7];
    }
    return out;
}

template <class T>
void tell(const char* name, const std::vector<T>& values) {
    uint64_t digest = 0xCBF29CE484222325u;
    for (T value : values) {
        uint8_t bytes[sizeof(T)];
        // A NaN's sign and payload differ between processors, and are no promise.
        if (value != value) value = (T)0x7FF;
        memcpy(bytes, &value, sizeof bytes);
        for (uint8_t byte : bytes) digest = (digest ^ byte) * 0x100000001B3u;
    }
    printf("%s %016llx\n", name, (unsigned long long)digest);
}

void check(int status) {
    if (status) exit(3);
}

const int64_t kShapes[][2] = {{1, 1}, {7, 3}, {300, 2}, {5, 17}, {3, 784}, {2, 3072}, {3, 5001}, {1, 70001}};

Common common(int64_t set) { return {set, 1, 0x123456789ABCDEF0u, 0xFFFFFFF0u, (uint64_t)1 << 32, 1}; }

void steps(int64_t set) {
    for (const auto& shape : kShapes) {
        const int64_t n = shape[0] * shape[1];
        std::vector<float> out(n), x = numbers(n, 1, true), score = numbers(n, 2, true);
        std::vector<int64_t> fault(shape[0], INT64_MAX);
        for (double c : {1.0, 0.9}) {
            PlainStep request{common(set), c,        0.1,          0.3,      fault.data(), 0,
                              out.data(),  x.data(), score.data(), shape[0], shape[1]};
            check(fl_step_plain(&request));
            tell("step", out);
            tell("faults", fault);
        }
    }
}

void draws(int64_t set) {
    std::vector<uint8_t> room(sizeof(Request) + 64);
    const int64_t sizes[] = {4, 2, 2, 8};
    for (int64_t kind : {(int64_t)kNormal, (int64_t)kUniform})
        for (int64_t dtype : {(int64_t)kFloat32, (int64_t)kFloat16, (int64_t)kBfloat16, (int64_t)kFloat64})
            for (const auto& shape : kShapes) {
                std::vector<uint8_t> out(shape[0] * shape[1] * sizes[dtype]);
                Request& request = *reinterpret_cast<Request*>(room.data());
                memset(room.data(), 0, room.size());
                request.common = common(set);
                request.kind = kind;
                request.rank = 2;
                request.operand[kOut] = {out.data(), dtype};
                const int64_t tail[] = {shape[0], shape[1], shape[1], 1};
                memcpy(request.tail, tail, sizeof tail);
                check(fl_run(&request));
                tell(kind == kNormal ? "normals" : "uniforms", out);
            }
}

void objectives(int64_t set) {
    const int64_t levels = 4;
    const std::vector<float> scale = {1.0f, 0.5f, 0.25f, 0.125f}, weight(4, 0.5f), slope = {1.0f, 0.5f, 0.25f, 0.125f};
    const float upstream = 0.25f;
    for (const auto& shape : kShapes) {
        // As the callers choose them: one for up to 128 elements, of a power of two.
        int64_t n = shape[0] * shape[1], segment = 4;
        while (segment < shape[1] && segment < 128) segment *= 2;
        std::vector<float> out(n), x = numbers(n, 3), values(shape[0]), sums(levels), scratch(n + 4096);
        std::vector<int64_t> labels(shape[0]), counts(levels);
        float total = 0;
        std::vector<uint8_t> room(sizeof(DsmRequest) + 64);
        DsmRequest& request = *reinterpret_cast<DsmRequest*>(room.data());
        request.common = common(set);
        request.kind = kPerturb;
        request.dsm.scale = scale.data();
        request.dsm.labels = labels.data();
        request.dsm.levels = levels;
        request.dsm.draws_labels = 1;
        request.dsm.level_purpose = 3;
        request.out = {out.data(), kFloat32};
        request.x = {x.data(), kFloat32};
        request.tail[0] = shape[0];
        request.tail[1] = shape[1];
        check(fl_dsm(&request));
        tell("perturbed", out);
        tell("levels", labels);
        request.kind = kDsm;
        request.dsm.draws_labels = 0;
        request.dsm.weight = weight.data();
        request.dsm.slope = slope.data();
        request.dsm.upstream = &upstream;
        request.dsm.segment = segment;
        request.dsm.values = values.data();
        request.dsm.level_sums = sums.data();
        request.dsm.level_counts = counts.data();
        request.dsm.total = &total;
        request.dsm.scratch = scratch.data();
        check(fl_dsm(&request));
        tell("gradient", out);
        tell("values", values);
        tell("sums", sums);
        tell("total", std::vector<float>{total});
        std::vector<float> of_x(shape[0]), of_noise(shape[0]), other(n + 4096);
        std::vector<uint8_t> more(sizeof(SampleNormsRequest) + 64);
        SampleNormsRequest& norms = *reinterpret_cast<SampleNormsRequest*>(more.data());
        norms.common = common(set);
        norms.norms = {segment, of_x.data(), of_noise.data(), {scratch.data(), other.data()}};
        norms.x = {x.data(), kFloat32};
        norms.tail[0] = shape[0];
        norms.tail[1] = shape[1];
        check(fl_sample_norms(&norms));
        tell("norms of x", of_x);
        tell("norms of noise", of_noise);
    }
}

void mixtures(int64_t set) {
    for (int64_t diagonal : {0, 1})
        for (int64_t features : {1, 2, 3, 4, 7, 64}) {
            const int64_t components = 5, batch = 37, levels = 2;
            const int64_t rest = diagonal ? 1 + 2 * features : 3 + features, width = 2 * rest + 1;
            std::vector<float> rows = numbers(levels * components * width, 4), x = numbers(batch * features, 5);
            // h is negative and i positive, as those of a table are; at the second level some samples are in fp64.
            for (int64_t row = 0; row < levels * components; ++row) {
                float* const at = rows.data() + row * width;
                if (!diagonal) at[1] = -fabsf(at[1]), at[2] = fabsf(at[2]);
                for (int64_t j = 0; diagonal && j < features; ++j) at[1 + features + j] = fabsf(at[1 + features + j]);
                for (int64_t i = 0; i < rest; ++i) at[rest + i] *= 0x1p-25f;
                at[2 * rest] = row < components ? -1e30f : -1.0f;
            }
            std::vector<int64_t> labels(batch);
            for (int64_t i = 0; i < batch; ++i) labels[i] = i % 3 == 0;
            std::vector<float> out(batch * features), frames(4 * batch * features);
            const MixtureTable table{rows.data(), components, features, diagonal};
            const MixtureRequest score{set, 1, batch, table, labels.data(), out.data(), x.data()};
            check(fl_mixture(&score));
            tell("scores", out);
            const ChainRun runs[] = {{1.0, 0.05, 0.3, 1, 0, 5}, {0.9, 0.02, 0.1, 1, 1, 3}, {1.0, 0.1, 0.0, 0, 1, 1}};
            const Common at = common(set);
            const ChainRequest chain{set,     1,       batch,   table,       at.seed,       7, at.sample_offset, at.purpose,
                                     nullptr, nullptr, 0,       runs,        3,             4, frames.data(),    x.data()};
            check(fl_chain(&chain));
            tell("chains", x);
            tell("frames", frames);
        }
}

void sweeps(int64_t set, uint32_t stride) {
    std::vector<uint32_t> words(65536);
    std::vector<float> radius(words.size()), cosine(words.size()), sine(words.size());
    const uint64_t all = (uint64_t)1 << 32;
    for (uint64_t first = 0; first < all; first += (uint64_t)stride * words.size()) {
        for (size_t i = 0; i < words.size(); ++i) words[i] = (uint32_t)(first + i * stride);
        check(fl_polar(set, words.data(), words.size(), radius.data(), cosine.data(), sine.data()));
        tell("radius", radius);
        tell("cosine", cosine);
        tell("sine", sine);
    }
}

}  // namespace

int main(int argc, char** argv) {
    const int64_t set = argc > 1 ? atoll(argv[1]) : -1;
    const uint32_t stride = argc > 2 ? (uint32_t)atoll(argv[2]) : 1009;
    steps(set);
    draws(set);
    objectives(set);
    mixtures(set);
    sweeps(set, stride);
    for (int64_t index = 0; const char* name = fl_instruction_set(index); ++index)
        if (*name) fprintf(stderr, "%s\n", name);
}
