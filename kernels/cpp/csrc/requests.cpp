// Where the structs of plan.h have their fields: requests.py declares them for Python, and they are compared when the
// library is loaded.
#include <cstddef>
#include <initializer_list>

#include "plan.h"

namespace {

// Letters of Python's module struct, and names of structs. A type that has neither does not compile.
template <class T> constexpr const char* kType = nullptr;
template <class T> constexpr const char* kType<T*> = "P";
template <class T, size_t count> constexpr const char* kType<T[count]> = kType<T>;
template <> constexpr const char* kType<int64_t> = "q";
template <> constexpr const char* kType<uint64_t> = "Q";
template <> constexpr const char* kType<double> = "d";
template <> constexpr const char* kType<Common> = "Common";
template <> constexpr const char* kType<Address> = "Address";
template <> constexpr const char* kType<Update> = "Update";
template <> constexpr const char* kType<Draws> = "Draws";
template <> constexpr const char* kType<Dsm> = "Dsm";
template <> constexpr const char* kType<SampleNorms> = "SampleNorms";
template <> constexpr const char* kType<Data> = "Data";
template <> constexpr const char* kType<MixtureTable> = "MixtureTable";

struct Field {
    const char *name, *type;
    size_t offset;
};

// "Name field:offset:type field:offset:type ... size", made by the compiler.
struct Text {
    char letters[1024] = {};
    int count = 0;

    constexpr void add(const char* word) {
        while (*word) letters[count++] = *word++;
    }
    constexpr void add(size_t number) {
        if (number > 9) add(number / 10);
        letters[count++] = static_cast<char>('0' + number % 10);
    }
    constexpr Text(const char* name, size_t size, std::initializer_list<Field> fields) {
        add(name);
        for (const Field& field : fields)
            add(" "), add(field.name), add(":"), add(field.offset), add(":"), add(field.type);
        add(" "), add(size);
    }
};

#define LAYOUT(name, ...)                                   \
    [] {                                                    \
        using Struct = name;                                \
        return Text(#name, sizeof(Struct), {__VA_ARGS__});  \
    }()
#define FIELD(name) {#name, kType<decltype(Struct::name)>, offsetof(Struct, name)}

constexpr Text kLayouts[] = {
    LAYOUT(Common, FIELD(instruction_set), FIELD(threads), FIELD(seed), FIELD(draw), FIELD(sample_offset),
           FIELD(purpose)),
    LAYOUT(Address, FIELD(seeds), FIELD(draw_at), FIELD(ids), FIELD(seed_stride)),
    LAYOUT(Update, FIELD(terms), FIELD(has_b), FIELD(factor), FIELD(b), FIELD(fault), FIELD(freeze), FIELD(number),
           FIELD(number_at)),
    LAYOUT(Draws, FIELD(count), FIELD(weight), FIELD(offset), FIELD(weights), FIELD(numbers)),
    LAYOUT(Dsm, FIELD(scale), FIELD(weight), FIELD(slope), FIELD(upstream), FIELD(upstream_stride), FIELD(labels),
           FIELD(levels), FIELD(draws_labels), FIELD(level_purpose), FIELD(segment), FIELD(values), FIELD(level_sums),
           FIELD(level_counts), FIELD(total), FIELD(scratch)),
    LAYOUT(SampleNorms, FIELD(segment), FIELD(of_x), FIELD(of_noise), FIELD(scratch)),
    LAYOUT(Data, FIELD(data), FIELD(dtype)),
    LAYOUT(MixtureTable, FIELD(rows), FIELD(components), FIELD(features), FIELD(diagonal)),
    LAYOUT(ChainRun, FIELD(c), FIELD(a), FIELD(b), FIELD(has_b), FIELD(level), FIELD(times)),
    LAYOUT(PlainStep, FIELD(common), FIELD(c), FIELD(a), FIELD(b), FIELD(fault), FIELD(freeze), FIELD(ids), FIELD(out),
           FIELD(x), FIELD(score), FIELD(batch), FIELD(elements)),
    LAYOUT(Request, FIELD(common), FIELD(update), FIELD(draws), FIELD(kind), FIELD(wide), FIELD(rank), FIELD(address),
           FIELD(operand)),
    LAYOUT(DsmRequest, FIELD(common), FIELD(kind), FIELD(wide), FIELD(rank), FIELD(address), FIELD(dsm), FIELD(out),
           FIELD(x), FIELD(noise), FIELD(clean)),
    LAYOUT(SampleNormsRequest, FIELD(common), FIELD(wide), FIELD(rank), FIELD(address), FIELD(norms), FIELD(x),
           FIELD(noise)),
    LAYOUT(NormalisationRequest, FIELD(instruction_set), FIELD(threads), FIELD(backward), FIELD(activation),
           FIELD(channels_last), FIELD(dtype), FIELD(batch), FIELD(channels), FIELD(pixels), FIELD(groups),
           FIELD(epsilon), FIELD(out), FIELD(x), FIELD(other), FIELD(total), FIELD(gamma), FIELD(alpha), FIELD(beta),
           FIELD(gamma_stride), FIELD(alpha_stride), FIELD(beta_stride), FIELD(labels), FIELD(levels), FIELD(mean),
           FIELD(rstd), FIELD(by_gamma), FIELD(by_alpha), FIELD(by_beta), FIELD(plane_means), FIELD(plane_variances)),
    LAYOUT(AddEluRequest, FIELD(instruction_set), FIELD(threads), FIELD(dtype), FIELD(count), FIELD(terms),
           FIELD(total), FIELD(out)),
    LAYOUT(MixtureRequest, FIELD(instruction_set), FIELD(threads), FIELD(batch), FIELD(table), FIELD(labels),
           FIELD(out), FIELD(x)),
    LAYOUT(ChainRequest, FIELD(instruction_set), FIELD(threads), FIELD(batch), FIELD(table), FIELD(seed), FIELD(draw),
           FIELD(sample_offset), FIELD(purpose), FIELD(seeds), FIELD(ids), FIELD(seed_stride), FIELD(runs),
           FIELD(run_count), FIELD(every), FIELD(frames), FIELD(x)),
    LAYOUT(MlpRequest, FIELD(instruction_set), FIELD(threads), FIELD(batch), FIELD(features), FIELD(width),
           FIELD(depth), FIELD(steps), FIELD(activation), FIELD(x), FIELD(weights), FIELD(biases), FIELD(head),
           FIELD(head_bias), FIELD(frame), FIELD(levels), FIELD(coefficients), FIELD(noisy), FIELD(mean), FIELD(seed),
           FIELD(draw), FIELD(sample_offset), FIELD(purpose), FIELD(seeds), FIELD(ids), FIELD(seed_stride),
           FIELD(every), FIELD(frames)),
};
constexpr int64_t kCount = sizeof kLayouts / sizeof *kLayouts;

// The tails are no fields: they begin where the fields end.
static_assert(offsetof(Request, tail) == sizeof(Request));
static_assert(offsetof(DsmRequest, tail) == sizeof(DsmRequest));
static_assert(offsetof(SampleNormsRequest, tail) == sizeof(SampleNormsRequest));

}  // namespace

// The layout of struct number `index`; null past the end.
extern "C" __attribute__((visibility("default"))) const char* fl_layout(int64_t index) {
    return index < 0 || index >= kCount ? nullptr : kLayouts[index].letters;
}
