"""The compile gates: registers, spills, accesses and instructions of every Triton kernel, beside its budget."""
