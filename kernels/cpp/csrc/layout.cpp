#include "layout.h"

void set_layout(Plan& plan, const int64_t* tail, int64_t rank) {
    const int64_t* const sizes = tail;
    const int64_t* strides[kOperands];
    const int64_t* next = sizes + rank;
    for (int i = 0; i < kOperands; ++i) {
        strides[i] = plan.operand[i].data ? next : nullptr;
        if (strides[i]) next += rank;
    }
    plan.batch = sizes[0];
    plan.elements = 1;
    for (int64_t d = 1; d < rank; ++d) plan.elements *= sizes[d];

    plan.rank = 0;
    for (int64_t d = 0; d < rank; ++d) {
        if (sizes[d] == 1) continue;
        const int64_t last = plan.rank - 1;
        bool merge = last >= 0;
        for (int i = 0; merge && i < kOperands; ++i)
            merge = !strides[i] || plan.operand[i].stride[last] == strides[i][d] * sizes[d];
        const int64_t at = merge ? last : plan.rank++;
        plan.size[at] = merge ? plan.size[at] * sizes[d] : sizes[d];
        for (int i = 0; i < kOperands; ++i)
            if (strides[i]) plan.operand[i].stride[at] = strides[i][d];
    }
    if (plan.rank == 0) {
        plan.rank = 1;
        plan.size[0] = 1;
        for (Operand& operand : plan.operand) operand.stride[0] = 1;
    }
}

void set_contiguous(Plan& plan, int64_t batch, int64_t elements) {
    plan.batch = batch;
    plan.elements = elements;
    plan.rank = 1;
    plan.size[0] = batch * elements;
    for (Operand& operand : plan.operand) operand.stride[0] = 1;
}

void cut(Plan& plan, int64_t lanes, int64_t longest) {
    const int64_t blocks = (plan.elements + 3) / 4, groups = (blocks + lanes - 1) / lanes;
    // Side by side costs about 5/3 as much a block, but wastes none of a group.
    plan.mixed = plan.draws && 5 * blocks <= 3 * groups * lanes;
    plan.pieces = 1;
    if (plan.mixed) {
        plan.rows = kChunk / (4 * blocks);
        plan.span = plan.rows * plan.elements;
    } else if (plan.elements <= longest) {
        plan.rows = plan.elements <= kChunk ? kChunk / plan.elements : 1;
        plan.span = plan.rows * plan.elements;
    } else {
        plan.rows = 1;
        plan.span = longest;
        plan.pieces = (plan.elements + longest - 1) / longest;
    }
    plan.chunks = (plan.batch + plan.rows - 1) / plan.rows * plan.pieces;
}
