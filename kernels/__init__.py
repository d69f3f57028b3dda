"""The kernels: Triton for GPUs, C++ for CPUs. They know nothing of the package above them.

Nothing is imported here: Triton and the C++ library are loaded by whoever launches them first.
"""

__all__: list[str] = []
