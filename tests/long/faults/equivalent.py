"""Changes that change no bit: they must pass the tests that catch the faults beside them."""

from tests.long.faults.fault import Fault

__all__ = ["EQUIVALENT"]

EQUIVALENT = (
    Fault(
        "equivalent: the factors of a ladder's times in another order",
        "equivalent",
        "fastlangevin/ladders.py",
        "math.exp(rho * math.log1p(-fall * t))",
        "math.exp(math.log1p(t * -fall) * rho)",
        ("tests/test_ladders.py",),
    ),
    Fault(
        "equivalent: radius and direction in another order",
        "equivalent",
        "fastlangevin/reference/random.py",
        "return length * cosine, length * sine",
        "return cosine * length, sine * length",
        ("tests/test_noise.py::test_the_stream_never_changes",),
    ),
    Fault(
        "equivalent: keys of all rounds by one product",
        "equivalent",
        "kernels/triton/philox.py",
        "(k0.to(tl.uint64) + i * 0x9E3779B9)",
        "(i * 0x9E3779B9 + k0.to(tl.uint64))",
        ("tests/test_noise.py::test_the_stream_never_changes",),
    ),
    Fault(
        "equivalent: two squares of a segment exchanged",
        "equivalent",
        "kernels/cpp/csrc/dsm.h",
        "(e[0] * e[0] + e[1] * e[1])",
        "(e[1] * e[1] + e[0] * e[0])",
        ("tests/test_cpp_dsm.py::test_sizes",),
    ),
)
