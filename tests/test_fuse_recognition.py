"""Fusing networks of other classes: which norms and activations are taken, and what is left as it was."""

import random

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from foreign_networks import TableNorm, VectorNorm, conv, plus_plus
from fusing import LABELS, Block, Wrong, error, everything, of, output, seeded
from torch import nn

import fastlangevin as fl

pytestmark = pytest.mark.usefixtures("one_thread")


def overwriting(self, x):
    return x.copy_(plus_plus(x, self.gamma, self.alpha, self.beta))


def leaving_less(self, x):
    out = plus_plus(x, self.gamma, self.alpha, self.beta)
    x *= 0.5
    return out


def clamped(self, x):
    return plus_plus(x.clamp(-0.5, 0.5), self.gamma, self.alpha, self.beta)


def training_only(self, x):
    return plus_plus(x, self.gamma, self.alpha, self.beta) + 0.1 * self.training


class Doubled(nn.GroupNorm):
    def forward(self, x):
        return 2 * super().forward(x)


# The vectors are all ones, so that some slips change nothing here and only show by themselves.
@pytest.mark.parametrize(
    ("make", "why"),
    [
        (lambda: of(correction=0), "is not InstanceNorm"),
        (lambda: of(alpha_inside=False), "is not InstanceNorm"),
        (lambda: of(eps=1e-6), "epsilon 1e-06; the fused operation has 1e-05"),
        (lambda: of(eps=1e-3), "epsilon 0.001"),
        (lambda: Wrong(lambda self, x: F.elu(plus_plus(x, self.gamma, self.alpha, self.beta))), "is not InstanceNorm"),
        (lambda: Wrong(lambda self, x: self.gamma[:, None, None] * F.instance_norm(x)), "is not InstanceNorm"),
        (lambda: Wrong(lambda self, x: plus_plus(x, self.gamma, self.alpha, self.beta)[:, :, :4, :4]), "another kind"),
        (lambda: Wrong(training_only), "is not InstanceNorm"),
        (lambda: Wrong(overwriting), "in place on its input"),
        (lambda: Wrong(leaving_less), "in place on its input"),
        (lambda: Wrong(clamped), "differs from InstanceNorm++ by"),
        (lambda: Doubled(2, 8), "is not GroupNorm"),
    ],
    ids=lambda value: value.replace(" ", "-") if isinstance(value, str) else "",
)
def test_what_only_looks_like_such_a_norm_is_left(make, why):
    net, x = seeded(lambda: Block(make())).eval(), fl.randn((2, 3, 8, 8), seed=1)
    before, found = output(net, x), everything(net)
    report = fl.fuse(net, x)
    assert report.replaced == []
    (left,) = report.left
    assert left.name == "norm"
    assert why in left.why
    assert everything(net) == found
    assert torch.equal(output(net, x), before)
    # The same without the slip.
    assert len(fl.fuse(seeded(lambda: Block(of())), x).replaced) == 1


def doubly(self, h):
    return self.act(h) + 0.1 * h


def earlier(self, h):
    return 0.1 * h + self.act(h)


def mixed(self, h):
    return self.act(h) + self.act(0.5 - h.detach().roll(1))


def again(self, h):
    return self.act(self.norm(self.act(h))) + self.norm(h)


def kept(self, h):
    self.seen = h
    return self.act(h)


def through_numpy(self, h):
    return self.act(h) + float(h.numpy().mean())


def viewed(self, h):
    return self.act(h.view(h.shape)) + h.sum()


def hooked(name, hook=lambda module, args, out: None):
    block = Block(VectorNorm(8))
    getattr(block, name).register_forward_hook(hook)
    return block


@pytest.mark.filterwarnings("ignore:.*torch.jit.script:DeprecationWarning")
@pytest.mark.parametrize(
    ("make", "note"),
    [
        (lambda: Block(VectorNorm(8), doubly), "used by mul, too"),
        (lambda: Block(VectorNorm(8), earlier), "used by mul, too"),
        # What comes behind an activation in place sees its result, fused or not.
        (lambda: Block(VectorNorm(8), doubly, nn.ELU(inplace=True)), "ELU"),
        (lambda: Block(VectorNorm(8), earlier, nn.ELU(inplace=True)), "used by mul, too"),
        (lambda: Block(VectorNorm(8), mixed), "used by detach, too"),
        (lambda: Block(VectorNorm(8), lambda self, h: self.act(self.drop(h))), "used by dropout, too"),
        (lambda: Block(VectorNorm(8), lambda self, h: self.act(self.path(h))), "used by Path, too"),
        (lambda: Block(VectorNorm(8), lambda self, h: self.act(self.same(h))), "ELU"),
        (lambda: Block(VectorNorm(8), again), "used by"),
        (lambda: Block(VectorNorm(8), kept), "kept beyond the call"),
        (lambda: Block(VectorNorm(8), through_numpy), "used by"),
        (lambda: Block(VectorNorm(8), viewed), ""),
        # Inside of vmap Python's calls are of other tensors; what runs below is of this one.
        (lambda: Block(VectorNorm(8), lambda self, h: self.act(h) + torch.vmap(torch.sin)(h)), "used by sin, too"),
        (lambda: Block(VectorNorm(8), lambda self, h: F.elu(h)), "called as a function: make it an nn.ELU"),
        (lambda: Block(VectorNorm(8), act=nn.ELU(alpha=0.5)), "act has alpha 0.5"),
        (lambda: Block(VectorNorm(8), act=nn.LeakyReLU()), ""),
        (lambda: Block(VectorNorm(8), act=nn.SiLU()), "has ELU behind InstanceNorm++"),
        (lambda: Block(nn.GroupNorm(2, 8)), "has SiLU behind GroupNorm"),
        (lambda: Block(nn.GroupNorm(2, 8), lambda self, h: F.silu(h)), "make it an nn.SiLU"),
        (lambda: hooked("norm"), "the norm has hooks"),
        (lambda: hooked("norm", lambda module, args, out: 2 * out), ""),
        (lambda: hooked("act"), "act has hooks"),
    ],
    ids=lambda value: value.replace(" ", "-") if isinstance(value, str) else "",
)
def test_an_activation_that_cannot_move_stays_and_the_norm_is_fused_alone(make, note):
    net, x = seeded(make).eval(), fl.randn((2, 3, 8, 8), seed=1)
    before = output(net, x)
    if hasattr(net, "seen"):
        del net.seen
    report = fl.fuse(net, x)
    (replaced,) = report.replaced
    assert (replaced.activation, replaced.note) == ("ELU", "") if note == "ELU" else replaced.activation == ""
    assert note == "ELU" or (note in replaced.note if note else replaced.note == "")
    assert 0 < error(output(net, x), before) < 1e-5
    (control,) = fl.fuse(seeded(lambda: Block(VectorNorm(8))), x).replaced
    assert control.activation == "ELU"


def test_the_dropout_between_norm_and_activation_works_in_training():
    net, x = (
        seeded(lambda: Block(VectorNorm(8), lambda self, h: self.act(self.drop(h)))),
        fl.randn((2, 3, 8, 8), seed=1),
    )
    net.train()
    before = seeded(lambda: output(net, x))
    fl.fuse(net, x)
    assert error(seeded(lambda: output(net, x)), before) < 1e-5


def test_an_activation_with_norms_of_both_kinds_serves_neither_wrongly():
    # One reference, two norms in front of it: one is used twice, so neither can take the activation.
    class Two(nn.Module):
        def __init__(self):
            super().__init__()
            self.begin, self.one, self.other, self.act = conv(3, 8), VectorNorm(8), VectorNorm(8), nn.ELU()

        def forward(self, x):
            h = self.begin(x)
            other = self.other(h)
            return self.act(self.one(h)) + self.act(other) + other

    net, x = seeded(Two), fl.randn((2, 3, 8, 8), seed=1)
    before = output(net, x)
    notes = {each.name: each.note for each in fl.fuse(net, x).replaced}
    assert notes == {
        "one": "act also acts on other tensors of 4 dimensions",
        "other": "the norm's result is used by add, too",
    }
    assert error(output(net, x), before) < 1e-5


def test_one_activation_of_two_parents_is_told_apart_by_the_reference():
    # The outer block calls the inner one's activation, too: it must not lose it.
    class Outer(nn.Module):
        def __init__(self, borrowing):
            super().__init__()
            self.begin, self.inner, self.borrowing = conv(3, 3), Block(VectorNorm(8)), borrowing
            self.act = self.inner.act

        def forward(self, x):
            return (self.inner.act if self.borrowing else self.act)(self.inner(self.begin(x)))

    x = fl.randn((2, 3, 8, 8), seed=1)
    for borrowing, activation in ((True, ""), (False, "ELU")):
        net = seeded(lambda borrowing=borrowing: Outer(borrowing)).eval()
        before = output(net, x)
        (replaced,) = fl.fuse(net, x).replaced
        assert replaced.activation == activation
        assert error(output(net, x), before) < 1e-5


@pytest.mark.parametrize("how", ["position", "name", "scalar", "one"])
def test_labels_are_taken_as_the_norm_takes_them(how):
    class Labelled(nn.Module):
        def __init__(self):
            super().__init__()
            self.begin, self.norm, self.act = conv(3, 8), TableNorm(8), nn.ELU()

        def forward(self, x, y):
            h = self.begin(x)
            return self.act(self.norm(h, y=y) if how == "name" else self.norm(h, y))

    labels = {"scalar": torch.tensor(3), "one": torch.tensor([3])}.get(how, LABELS)
    net, x = seeded(Labelled).eval(), fl.randn((2, 3, 8, 8), seed=1)
    before = output(net, x, labels)
    assert fl.fuse(net, x, labels).replaced[0].activation == "ELU"
    assert error(output(net, x, labels), before) < 1e-5


def test_a_norm_that_cannot_be_tried_or_changed_is_left():
    class Odd(nn.Module):
        def __init__(self):
            super().__init__()
            self.begin, self.unused, self.patched, self.act = conv(3, 8), VectorNorm(8), VectorNorm(8), nn.ELU()
            self.patched.forward = lambda x: 2 * x
            self.reweighted = nn.GroupNorm(2, 8)
            nn.utils.parametrize.register_parametrization(self.reweighted, "weight", nn.Identity())
            self.counting = nn.GroupNorm(2, 8)
            self.counting.register_buffer("calls", torch.zeros(()))
            self.extra = Wrong(lambda self, x, mask: plus_plus(x, self.gamma, self.alpha, self.beta))

        def forward(self, x):
            return self.act(self.extra(self.patched(self.reweighted(self.counting(self.begin(x)))), x))

    report = fl.fuse(seeded(Odd), fl.randn((2, 3, 8, 8), seed=1))
    assert {each.name: each.why for each in report.left} == {
        "unused": "it is not called on the probe",
        "patched": "its forward is replaced on the instance",
        "reweighted": "it is parametrized, which changes its class, too: fuse after removing the parametrizations",
        "counting": "it has buffers",
        "extra": "it is called with (Tensor, Tensor)",
    }


def dropping(self, x):
    return F.dropout(plus_plus(x, self.gamma, self.alpha, self.beta), training=self.training)


def test_an_undoing_that_would_leave_half_a_fused_network_is_refused():
    net, x = seeded(lambda: Block(VectorNorm(8))), fl.randn((2, 3, 8, 8), seed=1)
    report = fl.fuse(net, x)
    fused = output(net, x)
    nn.utils.parametrize.register_parametrization(net.norm, "alpha", nn.Identity())
    with pytest.raises(RuntimeError, match="another class since, ParametrizedFusedVectorNorm"):
        report.undo()
    assert torch.equal(output(net, x), fused)
    nn.utils.parametrize.remove_parametrizations(net.norm, "alpha")
    report.undo()
    assert type(net.norm) is VectorNorm
    assert type(net.act) is nn.ELU


def test_a_score_that_is_the_gradient_of_an_energy_is_fused_whole():
    class Energy(Block):
        def forward(self, x):
            with torch.enable_grad():
                x = x.detach().requires_grad_()
                return torch.autograd.grad(super().forward(x).square().sum(), x)[0]

    net, x = seeded(lambda: Energy(VectorNorm(8))).eval(), fl.randn((2, 3, 8, 8), seed=1)
    before = output(net, x)
    with torch.inference_mode():
        (replaced,) = fl.fuse(net, x).replaced
    # The derivative of the activation reads the norm's result, which is no use of its own.
    assert replaced.activation == "ELU"
    assert 0 < error(output(net, x), before) < 1e-5


class Moody(nn.Module):
    """Changes whatever a network can change as it runs."""

    def __init__(self):
        super().__init__()
        self.begin, self.norm, self.act, self.drop = conv(3, 8), VectorNorm(8), nn.ELU(), nn.Dropout(0.5)
        self.odd, self.table = Wrong(dropping, 3), TableNorm(3)
        self.register_buffer("calls", torch.zeros(()))
        self.register_buffer("largest", torch.zeros(8), persistent=False)

    def forward(self, x):
        self.calls += 1
        x = self.table(self.odd(x.add_(0.1)), LABELS)
        noise = torch.randn(3, 1, 1) + random.random() + np.random.standard_normal()
        h = self.act(self.norm(self.begin(x + 0.1 * noise)))
        self.largest = h.amax((0, 2, 3))
        return self.drop(h)


def generators():
    return torch.get_rng_state().tolist(), random.getstate(), np.random.get_state()[1].tolist()


def test_all_else_is_left_as_it_was_found():
    net, x = seeded(Moody).train(), fl.randn((2, 3, 8, 8), seed=1).requires_grad_()
    net.drop.eval()
    net.norm.alpha.requires_grad_(False)
    calls, lookups = [], []
    net.begin.register_forward_hook(lambda module, args, out: calls.append(module))
    net.table.embed.register_forward_hook(lambda module, args, out: lookups.append(module))
    buffers, states, kept = dict(net.named_buffers()), generators(), x.detach().clone()
    found = everything(net)
    report = fl.fuse(net, x)
    assert [(each.name, each.activation) for each in report.replaced] == [("norm", "ELU"), ("table", "")]
    assert [each.name for each in report.left] == ["odd"]
    assert generators() == states
    assert torch.is_grad_enabled()
    assert torch.equal(x, kept)
    assert x.grad is None
    assert len(calls) == len(lookups) == 5
    assert all(buffers[name] is buffer for name, buffer in net.named_buffers())
    assert net.calls == 0
    assert net.largest.eq(0).all()
    assert net.training
    assert not net.drop.training
    assert [(name, parameter.requires_grad) for name, parameter in net.norm.named_parameters()] == [
        ("alpha", False),
        ("gamma", True),
        ("beta", True),
    ]
    # The activation that comes back has gone through what its stand-in has.
    net.eval()
    report.undo()
    assert not net.act.training
    net.train().drop.eval()
    assert everything(net) == found


def test_a_network_that_looks_at_its_activations_is_put_back():
    class Suspicious(Block):
        def forward(self, x):
            h = self.norm(self.first(x))
            return self.last(self.act(h) if type(self.act) is nn.ELU else F.elu(h))

    net, x = seeded(lambda: Suspicious(VectorNorm(8))).eval(), fl.randn((2, 3, 8, 8), seed=1)
    found = everything(net)
    with pytest.raises(RuntimeError, match=r"everything is put back\. Fusing norm alone changes it by"):
        fl.fuse(net, x)
    assert everything(net) == found


def test_a_probe_on_which_rounding_hides_everything_is_refused():
    class Magnifying(Block):
        def forward(self, x):
            return (1e5 * super().forward(x)).sin()

    with pytest.raises(RuntimeError, match="magnifies roundings on this probe so much"):
        fl.fuse(seeded(lambda: Magnifying(VectorNorm(8))), fl.randn((2, 3, 8, 8), seed=1))


def test_a_network_that_differs_from_run_to_run_may_differ_as_much():
    class Unsteady(Block):
        runs = 0

        def forward(self, x):
            self.runs += 1
            return super().forward(x) + 1e-3 * (self.runs in (2, 5))

    # As sums by atomic additions do: seen in the second of five runs, and met again in the last.
    net, x = seeded(lambda: Unsteady(VectorNorm(8))).eval(), fl.randn((2, 3, 8, 8), seed=1)
    report = fl.fuse(net, x)
    assert net.runs == 5
    assert 1e-4 < report.difference <= report.allowed
