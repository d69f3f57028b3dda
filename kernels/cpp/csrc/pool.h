// Threads that share the chunks of one call.
#pragma once

#include <cstdint>

// Calls body(context, begin, end) until [0, count) is done, `grain` at a time, on up to `threads` threads of which the
// caller is one. Which thread does what is left to chance; the results must not depend on it.
void parallel(int64_t threads, int64_t count, int64_t grain, void (*body)(void*, int64_t, int64_t), void* context);

// GOMP_parallel(function, argument, threads, flags) of an OpenMP run-time: runs the function on each of its threads.
typedef void (*Region)(void (*)(void*), void*, unsigned, unsigned);
// From now on in this process; null: no longer.
void use_openmp(Region entry);
