"""Changes that change no bit: they must pass the tests that catch the faults beside them."""

from benchmarks.faults.fault import Fault

__all__ = ["EQUIVALENT"]

EQUIVALENT = (
    Fault(
        "equivalent: the factors of a schedule's times in another order",
        "equivalent",
        "fastlangevin/schedules.py",
        'torch.exp(rho * torch.log1p(-fall * torch.linspace(0, 1, count, dtype=torch.float64, device="cpu")))',
        'torch.exp(torch.log1p(torch.linspace(0, 1, count, dtype=torch.float64, device="cpu") * -fall) * rho)',
        ("tests/test_schedules.py",),
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
        "kernels/philox.py",
        "(k0.to(tl.uint64) + i * 0x9E3779B9)",
        "(i * 0x9E3779B9 + k0.to(tl.uint64))",
        ("tests/test_noise.py::test_the_stream_never_changes",),
    ),
    Fault(
        "equivalent: two squares of a segment exchanged",
        "equivalent",
        "kernels/csrc/dsm.h",
        "(e[0] * e[0] + e[1] * e[1])",
        "(e[1] * e[1] + e[0] * e[0])",
        ("tests/test_cpp_denoising.py::test_sizes",),
    ),
)
