// Threads that share the chunks of one call.
#pragma once

#include <cstdint>

// Calls body(context, begin, end) until [0, count) is done, `grain` at a time, on up to `threads` threads of which the
// caller is one. Which thread does what is left to chance; the results must not depend on it.
void parallel(int64_t threads, int64_t count, int64_t grain, void (*body)(void*, int64_t, int64_t), void* context);
