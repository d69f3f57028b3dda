// Which instruction sets may be used: those that the processor has and whose registers the operating system saves.
#pragma once

#if defined(__x86_64__)
#include <cpuid.h>

#include <atomic>
#include <cstdint>
#include <initializer_list>

// Asked for here, since not every compiler's __builtin_cpu_supports knows f16c: GCC's does from 11 on, Clang's of Debian
// 12 does not.
struct Processor {
    uint32_t leaf1_ecx, leaf7_ebx;  // of cpuid; 0 where there is no such leaf
    uint64_t saved;                 // XCR0: the registers that are kept when threads are switched
};

enum X86Level { kSse2, kAvx2, kAvx512 };  // each has what is before it

constexpr uint64_t mask(std::initializer_list<int> bits) {
    uint64_t word = 0;
    for (int bit : bits) word |= uint64_t(1) << bit;
    return word;
}

// What the flags of build.py allow the compiler, with all that they imply. Leaf 1: SSE3, SSSE3, FMA, SSE4.1, SSE4.2,
// POPCNT, OSXSAVE (without which there is no XCR0), AVX and F16C; leaf 7: AVX2, and AVX512F, DQ, BW and VL.
constexpr uint64_t kLeaf1 = mask({0, 9, 12, 19, 20, 23, 27, 28, 29}), kLeaf7 = mask({5});
constexpr uint64_t kLeaf7OfAvx512 = mask({16, 17, 30, 31});
// The registers of SSE and AVX; then AVX-512's masks, upper halves and further sixteen.
constexpr uint64_t kSaved = mask({1, 2}), kSavedOfAvx512 = mask({5, 6, 7});

constexpr bool has(uint64_t word, uint64_t bits) { return (word & bits) == bits; }

constexpr X86Level level_of(const Processor& processor) {
    if (!has(processor.leaf1_ecx, kLeaf1) || !has(processor.leaf7_ebx, kLeaf7) || !has(processor.saved, kSaved))
        return kSse2;
    return has(processor.leaf7_ebx, kLeaf7OfAvx512) && has(processor.saved, kSavedOfAvx512) ? kAvx512 : kAvx2;
}

inline Processor this_processor() {
    Processor found = {0, 0, 0};
    uint32_t a, b, c, d;
    if (__get_cpuid(1, &a, &b, &c, &d)) found.leaf1_ecx = c;
    if (__get_cpuid_count(7, 0, &a, &b, &c, &d)) found.leaf7_ebx = b;
    if (has(found.leaf1_ecx, mask({27}))) {
        uint32_t low, high;
        __asm__ volatile("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
        found.saved = uint64_t(high) << 32 | low;
#if defined(__APPLE__)
        found.saved |= kSavedOfAvx512;  // saved from a thread's first use on, before which XCR0 does not show it
#endif
    }
    return found;
}

// Asked for once: on a virtual machine cpuid takes as long as thousands of instructions.
inline X86Level level_here() {
    static std::atomic<int> known{-1};
    int level = known.load(std::memory_order_relaxed);
    if (level < 0) known.store(level = level_of(this_processor()), std::memory_order_relaxed);
    return static_cast<X86Level>(level);
}
#endif
