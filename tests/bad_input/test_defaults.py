"""No well-formed call of the public API depends on PyTorch's default device or dtype.

"meta" stands for torch.set_default_device("cuda"): whatever is made there by mistake has no numbers to go on with. What
means the default device, ``device=None``, is given one.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from call_snapshot import tensors_in
from well_formed_calls import CALLS

pytestmark = pytest.mark.usefixtures("one_thread")

# New networks are made on the default device and in the default dtype, as all modules are; the last two make tensors.
MAKE = {name for name in CALLS if name.split(".")[0] in ("MLP", "ConvScore", "NCSN", "NCSNv2", "NCSNv2Deeper")}
MAKE |= {"NCSNv2Deepest.forward", "adapted score", "k_diffusion.noise"}
MAKE -= {"ConvScore.from_pretrained"}
PLACED = ["randn", "rand", "projection_vectors", "GaussianMixture.sample", "shards.sample", "inpainted"]
PLACED += ["annealed_langevin", "annealed_langevin on a mixture", "consistent_annealed", "predictor_corrector"]
PLACED += ["interpolation"]


@contextmanager
def default_dtype(dtype: torch.dtype) -> Iterator[None]:
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        yield
    finally:
        torch.set_default_dtype(before)


def everything(value: Any) -> Any:
    """A result with what is inside of the package's own objects in their place."""
    if isinstance(value, list | tuple):
        return [everything(each) for each in value]
    ours = type(value).__module__.startswith("fastlangevin.") and not isinstance(value, torch.nn.Module)
    return everything(list(vars(value).values())) if ours and hasattr(value, "__dict__") else value


def result(name: str, folder: Path, default: AbstractContextManager[Any] | None = None) -> list[torch.Tensor]:
    """The tensors of a call's result, whose arguments are made outside of the default."""
    function, make = CALLS[name]
    folder.mkdir()
    arguments = make(folder) | ({"device": "cpu"} if name in PLACED else {})
    torch.manual_seed(0)
    if default is None:
        return tensors_in(everything(function(**arguments)))
    with default:
        return tensors_in(everything(function(**arguments)))


def the_same(one: list[torch.Tensor], other: list[torch.Tensor]) -> bool:
    def kinds(tensors: list[torch.Tensor]) -> list[Any]:
        return [(each.device, each.dtype, each.shape) for each in tensors]

    return kinds(one) == kinds(other) and all(map(torch.equal, one, other))


@pytest.mark.parametrize("name", sorted(CALLS.keys() - MAKE))
def test_a_call_has_its_result_whatever_the_defaults(name: str, tmp_path: Path) -> None:
    want = result(name, tmp_path / "plain")
    assert the_same(result(name, tmp_path / "device", torch.device("meta")), want)
    assert the_same(result(name, tmp_path / "dtype", default_dtype(torch.float64)), want)


@pytest.mark.parametrize("default", [torch.device("meta"), default_dtype(torch.float64)], ids=["device", "dtype"])
def test_a_call_that_depends_on_them_is_found(
    default: AbstractContextManager[Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(CALLS, "careless", (lambda: torch.linspace(0, 1, 3), lambda folder: {}))
    assert not the_same(result("careless", tmp_path / "other", default), result("careless", tmp_path / "plain"))
