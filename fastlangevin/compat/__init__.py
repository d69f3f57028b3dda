"""Other code bases' signatures on this package's kernels, each in a module that is imported by its name.

Nothing here is imported by ``import fastlangevin``, and a module that stands in for a library needs that library.
"""
