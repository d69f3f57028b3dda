"""Every tensor that the package makes says on which device and of which dtype: none is PyTorch's default."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
FACTORIES = {
    "arange",
    "as_tensor",
    "asarray",
    "empty",
    "eye",
    "full",
    "linspace",
    "logspace",
    "ones",
    "rand",
    "randint",
}
FACTORIES |= {"randn", "randperm", "scalar_tensor", "tensor", "tril_indices", "triu_indices", "zeros"}
DEFAULTS = {
    "get_default_device",
    "get_default_dtype",
    "set_default_device",
    "set_default_dtype",
    "Tensor",
    "FloatTensor",
}
# Modules are made on the default device and in the default dtype, as all of PyTorch's are.
MODULES = {("fastlangevin/models/base.py", "tensor"), ("fastlangevin/models/instance_norm.py", "empty")}
MODULES |= {("fastlangevin/models/instance_norm.py", "zeros")}


def careless(source):
    """Line and name of each call that takes a default of PyTorch's, or of one that reads or changes it."""
    found = []
    for node in ast.walk(ast.parse(source)):
        if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Attribute):
            continue
        if not isinstance(node.func.value, ast.Name) or node.func.value.id != "torch":
            continue
        name, given = node.func.attr, {each.arg for each in node.keywords}
        # as_tensor keeps the dtype of tensors and integers.
        wanted = {"device"} if name in ("as_tensor", "asarray") else {"device", "dtype"}
        if name in DEFAULTS or (name in FACTORIES and not wanted <= given):
            found.append((node.lineno, name))
    return found


def test_no_tensor_is_made_by_a_default():
    paths = [*(ROOT / "fastlangevin").rglob("*.py"), *(ROOT / "kernels").rglob("*.py")]
    modules = set()
    for path in {path.resolve() for path in paths}:
        name = path.relative_to(ROOT).as_posix()
        found = careless(path.read_text(encoding="utf-8"))
        modules |= {(name, factory) for _, factory in found if (name, factory) in MODULES}
        left = [f"{name}:{line}: torch.{factory}" for line, factory in found if (name, factory) not in MODULES]
        assert not left, left
    assert modules == MODULES


@pytest.mark.parametrize(
    ("source", "found"),
    [
        ("torch.zeros(3)", ["zeros"]),
        ("torch.zeros(3, dtype=torch.float32)", ["zeros"]),
        ("torch.arange(3, device=x.device)", ["arange"]),
        ("torch.as_tensor(x)", ["as_tensor"]),
        ("torch.Tensor([1.0])", ["Tensor"]),
        ("f(torch.get_default_dtype())", ["get_default_dtype"]),
        ("torch.full((3,), torch.tensor(1.0), dtype=d, device=d)", ["tensor"]),
        ("torch.as_tensor(x, device=d); x.new_zeros(3); torch.zeros_like(x)", []),
        ("torch.linspace(0, 1, 3, dtype=d, device=d)", []),
    ],
)
def test_what_takes_a_default_is_found(source, found):
    assert [name for _, name in careless(source)] == found
