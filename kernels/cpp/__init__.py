"""The kernels for CPUs: C++17 sources in ``csrc``, the library that is built from them, and its launchers."""
