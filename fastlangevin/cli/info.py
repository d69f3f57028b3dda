"""Versions, implementations and why each is available or not, instruction sets, folders, environment variables."""

from __future__ import annotations

import argparse
import importlib.metadata
import os
import platform

import torch

import fastlangevin
from fastlangevin import runtime
from fastlangevin.noise import STREAM_VERSION

VARIABLES = {
    "FASTLANGEVIN_IMPL": "auto",
    "FASTLANGEVIN_CACHE_DIR": "$XDG_CACHE_HOME/fastlangevin or ~/.cache/fastlangevin",
    "FASTLANGEVIN_NO_BUILD": "building is allowed",
    "FASTLANGEVIN_DIRECT_LAUNCH": "1",
    "CXX": "the first of c++, g++ and clang++",
    "TRITON_INTERPRET": "kernels are compiled",
}
PACKAGES = (
    "torch",
    "triton",
    "numpy",
    "pillow",
    "tqdm",
    "matplotlib",
    "scikit-learn",
    "torchvision",
    "diffusers",
    "arviz",
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    del parser


def version(package: str) -> str:
    if package == "torch":
        return torch.__version__  # with the CUDA of the build, which the metadata of PyPI's wheels leave out
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "not installed"


def _cache_folder() -> str:
    try:
        from fastlangevin.kernels.cpp.cache import cache_folder

        return str(cache_folder())
    except (RuntimeError, ImportError) as error:
        return f"nowhere ({error}),"


def run(options: argparse.Namespace) -> int:
    del options
    print(f"fastlangevin {fastlangevin.__version__}, noise stream version {STREAM_VERSION}")
    print(f"Python {platform.python_version()} on {platform.platform()}")
    print("\npackages")
    for package in PACKAGES:
        print(f"  {package:14} {version(package)}")
    print("\nimplementations")
    for device in ("cpu", "cuda"):
        if device == "cuda" and not torch.cuda.is_available():
            print("  cuda: no device")
            continue
        for name, state in runtime.explain(device).items():
            print(f"  {device} {name:10} {state}")
    print("\nC++ library")
    if runtime.explain("cpu")["cpp"] == "available":
        from fastlangevin.kernels.cpp import native

        print(f"  instruction sets of this processor, best first: {', '.join(native.instruction_sets())}")
        print(f"  loaded from    {native.location()}")
    print(f"  built in       {_cache_folder()} where none is shipped")
    print(f"  threads        {torch.get_num_threads()}")
    if torch.cuda.is_available():
        print("\nGPUs")
        for index in range(torch.cuda.device_count()):
            properties = torch.cuda.get_device_properties(index)
            memory = properties.total_memory / 2**30
            print(f"  cuda:{index} {properties.name}, {memory:.0f} GiB, sm_{properties.major}{properties.minor}")
    print("\nenvironment")
    for name, default in VARIABLES.items():
        print(f"  {name:26} {os.environ.get(name) or f'unset: {default}'}")
    return 0
