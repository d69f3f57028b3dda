"""The kernels for GPUs: one concept a file, with its formula, its bytes per element, the kernel and its launcher."""
