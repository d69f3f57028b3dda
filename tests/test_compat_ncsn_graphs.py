"""Samplers of NCSN and NCSNv2 whose score runs Python at every update: no CUDA graph, which would not run it again."""

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map

import fastlangevin as fl
from fastlangevin.compat import ncsn, ncsnv2
from fastlangevin.samplers import replaying

LADDER = [1.0, 0.4, 0.1]
LR, SEED = 1e-3, 7
SHAPE = (4, 2, 4, 6)
START = fl.rand(SHAPE, seed=1, dtype=torch.float64)
REFERENCE = fl.rand(SHAPE, seed=2, dtype=torch.float64)


def net(x, labels):
    sigma = torch.tensor(LADDER, dtype=x.dtype)[labels].reshape(-1, *(1,) * (x.ndim - 1))
    return -torch.sin(3 * x) / (sigma**2 + 0.1)


class Tape(TorchDispatchMode):
    """Stands in for CUDA graphs: a replay makes the captured score's operations again, and runs none of its Python.

    The update around the score is called as it is.
    """

    def __init__(self):
        super().__init__()
        self.calls = []
        self.replays = 0
        self.chain = None

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        out = function(*args, **(kwargs or {}))
        self.calls.append((function, args, kwargs or {}, out))
        return out

    def warm(self, update):
        update()

    def capture(self, update):
        score = self.chain.score

        def recorded(*inputs):
            with self:
                self.inputs, self.out = inputs, score(*inputs)
            return self.out

        def replayed(*inputs):
            made = {id(old): new for old, new in zip(self.inputs, inputs, strict=True)}

            def now(value):
                return made.get(id(value), value) if isinstance(value, torch.Tensor) else value

            for function, args, kwargs, out in self.calls:
                again = function(*tree_map(now, args), **tree_map(now, kwargs))
                made |= dict(zip(map(id, tree_leaves(out)), tree_leaves(again), strict=True))
            return made[id(self.out)]

        def replay():
            self.replays += 1
            self.chain.score = replayed
            update()
            self.chain.score = score

        self.chain.score = recorded
        update()
        self.chain.score = score
        return replay

    def close(self):
        pass


@pytest.fixture
def tapes(monkeypatch):
    """The tapes of the chains that were long enough for one."""
    made = []

    class Steps(replaying.DeviceSteps):
        def __init__(self, chain):
            super().__init__(chain)
            made[-1].chain = chain

    def graphs_for(device):
        made.append(Tape())
        return made[-1]

    monkeypatch.setattr(replaying, "graphs_for", graphs_for)
    monkeypatch.setattr(replaying, "DeviceSteps", Steps)
    replaying._tell.cache_clear()
    return made


LONG = {"step_lr": LR, "seed": SEED}
COUNTING = {
    "annealed": (ncsn.anneal_Langevin_dynamics, (net, LADDER, 40), {**LONG, "strict": True}),
    "one level": (ncsn.Langevin_dynamics, (net, 120), {**LONG, "label": 1, "strict": True}),
    "baseline": (ncsn.baseline_Langevin_dynamics, (lambda x: -x, 120), {**LONG, "strict": True}),
    "inpainting": (ncsn.anneal_Langevin_dynamics_inpainting, (REFERENCE, net, LADDER, 40), {**LONG, "strict": True}),
    "inpainting of ncsnv2": (
        ncsnv2.anneal_Langevin_dynamics_inpainting,
        (REFERENCE, net, LADDER, 6, 40),
        {**LONG, "strict": True},
    ),
    "toy": (
        lambda start, *rest, **options: [ncsn.toy_anneal_langevin_dynamics(*rest[:1], start, *rest[1:], **options)],
        (lambda x, sigma: -torch.sin(3 * x) / (sigma**2 + 0.1), LADDER, LR, 40),
        {"seed": SEED},
    ),
}


@pytest.mark.parametrize("name", COUNTING)
def test_scores_that_run_python_are_not_replayed(name, tapes, monkeypatch):
    function, arguments, options = COUNTING[name]
    found = function(START, *arguments, **options)
    assert not any(tape.replays for tape in tapes)
    monkeypatch.setattr(replaying, "graphs_for", lambda device: None)
    expected = function(START, *arguments, **options)
    assert len(found) == len(expected)
    assert all(torch.equal(one, other) for one, other in zip(found, expected, strict=True))


def test_other_samplers_of_ncsn_are_replayed(tapes, monkeypatch):
    found = ncsn.anneal_Langevin_dynamics(START, net, LADDER, 40, **LONG)
    assert [tape.replays for tape in tapes] == [120 + 1]
    monkeypatch.setattr(replaying, "graphs_for", lambda device: None)
    expected = ncsn.anneal_Langevin_dynamics(START, net, LADDER, 40, **LONG)
    assert all(torch.equal(one, other) for one, other in zip(found, expected, strict=True))
