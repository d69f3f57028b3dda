// Memory that a call is about to write.
#pragma once

#include <cstdint>

// Asks for huge pages for the part of a range that has whole ones; a system that has none may refuse.
//
// A large tensor is fresh memory each time it is made; its first write in pages of 4 KiB takes longer than the work.
// On a loaded Zen 4 with 2^24 elements and two threads, a perturbation and the matching take 310 ms with both results
// new, 105 ms with huge pages, and 65 ms in memory that was written before.
void expect_writes(char* data, int64_t bytes);
