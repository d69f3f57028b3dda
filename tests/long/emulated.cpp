// Digests of what the library computes, a line a case, for tests/long/emulation.py: linked with the kernels' objects for
// a processor that need not be there. Inputs are hashes of their places, the same on every machine.
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <utility>
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

const int64_t kSizes[] = {4, 2, 2, 8};  // of a Dtype

Common common(int64_t set) { return {set, 1, 0x123456789ABCDEF0u, 0xFFFFFFF0u, (uint64_t)1 << 32, 1}; }

void steps(int64_t set) {
    for (const auto& shape : kShapes) {
        const int64_t n = shape[0] * shape[1];
        std::vector<float> out(n), x = numbers(n, 1, true), score = numbers(n, 2, true);
        std::vector<int64_t> fault(shape[0], INT64_MAX);
        for (double c : {1.0, 0.9}) {
            PlainStep request{common(set), c,          0.1,      0.3,          fault.data(), 0,
                              nullptr,     out.data(), x.data(), score.data(), shape[0],     shape[1]};
            check(fl_step_plain(&request));
            tell("step", out);
            tell("faults", fault);
        }
    }
}

// Numbers around one in a dtype's own bytes; fp32 alone has rare ones.
std::vector<uint8_t> stored(int64_t count, int64_t dtype, uint64_t salt) {
    const std::vector<float> made = numbers(count, salt, dtype == kFloat32);
    std::vector<uint8_t> bytes(count * kSizes[dtype]);
    for (int64_t i = 0; i < count; ++i) {
        uint32_t bits;
        memcpy(&bits, &made[i], 4);
        const double wide = made[i];
        const uint16_t half = (uint16_t)((bits & 0x83FF) | (13 + (bits >> 10 & 3)) << 10);
        const uint16_t brain = (uint16_t)(bits >> 16);
        const void* const as[] = {&made[i], &half, &brain, &wide};
        memcpy(bytes.data() + i * kSizes[dtype], as[dtype], kSizes[dtype]);
    }
    return bytes;
}

template <class T>
std::vector<T> read_as(const std::vector<uint8_t>& bytes) {
    std::vector<T> values(bytes.size() / sizeof(T));
    memcpy(values.data(), bytes.data(), bytes.size());
    return values;
}

void tell_stored(const char* name, const std::vector<uint8_t>& bytes, int64_t dtype) {
    if (dtype == kFloat32) return tell(name, read_as<float>(bytes));
    if (dtype == kFloat64) return tell(name, read_as<double>(bytes));
    const int infinity = dtype == kFloat16 ? 0x7C00 : 0x7F80;
    std::vector<uint16_t> halves = read_as<uint16_t>(bytes);
    for (uint16_t& half : halves)
        if ((half & 0x7FFF) > infinity) half = 0x7FFF;  // a NaN, as in tell
    tell(name, halves);
}

// Updates of one to six terms in every dtype. A factor is a number, or one for each sample, each element, or both; the
// noise is one draw, several, a table, given, or left out; the result is new or written over the first or the last slot.
// Some have a known region, some are watched. `swapped` puts the factors of the terms in the opposite order: a control.
void moves(int64_t set, bool swapped) {
    enum { kNumber, kOfSamples, kOfElements, kOfBoth };
    enum { kOne, kSeveral, kTable, kGiven, kNone };
    for (int64_t s = 0; s < (int64_t)(sizeof kShapes / sizeof *kShapes); ++s)
        for (int64_t terms = 1; terms <= kTerms; ++terms)
            for (int64_t turn = 0; turn < 2; ++turn) {
                const int64_t batch = kShapes[s][0], elements = kShapes[s][1], n = batch * elements;
                const int64_t dtype = (terms + s + 2 * turn) % 4, drawn = (terms + 2 * s + 3 * turn) % 5;
                const int64_t over = (terms + s + turn) % 3;  // the state, the last slot, neither
                const int64_t computing = dtype == kFloat64 ? kFloat64 : kFloat32;
                std::vector<uint8_t> room(sizeof(Request) + sizeof(int64_t) * 2 * (1 + kStepOperands));
                Request& request = *reinterpret_cast<Request*>(room.data());
                request.common = common(set);
                request.kind = kStep;
                request.wide = dtype == kFloat64;
                request.rank = 2;
                std::vector<std::vector<uint8_t>> kept(kStepOperands);
                int64_t strides[kStepOperands][2] = {};
                const auto place = [&](int name, std::vector<uint8_t> bytes, int64_t of, int64_t row, int64_t step) {
                    kept[name] = std::move(bytes);
                    request.operand[name] = {kept[name].data(), of};
                    strides[name][0] = row;
                    strides[name][1] = step;
                };
                const auto factor = [&](int name, int64_t kind, uint64_t salt, double& number) {
                    number = numbers(1, salt)[0];
                    if (kind == kOfSamples) place(name, stored(batch, computing, salt), computing, 1, 0);
                    if (kind == kOfElements) place(name, stored(elements, computing, salt), computing, 0, 1);
                    if (kind == kOfBoth) place(name, stored(n, computing, salt), computing, elements, 1);
                };
                Update& update = request.update;
                update.terms = terms;
                for (int64_t t = 0; t < terms; ++t) {
                    const int64_t from = swapped ? terms - 1 - t : t;
                    const bool own = t == 0 || (over == 1 && t == terms - 1);
                    const int64_t of = own ? dtype : (dtype + t) % 4;
                    place((int)(kX + t), stored(n, of, 10 + t), of, elements, 1);
                    factor((int)(kFactor + t), (from + s + turn) % 4, 20 + from, update.factor[t]);
                }
                update.has_b = drawn != kNone;
                if (update.has_b) factor(kB, (terms + s + 1) % 4, 30, update.b);
                const std::vector<float> weights = numbers(5, 31);
                const std::vector<double> wide(weights.begin(), weights.end());
                const int64_t table[] = {7, 0, 0xFFFFFFFF, 7, 0x80000000}, places[] = {0, 15, 1, 1};
                request.draws.count = drawn == kTable ? 5 : drawn == kSeveral ? 1 + (terms + s) % kDraws : 1;
                for (int64_t j = 0; j < kDraws; ++j) {
                    request.draws.weight[j] = drawn == kSeveral ? weights[j] : 1.0;
                    request.draws.offset[j] = drawn == kSeveral ? places[j] : 0;
                }
                if (drawn == kTable) {
                    request.draws.weights = request.wide ? (const void*)wide.data() : weights.data();
                    request.draws.numbers = table;
                }
                if (drawn == kGiven) place(kNoise, stored(n, computing, 32), computing, elements, 1);
                if ((terms + s) % 2) {
                    std::vector<uint8_t> mask(n);
                    for (int64_t i = 0; i < n; ++i) mask[i] = mixed(i) % 3 == 0;
                    place(kMask, mask, kBool, elements, 1);
                    place(kKnown, stored(n, dtype, 33), dtype, elements, 1);
                }
                std::vector<int64_t> fault(batch, INT64_MAX);
                const int64_t number = 9;
                if ((terms + turn) % 2) {
                    for (int64_t i = 0; i < batch; i += 4) fault[i] = 3;
                    update.fault = fault.data();
                    update.freeze = s % 2;
                    update.number = number;
                    update.number_at = turn ? &number : nullptr;
                }
                const int out = over == 0 ? kX : over == 1 ? (int)(kX + terms - 1) : kOut;
                if (out == kOut) kept[kOut].resize(n * kSizes[dtype]);
                request.operand[kOut] = {kept[out].data(), dtype};
                strides[kOut][0] = elements;
                strides[kOut][1] = 1;
                int64_t* next = request.tail;
                *next++ = batch;
                *next++ = elements;
                for (int name = 0; name < kStepOperands; ++name)
                    for (int i = 0; request.operand[name].data && i < 2; ++i) *next++ = strides[name][i];
                check(fl_run(&request));
                char name[] = "move of 1";
                name[8] = (char)('0' + terms);
                tell_stored(name, kept[out], dtype);
                tell("faults of moves", fault);
            }
}

void draws(int64_t set) {
    std::vector<uint8_t> room(sizeof(Request) + 64);
    for (int64_t kind : {(int64_t)kNormal, (int64_t)kUniform})
        for (int64_t dtype : {(int64_t)kFloat32, (int64_t)kFloat16, (int64_t)kBfloat16, (int64_t)kFloat64})
            for (const auto& shape : kShapes) {
                std::vector<uint8_t> out(shape[0] * shape[1] * kSizes[dtype]);
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
    moves(set, argc > 3 && !strcmp(argv[3], "swapped"));
    draws(set);
    objectives(set);
    mixtures(set);
    sweeps(set, stride);
    for (int64_t index = 0; const char* name = fl_instruction_set(index); ++index)
        if (*name) fprintf(stderr, "%s\n", name);
}
