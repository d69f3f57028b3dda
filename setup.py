"""Metadata, and the build of the C++ kernels.

``kernels/cpp/build.py`` builds the library with any C++17 compiler, without PyTorch and without looking for a GPU, so
build isolation has nothing to trip over. Where there is no compiler the install goes on without the library: it is then
built on first use, or the reference implementation stands in.

``kernels/`` ships only as ``fastlangevin.kernels``, by the mapping below; the link ``fastlangevin/kernels`` beside it
serves runs from a checkout, editable installs and type checkers. An sdist holds the files once, in the link's place.
"""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
import sys
from pathlib import Path
from types import ModuleType

from setuptools import Distribution, Extension, find_packages, setup
from setuptools.command.bdist_wheel import bdist_wheel
from setuptools.command.build_ext import build_ext
from setuptools.command.build_py import build_py
from setuptools.command.sdist import sdist

ROOT = Path(__file__).resolve().parent
KERNELS = "kernels" if (ROOT / "kernels").is_dir() else "fastlangevin/kernels"


def load_builder() -> ModuleType:
    """``kernels/cpp/build.py`` by its path: the package itself needs PyTorch to be imported."""
    spec = importlib.util.spec_from_file_location("fastlangevin_build", ROOT / KERNELS / "cpp" / "build.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


builder = load_builder()


def description() -> str:
    """The README as an index can show it: without the pictures, links and markers of a checkout."""
    path = ROOT / "README.md"
    text = path.read_text(encoding="utf-8") if path.exists() else ""
    text = re.sub(r"^!\[[^]]*\]\((?!https?:)[^)]*\)\n+", "", text, flags=re.MULTILINE)
    text = re.sub(r"\[([^]]*)\]\((?!https?:)[^)]*\)", r"\1", text)
    return re.sub(r"<!--.*?-->\n?", "", text)


class BuildLibrary(build_ext):
    """Builds the shared library where setuptools would put an extension module."""

    def get_ext_filename(self, fullname: str) -> str:
        return str(Path(*fullname.split(".")[:-1], builder.LIBRARY))

    def build_extension(self, ext: Extension) -> None:
        target = Path(self.get_ext_fullpath(ext.name))
        if builder.is_current(target):
            return
        try:
            builder.build(target.parent)
        except (builder.BuildError, OSError) as error:
            self.distribution.without_library = True
            # One that an earlier build left would be of other sources.
            target.unlink(missing_ok=True)
            print(
                f"\nNOTE: fastlangevin is installed without its C++ kernels for CPUs.\n{error}\n"
                "Everything works without them, more slowly on CPUs; they are built on first use once a compiler is "
                "there.\n",
                file=sys.stderr,
                flush=True,
            )

    def get_outputs(self) -> list[str]:
        return [path for path in super().get_outputs() if os.path.exists(path)]

    def get_output_mapping(self) -> dict[str, str]:
        return {out: source for out, source in super().get_output_mapping().items() if os.path.exists(out)}

    def copy_extensions_to_source(self) -> None:
        if not self.distribution.without_library:
            super().copy_extensions_to_source()


class BuildPackages(build_py):
    """Leaves a library that lies in the checkout to BuildLibrary."""

    def find_data_files(self, package: str, src_dir: str) -> list[str]:
        return [path for path in super().find_data_files(package, src_dir) if not path.endswith(builder.LIBRARY)]


class Wheel(bdist_wheel):
    """py3-none-<platform> with the library, py3-none-any without: no Python ABI is used, ctypes loads it."""

    def run(self) -> None:
        if not self.skip_build:
            self.run_command("build_ext")
        self.root_is_pure = not self.distribution.has_ext_modules()
        super().run()

    def get_tag(self) -> tuple[str, str, str]:
        platform = super().get_tag()[2]
        return "py3", "none", "any" if self.root_is_pure else platform


class Sdist(sdist):
    """Puts ``kernels`` where the link is, so that the archive has no second copy and no import name of its own."""

    def make_release_tree(self, base_dir: str, files: list[str]) -> None:
        super().make_release_tree(base_dir, files)
        source, target = Path(base_dir, "kernels"), Path(base_dir, "fastlangevin", "kernels")
        if source.is_dir():
            if target.is_symlink():
                target.unlink()
            shutil.rmtree(target, ignore_errors=True)
            source.rename(target)


class Binary(Distribution):
    """Has a compiled part, unless that could not be built."""

    without_library = False

    def has_ext_modules(self) -> bool:
        return not self.without_library


# By name: a checkout without symbolic links hides them from the search.
KERNEL_PACKAGES = ("fastlangevin.kernels", "fastlangevin.kernels.cpp", "fastlangevin.kernels.triton")
TRAIN = ["scikit-learn", "matplotlib"]
BENCH = ["pytest-benchmark", "matplotlib"]
TEST = [
    "pytest>=8",
    "pytest-xdist",
    "hypothesis",
    "safetensors",
    "scikit-learn",
    "matplotlib",
    "scipy",
    "arviz",
    "diffusers",
    "setuptools>=77",
    "ninja",
]

setup(
    name="fastlangevin",
    version="0.1.0",
    description="Fused, bit-reproducible samplers for score-based generative models, in PyTorch, Triton and C++",
    long_description=description(),
    long_description_content_type="text/markdown",
    license="MIT",
    license_files=["LICENSE"],
    python_requires=">=3.11",
    packages=sorted({*find_packages(include=["fastlangevin", "fastlangevin.*"]), *KERNEL_PACKAGES}),
    package_dir={"fastlangevin.kernels": KERNELS},
    package_data={"fastlangevin": ["py.typed", "assets/*"], "fastlangevin.kernels.cpp": ["csrc/*"]},
    include_package_data=False,
    ext_modules=[Extension("fastlangevin.kernels.cpp._library", sources=[])],
    cmdclass={"build_ext": BuildLibrary, "build_py": BuildPackages, "bdist_wheel": Wheel, "sdist": Sdist},
    distclass=Binary,
    install_requires=[
        "torch>=2.10",
        "numpy>=2.0",
        "tqdm",
        "pillow",
        # What PyTorch's CUDA wheels for Linux pin exactly; its CPU wheels bring none.
        'triton>=3.6; sys_platform == "linux" and platform_machine == "x86_64"',
    ],
    extras_require={
        "train": TRAIN,
        "bench": BENCH,
        "test": TEST,
        "dev": [*TRAIN, *BENCH, *TEST, "ruff", "mypy", "ninja"],
    },
    entry_points={"console_scripts": ["fastlangevin = fastlangevin.cli:main"]},
    classifiers=[
        "Programming Language :: Python :: 3",
        "Programming Language :: Python :: 3.11",
        "Programming Language :: Python :: 3.12",
        "Programming Language :: Python :: 3.13",
        "Programming Language :: C++",
        "Operating System :: POSIX",
        "Topic :: Scientific/Engineering :: Artificial Intelligence",
    ],
    zip_safe=False,
)
