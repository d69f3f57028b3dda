"""What the tests of fuse share: blocks of one norm, and how networks are compared."""

import torch
from foreign_networks import conv, plus_plus
from torch import nn

LABELS = torch.tensor([2, 9])


def seeded(make):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return make()


def output(net, *inputs):
    with torch.no_grad():
        return net(*inputs)


def error(got, wanted):
    """Largest error of each sample relative to its largest output."""
    got, wanted = got.double().flatten(1), wanted.double().flatten(1)
    return ((got - wanted).abs().amax(1) / wanted.abs().amax(1)).max().item()


def everything(net):
    """Who stands where, of which class, with which attributes, parameters, buffers and hooks."""
    return [
        (name, id(module), type(module), {key: str(value) for key, value in vars(module).items()}, module.training)
        for name, module in net.named_modules(remove_duplicate=False)
    ]


class Path(nn.Module):
    """Does something in training only, and in evaluation lets through what it is given."""

    def forward(self, x):
        return x * (torch.rand(()) < 0.5) if self.training else x


class Block(nn.Module):
    """One norm between two convolutions, what stands behind it to be chosen."""

    def __init__(self, norm, behind=None, act=None):
        super().__init__()
        self.first, self.norm, self.last = conv(3, 8), norm, conv(8, 3)
        self.act = nn.ELU() if act is None else act
        self.drop, self.path, self.same = nn.Dropout(0.5), Path(), nn.Identity()
        self.behind = behind or (lambda self, h: self.act(h))

    def forward(self, x):
        return self.last(self.behind(self, self.norm(self.first(x))))


class Wrong(nn.Module):
    """Three vectors, and a formula of its own."""

    def __init__(self, formula, channels=8):
        super().__init__()
        self.alpha, self.gamma, self.beta = (nn.Parameter(torch.ones(channels)) for _ in range(3))
        self.formula = formula

    def forward(self, x, *rest):
        return self.formula(self, x, *rest)


def of(**slips):
    return Wrong(lambda self, x: plus_plus(x, self.gamma, self.alpha, self.beta, **slips))
