"""The well-formed calls: a function, and its arguments given a folder to work in.

Every bad call is one of these with one defect.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from compat_calls import COMPAT_CALLS
from data_calls import DATA_CALLS
from mixture_calls import MIXTURE_CALLS
from ncsn_calls import NCSN_CALLS
from plan_calls import PLAN_CALLS
from rule_calls import RULE_CALLS
from sampler_calls import SAMPLER_CALLS
from shard_calls import SHARD_CALLS
from torch import Tensor

import fastlangevin as fl
from fastlangevin import diagnostics, models
from fastlangevin.losses.controlled import controlled_dsm_loss
from fastlangevin.losses.explicit import esm_loss
from fastlangevin.losses.implicit import ism_loss
from fastlangevin.losses.projections import projection_vectors
from fastlangevin.losses.single import single_dsm_loss
from fastlangevin.losses.sliced import annealed_ssm_loss, ssm_loss
from fastlangevin.models import MLP, NCSN, ConvConfig, ConvScore, MLPConfig, NCSNConfig, NCSNv2, NCSNv2Config
from fastlangevin.ops import group_norm
from fastlangevin.storage import checkpoint, container, stopped_chain
from fastlangevin.storage.generations import Generations
from fastlangevin.storage.published import load_published
from fastlangevin.training import Average, TrainConfig

Arguments = dict[str, Any]
LADDER = [1.0, 0.5]


def numbers(*shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.linspace(-1.0, 1.0, max(1, torch.Size(shape).numel()), dtype=dtype).reshape(shape)


def images() -> torch.nn.Sequential:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.GroupNorm(2, 4), torch.nn.SiLU())


def _step(folder: Path) -> Arguments:
    return {"x": numbers(2, 3), "score": numbers(2, 3), "a": 0.1, "b": 0.2, "seed": 0, "impl": "reference"}


def _randn(folder: Path) -> Arguments:
    return {"shape": (2, 3), "seed": 0, "impl": "reference"}


def annealed(folder: Path) -> Arguments:
    return {
        "score": lambda x, labels: -x,
        "sigmas": LADDER,
        "shape": (2, 3),
        "epsilon": 0.01,
        "steps_per_level": 2,
        "seed": 0,
        "impl": "reference",
    }


def _langevin(folder: Path) -> Arguments:
    return {
        "score": lambda x: -x,
        "init": numbers(2, 3),
        "steps": 2,
        "epsilon": 0.01,
        "seed": 0,
        "impl": "reference",
    }


def frames(*shape: int) -> Tensor:
    """A trajectory that moves, without drawing a number."""
    return torch.sin(torch.arange(torch.Size(shape).numel()) ** 1.5).reshape(shape)


def _trajectory(folder: Path) -> Arguments:
    return {"trajectory": frames(8, 2, 3)}


def _levels(folder: Path) -> Arguments:
    return {"trajectory": frames(13, 2, 3), "steps_per_level": 6, "every": 1, "warmup": 0.0}


def _picture(folder: Path) -> Arguments:
    return {"path": folder / "chains.png", "trajectory": frames(8, 2, 3), "elements": (0,)}


def _adapt(folder: Path) -> Arguments:
    return {"net": lambda x, labels: x, "sigmas": LADDER}


def _dsm(folder: Path) -> Arguments:
    return {"net": lambda x, labels: -x, "x": numbers(2, 3), "sigmas": LADDER, "seed": 0}


def _perturb(folder: Path) -> Arguments:
    return {"x": numbers(2, 3), "sigmas": torch.tensor(LADDER), "seed": 0}


def _group_norm(folder: Path) -> Arguments:
    return {"x": numbers(2, 4, 3), "groups": 2, "weight": numbers(4), "bias": numbers(4), "impl": "reference"}


def _at_data(**options: Any) -> Callable[[Path], Arguments]:
    return lambda folder: {"score": lambda x: -x, "x": numbers(2, 3), **options}


def mlp() -> MLP:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return MLP(LADDER, MLPConfig(features=3, width=4, depth=1))


def conv() -> ConvScore:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return ConvScore(LADDER, ConvConfig(widths=(4, 4), patch=1, blocks=1))


def ncsn(name: str = "NCSN") -> Any:
    network = getattr(models, name)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return network(LADDER, network.CONFIG(channels=1, width=4))


def published(folder: Path) -> Arguments:
    torch.save([{f"module.{key}": value for key, value in ncsn().state_dict().items()}, {}], folder / "checkpoint.pth")
    return {"path": folder / "checkpoint.pth", "sigmas": LADDER}


def _standard(name: str, side: int) -> tuple[Callable[..., Tensor], Callable[[Path], Arguments]]:
    return _forward(lambda: ncsn(name)), lambda folder: {"x": numbers(2, 1, side, side), "labels": torch.tensor([0, 1])}


def _build(network: Callable[..., Any]) -> Callable[..., Any]:
    """A network's constructor that leaves the generator alone: building one draws weights, which is no defect."""

    def build(**arguments: Any) -> Any:
        with torch.random.fork_rng(devices=[]):
            return network(**arguments)

    return build


def _forward(make: Callable[[], Any]) -> Callable[..., Tensor]:
    return lambda **arguments: make()(**arguments)


def chain() -> fl.ChainState:
    return fl.ChainState(numbers(2, 3), 1, 7, record={"sampler": "langevin"})


def _save(folder: Path) -> Arguments:
    return {"path": folder / "net.safetensors", "net": mlp()}


def _load(folder: Path) -> Arguments:
    checkpoint.save(folder / "net.safetensors", mlp())
    return {"path": folder / "net.safetensors"}


def _container_write(folder: Path) -> Arguments:
    return {"path": folder / "state", "tensors": {"x": numbers(2, 3)}, "description": {"step": 1}}


def _container_read(folder: Path) -> Arguments:
    container.write(folder / "state.safetensors", {"x": numbers(2, 3)}, {"step": 1})
    return {"path": folder / "state.safetensors"}


def _generations(folder: Path) -> Generations:
    run = Generations(folder, "run")
    for step in (1, 2):
        run.save(step, {"x": numbers(2, 3)}, {"step": step})
    return run


def _generations_save(folder: Path) -> Arguments:
    return {"self": _generations(folder), "step": 3, "tensors": {"x": numbers(2, 3)}, "description": {}}


def _chains_load(folder: Path) -> Arguments:
    stopped_chain.save(folder / "run.chain", chain())
    return {"path": folder / "run.chain"}


CALLS: dict[str, tuple[Callable[..., Any], Callable[[Path], Arguments]]] = {
    "step": (fl.step, _step),
    "step_": (fl.step_, _step),
    "group_norm": (group_norm, _group_norm),
    "randn": (fl.randn, _randn),
    "rand": (fl.rand, _randn),
    "annealed_langevin": (fl.annealed_langevin, annealed),
    "langevin": (fl.langevin, _langevin),
    "split_rhat": (diagnostics.split_rhat, _trajectory),
    "ess": (diagnostics.ess, _trajectory),
    "mcse": (diagnostics.mcse, _trajectory),
    "autocorrelation": (diagnostics.autocorrelation, _trajectory),
    "integrated_autocorrelation_time": (diagnostics.integrated_autocorrelation_time, _trajectory),
    "by_level": (diagnostics.by_level, _levels),
    "to_arviz": (diagnostics.to_arviz, _trajectory),
    "picture": (diagnostics.picture, _picture),
    "adapt": (fl.adapt, _adapt),
    "adapted score": (lambda **arguments: fl.adapt(**arguments)(numbers(2, 3), torch.tensor([0, 1])), _adapt),
    "perturb": (fl.perturb, _perturb),
    "objective": (fl.DenoisingScoreMatching, lambda folder: {"sigmas": LADDER}),
    "config": (TrainConfig, lambda folder: {"steps": 4, "batch": 8}),
    "Average": (
        lambda **k: Average(**k).update(),
        lambda folder: {"net": MLP(LADDER, MLPConfig(features=3)), "decay": 0.5},
    ),
    "dsm_loss": (fl.dsm_loss, _dsm),
    "esm_loss": (esm_loss, _at_data(true_score=lambda x: -2 * x)),
    "ism_loss": (ism_loss, _at_data()),
    "ssm_loss": (ssm_loss, _at_data(seed=0)),
    "single_dsm_loss": (single_dsm_loss, _at_data(sigma=0.5, seed=0)),
    "annealed_ssm_loss": (annealed_ssm_loss, _dsm),
    "controlled_dsm_loss": (controlled_dsm_loss, lambda folder: {**_dsm(folder), "below": 0.8}),
    "projection_vectors": (projection_vectors, lambda folder: {"shape": (2, 3), "seed": 0}),
    "MLP": (_build(MLP), lambda folder: {"sigmas": LADDER, "config": MLPConfig(features=3)}),
    "MLPConfig": (MLPConfig, lambda folder: {"features": 3}),
    "ConvScore": (_build(ConvScore), lambda folder: {"sigmas": LADDER, "config": ConvConfig(widths=(4,))}),
    "ConvConfig": (ConvConfig, lambda folder: {"channels": 1}),
    "MLP.forward": (_forward(mlp), lambda folder: {"x": numbers(2, 3), "labels": torch.tensor([0, 1])}),
    "ConvScore.forward": (_forward(conv), lambda folder: {"x": numbers(2, 1, 4, 4), "labels": torch.tensor([0, 1])}),
    "NCSN": (_build(NCSN), lambda folder: {"sigmas": LADDER, "config": NCSNConfig(width=4)}),
    "NCSNv2": (_build(NCSNv2), lambda folder: {"sigmas": LADDER, "config": NCSNv2Config(width=4)}),
    "NCSNConfig": (NCSNConfig, lambda folder: {"channels": 1}),
    "NCSNv2Config": (NCSNv2Config, lambda folder: {"channels": 1}),
    "NCSN.forward": _standard("NCSN", 4),
    "NCSNv2.forward": _standard("NCSNv2", 4),
    "NCSNv2Deeper.forward": _standard("NCSNv2Deeper", 8),
    "NCSNv2Deepest.forward": _standard("NCSNv2Deepest", 16),
    "fuse": (
        lambda net, inputs, **options: fl.fuse(net, *inputs, **options),
        lambda folder: {"net": images(), "inputs": [numbers(2, 3, 6, 6)]},
    ),
    "load_published": (load_published, published),
    "checkpoint.save": (checkpoint.save, _save),
    "checkpoint.load": (checkpoint.load, _load),
    "ConvScore.from_pretrained": (
        ConvScore.from_pretrained,
        lambda folder: {"path": saved(folder, conv())},
    ),
    "container.write": (container.write, _container_write),
    "container.read": (container.read, _container_read),
    "Generations": (Generations, lambda folder: {"folder": folder, "prefix": "run"}),
    "Generations.save": (Generations.save, _generations_save),
    "Generations.load": (Generations.load, lambda folder: {"self": _generations(folder)}),
    "chains.load": (stopped_chain.load, _chains_load),
    "chains.save": (stopped_chain.save, lambda folder: {"path": folder / "run.chain", "state": chain()}),
    **COMPAT_CALLS,
    **DATA_CALLS,
    **MIXTURE_CALLS,
    **NCSN_CALLS,
    **PLAN_CALLS,
    **RULE_CALLS,
    **SAMPLER_CALLS,
    **SHARD_CALLS,
}


def saved(folder: Path, net: Any) -> Path:
    checkpoint.save(folder / "saved.safetensors", net)
    return folder / "saved.safetensors"
