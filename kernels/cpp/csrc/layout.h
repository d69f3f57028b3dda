// How a call's tensors are walked, and how its work is cut into chunks.
#pragma once

#include "plan.h"

// Takes the shape and strides of a request's tail: merges dimensions, sets batch and elements.
void set_layout(Plan& plan, const int64_t* tail, int64_t rank);
// All operands contiguous.
void set_contiguous(Plan& plan, int64_t batch, int64_t elements);
// Cuts samples of more than `longest` elements.
void cut(Plan& plan, int64_t lanes, int64_t longest);
