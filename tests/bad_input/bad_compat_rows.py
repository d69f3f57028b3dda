"""Bad calls of the modules that stand in for other code bases."""

from __future__ import annotations

from typing import Any

import torch
from bad_call_row import NAN, Row
from compat_calls import checkout, image

from fastlangevin.compat import score_sde

SAMPLERS = ("get_pc_sampler", "get_pc_inpainter", "get_pc_colorizer")
SUB_VP = score_sde.subVPSDE(N=30)
VP = score_sde.VPSDE(N=30)
VE = score_sde.VESDE(N=30)


def _row(name: str, call: str, bad: Any, error: type[Exception], *says: str, good: Any = None) -> Row:
    return Row(name, call, lambda k: bad, error, says, lambda k: good or {})


def _every(name: str, bad: Any, error: type[Exception], *says: str, good: Any = None) -> list[Row]:
    """What every sampler refuses alike."""
    return [_row(name, f"score_sde.{call}", bad, error, *says, good=good) for call in SAMPLERS]


COMPAT = [
    _row("unknown", "patch", {"name": "edm"}, ValueError, "name", "ncsn, ncsnv2, score_sde", "'edm'"),
    _row("nothing there", "patch", {"module": "math"}, ImportError, "none of its functions is in math", "sys.path"),
    _row(
        "a fork's signature",
        "patch",
        {"module": checkout(lambda sde, shape, guidance=1.0: None)},
        ImportError,
        "no checkout of score_sde",
        "sampling.get_pc_sampler",
        "guidance",
        good={"module": checkout()},
    ),
    _row("other's option", "patch", {"keep_every": 2}, TypeError, "keep_every=", "norm", good={"norm": "sample"}),
    _row("one seed", "patch", {"seed": 0}, TypeError, "seed=", "repeat", good={"generator": torch.Generator()}),
    _row(
        "patched already",
        "patch",
        {"module": score_sde},
        ValueError,
        "this package's already",
        "undo()",
    ),
    _row("order", "score_sde.VESDE", {"sigma_min": 50, "sigma_max": 0.01}, ValueError, "sigma_max", "sigma_min"),
    _row("zero", "score_sde.VESDE", {"sigma_min": 0.0}, ValueError, "sigma_min", "above zero", good={"sigma_min": 0.1}),
    _row("one level", "score_sde.VESDE", {"N": 1}, ValueError, "N", "from 2", good={"N": 2}),
    _row("beta", "score_sde.VPSDE", {"N": 20}, ValueError, "beta_max/N", "20/20", "larger N", good={"N": 21}),
    _row("beta_min", "score_sde.VPSDE", {"beta_min": -1}, ValueError, "beta_min", "above zero"),
    _row("half", "score_sde.subVPSDE", {"N": 100.0}, TypeError, "N", "integer", good={"N": 100}),
    _row("unknown", "score_sde.get_predictor", {"name": "heun"}, ValueError, "name", "euler_maruyama", "'heun'"),
    _row("unknown", "score_sde.get_corrector", {"name": "ou"}, ValueError, "name", "ald, langevin, none", "'ou'"),
    _row("two", "score_sde.AddressedNoise", {"generator": torch.Generator()}, ValueError, "seed=", "generator="),
    *_every("snr zero", {"snr": 0.0}, ValueError, "snr", "above zero", good={"snr": 0.01}),
    *_every(
        "snr negative", {"snr": -0.16}, ValueError, "snr", "above zero", "-0.16", good={"corrector": None, "snr": 0}
    ),
    *_every("snr NaN", {"snr": NAN}, ValueError, "snr", "finite"),
    *_every("n_steps", {"n_steps": 0}, ValueError, "n_steps", "from 1", good={"n_steps": 2}),
    *_every("norm", {"norm": "mean"}, ValueError, "norm", "sample, batch, sqrt_d", "'mean'", good={"norm": "sample"}),
    *_every("eps", {"eps": 0.0}, ValueError, "eps", "above zero"),
    *_every("eps after T", {"eps": 1.0}, ValueError, "eps", "below T = 1.0", good={"eps": 0.5}),
    *_every("predictor", {"predictor": "pndm"}, ValueError, "registered predictor", "'pndm'", good={"predictor": None}),
    *_every("corrector", {"corrector": "mala"}, ValueError, "registered corrector", "'mala'", good={"corrector": None}),
    *_every(
        "no ancestral sampling for sub-VP",
        {"sde": SUB_VP, "predictor": "ancestral_sampling"},
        ValueError,
        "VESDE and VPSDE",
        "subVPSDE",
        "reverse_diffusion fit",
        good={"sde": VP, "predictor": "ancestral_sampling"},
    ),
    *_every(
        "no ancestral flow",
        {"predictor": "ancestral_sampling", "probability_flow": True},
        ValueError,
        "probability_flow",
        "reverse_diffusion or euler_maruyama",
        good={"predictor": "euler_maruyama", "probability_flow": True},
    ),
    *_every("sde", {"sde": "vesde"}, TypeError, "sde", "VESDE, VPSDE or subVPSDE", "str"),
    *_every("inverse_scaler", {"inverse_scaler": None}, TypeError, "inverse_scaler", "callable", "NoneType"),
    *_every("model", {"model": None}, TypeError, "model", "callable", "NoneType"),
    *_every("score", {"model": lambda x, t: x[:1]}, ValueError, "model", "shape of x"),
    _row("no such device", "score_sde.get_pc_sampler", {"device": "cuda:99"}, ValueError, "cuda:99", "device='cpu'"),
    _row("shape", "score_sde.get_pc_sampler", {"shape": ()}, ValueError, "shape", "(B, ...)", good={"shape": (1,)}),
    _row("empty", "score_sde.get_pc_sampler", {"shape": (0, 3)}, ValueError, "shape", "one sample", "(0, 3)"),
    _row("dtype", "score_sde.get_pc_sampler", {"dtype": torch.int64}, TypeError, "dtype", "float32", "int64"),
    _row("ids", "score_sde.get_pc_sampler", {"sample_ids": [0]}, ValueError, "sample_ids", "(2,)", "(1,)"),
    _row(
        "mask shape",
        "score_sde.get_pc_inpainter",
        {"mask": torch.ones(2, 2, 2, 2)},
        ValueError,
        "mask",
        "broadcast",
        "(2, 3, 2, 2)",
        "(2, 2, 2, 2)",
        good={"mask": torch.ones(2, 1, 2, 2)},
    ),
    _row(
        "mask of halves",
        "score_sde.get_pc_inpainter",
        {"mask": torch.full((2, 2), 0.5)},
        ValueError,
        "mask",
        "1 where they are known",
        good={"mask": torch.zeros(2, 2, dtype=torch.int64)},
    ),
    _row(
        "complex mask",
        "score_sde.get_pc_inpainter",
        {"mask": torch.ones(2, 2, dtype=torch.complex64)},
        TypeError,
        "mask",
        "bool",
        "complex64",
        good={"mask": torch.ones(2, 2, dtype=torch.bool)},
    ),
    _row("mask", "score_sde.get_pc_inpainter", {"mask": [1, 0]}, TypeError, "mask", "tensor", "list"),
    _row("data", "score_sde.get_pc_inpainter", {"data": image().long()}, TypeError, "data", "float32", "int64"),
    _row(
        "channels",
        "score_sde.get_pc_colorizer",
        {"gray_scale_img": image(2)},
        ValueError,
        "gray_scale_img",
        "(B, 3, H, W)",
        "(2, 2, 2, 2)",
        good={"gray_scale_img": image(1)},
    ),
    _row("sde", "score_sde.get_score_fn", {"sde": None}, TypeError, "sde", "VESDE", "NoneType"),
    _row("VP", "score_sde.get_smld_loss_fn", {"vesde": VP}, TypeError, "vesde", "VPSDE", "get_ddpm_loss_fn fits"),
    _row("VE", "score_sde.get_ddpm_loss_fn", {"vpsde": VE}, TypeError, "vpsde", "VESDE", "get_smld_loss_fn fits"),
    _row("eps", "score_sde.get_sde_loss_fn", {"eps": 2.0}, ValueError, "eps", "below T", good={"eps": 0.1}),
    _row("batch", "score_sde.get_sde_loss_fn", {"batch": torch.ones(3)}, ValueError, "x", "batch (B, *)"),
    _row("ascending", "k_diffusion.noise_sampler", {"sigmas": [0.5, 1.0]}, ValueError, "sigmas", "largest first"),
    _row("one", "k_diffusion.noise_sampler", {"sigmas": [1.0]}, ValueError, "sigmas", "two levels"),
    _row("number", "k_diffusion.noise_sampler", {"sigmas": 1.0}, TypeError, "sigmas", "ladder"),
    _row("integers", "k_diffusion.noise_sampler", {"x": image().long()}, TypeError, "x", "float32"),
    _row("scalar", "k_diffusion.noise_sampler", {"x": torch.tensor(1.0)}, ValueError, "x", "(B, ...)"),
    _row("off the ladder", "k_diffusion.noise", {"sigma": 0.7}, ValueError, "sigma", "level of the ladder", "0.7"),
    _row(
        "between",
        "k_diffusion.noise",
        {"sigma_next": 0.7},
        ValueError,
        "sigma_next",
        "0.5",
        "0.7",
        "sample_dpmpp_sde",
        good={"sigma": 0.5, "sigma_next": 0.0},
    ),
    _row("model", "k_diffusion.sample_euler_ancestral", {"model": None}, TypeError, "model", "callable"),
    _row("eta", "k_diffusion.sample_euler_ancestral", {"eta": -1.0}, ValueError, "eta", "negative", good={"eta": 0.0}),
    _row(
        "s_noise",
        "k_diffusion.sample_euler_ancestral",
        {"s_noise": -1.0},
        ValueError,
        "s_noise",
        "negative",
        good={"s_noise": 0.0},
    ),
    _row(
        "noise twice",
        "k_diffusion.sample_euler_ancestral",
        {"noise_sampler": lambda sigma, after: image()},
        ValueError,
        "noise_sampler=",
        "seed=",
        good={"noise_sampler": lambda sigma, after: image(), "seed": None},
    ),
    _row(
        "denoised shape",
        "k_diffusion.sample_euler_ancestral",
        {"model": lambda x, sigma: x[:1]},
        ValueError,
        "model",
        "shape of x",
    ),
]
