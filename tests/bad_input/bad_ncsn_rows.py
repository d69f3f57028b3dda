"""Bad calls of what stands in for NCSN's and NCSNv2's functions."""

from __future__ import annotations

from typing import Any

import torch
from bad_call_row import META, Row
from ncsn_calls import LADDER, config, numbers

ANNEALED = (
    "ncsn.anneal_Langevin_dynamics",
    "ncsn.anneal_Langevin_dynamics_inpainting",
    "ncsnv2.anneal_Langevin_dynamics",
    "ncsnv2.anneal_Langevin_dynamics_inpainting",
    "ncsnv2.anneal_Langevin_dynamics_interpolation",
)
INPAINTING = tuple(name for name in ANNEALED if name.endswith("inpainting"))
ENERGIES = (
    "ncsn.dsm",
    "ncsn.single_sliced_score_matching",
    "ncsn.partial_sliced_score_matching",
    "ncsn.sliced_score_matching",
    "ncsn.sliced_score_matching_vr",
)
ONE_PROJECTION = ENERGIES[1:3]
MANY_PROJECTIONS = (*ENERGIES[3:], "ncsn.sliced_score_estimation", "ncsn.sliced_score_estimation_vr")


def _one(call: str, what: str, name: str, bad: Any, error: type[Exception], *words: str, **good: Any) -> Row:
    return Row(what, call, lambda k: {name: bad}, error, (name, *words), lambda k: {name: good[name]} if good else {})


MASK = torch.ones(4, dtype=torch.bool)

NCSN = [
    *(
        row
        for call in ANNEALED
        for row in (
            _one(call, "ladder ascending", "sigmas", LADDER[::-1], ValueError, "ascends", "flip(0)"),
            _one(call, "ladder empty", "sigmas", [], ValueError, "at least one"),
            _one(call, "start is an array", "x_mod", numbers(2, 3, 4).numpy(), TypeError, "ndarray", "as_tensor"),
            _one(call, "start is a word", "x_mod", "uniform", TypeError, "torch.Tensor", "str"),
            _one(call, "start int", "x_mod", torch.ones(2, 3, 4).int(), TypeError, "torch.int32"),
            _one(call, "network missing", "scorenet", None, TypeError, "scorenet(x, labels)", "NoneType"),
            _one(call, "no updates", "n_steps_each", 0, ValueError, "from 1", "0", n_steps_each=1),
            _one(call, "step negative", "step_lr", -1e-3, ValueError, "above zero", "-0.001", step_lr=1e-3),
            _one(call, "keeps nothing", "keep_every", 0, ValueError, "from 1", "0", keep_every=9),
            _one(call, "seed float", "seed", 0.5, TypeError, "integer", "0.5", seed=1),
        )
    ),
    *(
        row
        for call in INPAINTING
        for row in (
            _one(call, "mask of numbers", "mask", MASK.float(), TypeError, "bool", "mask.bool()", mask=MASK),
            _one(call, "mask wide", "mask", MASK.repeat(2), ValueError, "(2, 3, 4)", "(8,)", mask=MASK),
            _one(call, "mask of another batch", "mask", MASK.expand(3, 3, 4), ValueError, "(2, 3, 4)", "(3, 3, 4)"),
            _one(call, "image wide", "refer_image", numbers(2, 3, 5), ValueError, "(2, 3, 4)", "(2, 3, 5)"),
            _one(
                call,
                "image of another batch",
                "refer_image",
                numbers(3, 3, 4),
                ValueError,
                "(2, 3, 4)",
                "(3, 3, 4)",
                refer_image=numbers(1, 3, 4),
            ),
            _one(call, "image elsewhere", "refer_image", numbers(2, 3, 4).to(META), ValueError, "on meta", "on cpu"),
            _one(call, "image int", "refer_image", torch.ones(2, 3, 4).int(), TypeError, "torch.int32"),
            Row(
                "fills of other images",
                call,
                lambda k: {"x_mod": numbers(2, 2, 3, 4, 4), "refer_image": numbers(3, 3, 4, 4)},
                ValueError,
                ("refer_image", "(R, K, C, H, W)", "(2, 2, 3, 4, 4)", "(3, 3, 4, 4)"),
                lambda k: {"x_mod": numbers(2, 2, 3, 4, 4), "refer_image": numbers(2, 3, 4, 4)},
            ),
            *(
                Row(
                    f"fills of {name}",
                    call,
                    lambda k, image=image: {"x_mod": numbers(2, 3, 1, 4, 4), "refer_image": image},
                    ValueError,
                    ("refer_image", "(R, C, H, W)", str(tuple(image.shape)), "(2, 3, 1, 4, 4)", "expand(2, 1, 4, 4)"),
                    lambda k: {"x_mod": numbers(2, 3, 1, 4, 4), "refer_image": numbers(2, 1, 4, 4)},
                )
                for name, image in {
                    "as many images as fills": numbers(3, 1, 4, 4),
                    "one image": numbers(1, 1, 4, 4),
                    "an image without a batch": numbers(1, 4, 4),
                    "one number": numbers(1)[0],
                }.items()
            ),
        )
    ),
    _one(INPAINTING[1], "width of others", "image_size", 32, ValueError, "4", "32", image_size=4),
    _one(INPAINTING[1], "width float", "image_size", 4.0, TypeError, "integer", "4.0", image_size=4),
    _one(ANNEALED[4], "one point", "n_interpolations", 1, ValueError, "from 2", "1", n_interpolations=3),
    _one(
        ANNEALED[4],
        "two seeds",
        "seed",
        torch.zeros(2, dtype=torch.int64),
        ValueError,
        "one seed",
        seed=torch.tensor(3),
    ),
    *(
        row
        for call in ("ncsn.Langevin_dynamics", "ncsn.baseline_Langevin_dynamics")
        for row in (
            _one(call, "start is a list", "x_mod", [[0.0]], TypeError, "torch.Tensor", "list"),
            _one(call, "network missing", "scorenet", None, TypeError, "callable", "NoneType"),
            _one(call, "updates negative", "n_steps", -1, ValueError, "-1", n_steps=0),
            _one(call, "step zero", "step_lr", 0.0, ValueError, "above zero", step_lr=1e-3),
        )
    ),
    _one("ncsn.Langevin_dynamics", "label negative", "label", -1, ValueError, "-1", label=0),
    *(
        row
        for call in ("ncsn.toy_langevin_dynamics", "ncsn.toy_anneal_langevin_dynamics")
        for row in (
            _one(call, "rate zero", "lr", 0.0, ValueError, "above zero", lr=0.1),
            _one(call, "start is a list", "init", [[0.0]], TypeError, "list"),
            _one(call, "score missing", "score", None, TypeError, "callable"),
        )
    ),
    _one("ncsn.toy_langevin_dynamics", "updates float", "step", 1.5, TypeError, "integer", "1.5", step=1),
    _one("ncsn.toy_anneal_langevin_dynamics", "ladder ascending", "sigmas", LADDER[::-1], ValueError, "ascends"),
    *(
        row
        for call in ENERGIES
        for row in (
            _one(call, "energy missing", "energy_net", None, TypeError, "energy_net(x)", "NoneType"),
            _one(call, "seed negative", "seed", -1, ValueError, "-1", seed=1),
        )
    ),
    _one("ncsn.dsm", "sigma zero", "sigma", 0, ValueError, "above zero", sigma=1),
    _one("ncsn.dsm_score_estimation", "sigma negative", "sigma", -0.1, ValueError, "above zero", sigma=0.1),
    *(
        row
        for call in ONE_PROJECTION
        for row in (
            _one(
                call,
                "kind of today's spelling",
                "noise_type",
                "rademacher",
                ValueError,
                "radermacher, sphere, gaussian",
                noise_type="radermacher",
            ),
            _one(call, "projection wide", "noise", numbers(2, 4), ValueError, "(2, 3)", "(2, 4)", noise=numbers(2, 3)),
            _one(call, "projection a list", "noise", [1.0], TypeError, "torch.Tensor", "list", noise=numbers(2, 3)),
        )
    ),
    *(
        Row("no projection", call, lambda k: {"n_particles": 0}, ValueError, ("n_particles", "from 1"))
        for call in MANY_PROJECTIONS
    ),
    *(
        row
        for call in (
            "ncsn.anneal_dsm_score_estimation",
            "ncsn.anneal_sliced_score_estimation_vr",
            "ncsnv2.anneal_dsm_score_estimation",
        )
        for row in (
            _one(call, "ladder ascending", "sigmas", LADDER[::-1], ValueError, "ascends"),
            _one(call, "label too large", "labels", torch.tensor([0, 2]), ValueError, "2", labels=torch.tensor([1, 1])),
            Row(
                "labels and ladder exchanged",
                call,
                lambda k: {"labels": k["sigmas"], "sigmas": k["labels"]},
                ValueError,
                ("sigmas", "above zero"),
            ),
        )
    ),
    _one("ncsnv2.anneal_dsm_score_estimation", "hook a word", "hook", "log", TypeError, "hook(loss, labels)", "str"),
    _one(
        "ncsnv2.get_sigmas", "unknown ladder", "config", config(sigma_dist="karras"), NotImplementedError, "sigma_dist"
    ),
    Row(
        "ladder ascending", "ncsnv2.get_sigmas", lambda k: {"config": config(sigma_begin=0.01)}, ValueError, ("larger",)
    ),
]
