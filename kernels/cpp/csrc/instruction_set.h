// The instruction set that a source is compiled for. FL_SET is its name: of the header of its vectors, simd_*.h, and
// of the namespace in which the source exports its functions. A source that includes this file is compiled once for
// each set. All else of it is in an anonymous namespace: two objects must not share a function, or the linker could keep
// the wrong one.
#pragma once

#include "plan.h"

#define FL_JOINED_(a, b) a##b
#define FL_JOINED(a, b) FL_JOINED_(a, b)
#define FL_QUOTED_(a) #a
#define FL_QUOTED(a) FL_QUOTED_(a)
#include FL_QUOTED(FL_JOINED(simd_, FL_SET).h)

namespace FL_SET {

// update.cpp
void update(const Plan& plan, int64_t first, int64_t last);
// dsm.cpp
void dsm(const Plan& plan, int64_t first, int64_t last);
// normalisation.cpp
void normalise(const NormalisationRequest& request, NormalisationPass pass, int64_t first, int64_t last);
// add_elu.cpp
void add_elu(const AddEluRequest& request, int64_t first, int64_t last);
// mixture_chain.cpp
void mixture_score(const MixtureRequest& request, int64_t first, int64_t last);
void mixture_chain(const ChainRequest& request, int64_t first, int64_t last);
// mlp_chain.cpp
void mlp_chain(const MlpRequest& request, int64_t first, int64_t last);
void activate(int64_t activation, const float* y, int64_t count, float* values);

// update.cpp
extern const Kernels kernels;

}  // namespace FL_SET
