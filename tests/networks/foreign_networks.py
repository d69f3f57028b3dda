"""Networks of other people's classes, by the formulas of the published ones, and slips that such classes could have."""

import torch
import torch.nn.functional as F
from torch import nn


def plus_plus(x, gamma, alpha, beta, *, eps=1e-5, correction=1, alpha_inside=True):
    """InstanceNorm++ in plain operations; the options are slips."""
    means = x.mean((2, 3))
    centre, spread = means.mean(1, keepdim=True), means.var(1, correction=correction, keepdim=True)
    means = ((means - centre) / torch.sqrt(spread + eps))[..., None, None]
    h = F.instance_norm(x, eps=eps)
    gamma, alpha = (each.reshape(-1, x.shape[1], 1, 1) for each in (gamma, alpha))
    out = gamma * (h + alpha * means) if alpha_inside else gamma * h + alpha * means
    return out if beta is None else out + beta.reshape(-1, x.shape[1], 1, 1)


class VectorNorm(nn.Module):
    def __init__(self, channels, bias=True, **slips):
        super().__init__()
        self.alpha = nn.Parameter(1 + 0.3 * torch.randn(channels))
        self.gamma = nn.Parameter(1 + 0.3 * torch.randn(channels))
        self.beta = nn.Parameter(0.3 * torch.randn(channels)) if bias else None
        self.slips = slips

    def forward(self, x):
        return plus_plus(x, self.gamma, self.alpha, self.beta, **self.slips)


class OtherNames(nn.Module):
    """The same with names and an order that say nothing."""

    def __init__(self, channels):
        super().__init__()
        self.a = nn.Parameter(0.3 * torch.randn(channels))
        self.b = nn.Parameter(1 + 0.3 * torch.randn(channels))
        self.c = nn.Parameter(1 + 0.3 * torch.randn(channels))

    def forward(self, x):
        return plus_plus(x, self.c, self.b, self.a)


class TableNorm(nn.Module):
    def __init__(self, channels, levels=10, bias=True):
        super().__init__()
        self.channels = channels
        self.instance_norm = nn.InstanceNorm2d(channels, affine=False, track_running_stats=False)
        self.embed = nn.Embedding(levels, channels * (3 if bias else 2))
        nn.init.normal_(self.embed.weight, 1, 0.3)

    def forward(self, x, y):
        means = x.mean((2, 3))
        relative = (means - means.mean(1, keepdim=True)) / (means.var(1, keepdim=True) + 1e-5).sqrt()
        gamma, alpha, *beta = self.embed(y)[..., None, None].split(self.channels, dim=-3)
        out = gamma * (self.instance_norm(x) + alpha * relative[..., None, None])
        return out + beta[0] if beta else out


def conv(inputs, outputs, **options):
    return nn.Conv2d(inputs, outputs, 3, padding=1, **options)


class Residual(nn.Module):
    def __init__(self, channels, norm, act):
        super().__init__()
        self.conv1, self.normalize2, self.act = conv(channels, channels), norm(channels), act
        self.conv2, self.normalize1 = conv(channels, channels), norm(channels)

    def forward(self, x, *y):
        h = self.conv1(self.act(self.normalize1(x, *y)))
        return x + self.conv2(self.act(self.normalize2(h, *y)))


class Units(nn.Module):
    def __init__(self, channels, norm, act):
        super().__init__()
        for stage in (1, 2):
            if norm is not None:
                self.add_module(f"1_{stage}_norm", norm(channels))
            self.add_module(f"1_{stage}_conv", conv(channels, channels, bias=False))
        self.act, self.normed = act, norm is not None

    def forward(self, x, *y):
        h = x
        for stage in (1, 2):
            if self.normed:
                h = getattr(self, f"1_{stage}_norm")(h, *y)
            h = getattr(self, f"1_{stage}_conv")(self.act(h))
        return x + h


class Fusion(nn.Module):
    """Multi-resolution fusion: no activation between norm and convolution."""

    def __init__(self, channels, norm):
        super().__init__()
        self.convs = nn.ModuleList(conv(channels, channels) for _ in range(2))
        self.norms = nn.ModuleList(norm(channels) for _ in range(2)) if norm is not None else None

    def forward(self, inputs, *y):
        total = 0
        for i, h in enumerate(inputs):
            h = self.convs[i](h if self.norms is None else self.norms[i](h, *y))
            total = total + F.interpolate(h, inputs[0].shape[2:], mode="bilinear", align_corners=True)
        return total


class Pooling(nn.Module):
    """Chained residual pooling: its activation sees no norm, and its norms no activation."""

    def __init__(self, channels, norm, act):
        super().__init__()
        self.convs = nn.ModuleList(conv(channels, channels, bias=False) for _ in range(2))
        self.norms = nn.ModuleList(norm(channels) for _ in range(2)) if norm is not None else None
        self.act = act

    def forward(self, x, *y):
        x = path = self.act(x)
        for i, one in enumerate(self.convs):
            path = path if self.norms is None else self.norms[i](path, *y)
            path = one(F.avg_pool2d(path, 5, 1, 2))
            x = x + path
        return x


class ScoreNet(nn.Module):
    """In the way of NCSN: two resolutions, one activation module for all blocks."""

    def __init__(self, channels=8, norm=TableNorm, refine_norm=TableNorm, act=None):
        super().__init__()
        self.act = nn.ELU() if act is None else act
        self.begin_conv, self.normalizer = conv(3, channels), norm(channels)
        self.end_conv = conv(channels, 3)
        self.res1 = nn.ModuleList([Residual(channels, norm, self.act)])
        self.res2 = nn.ModuleList([Residual(channels, norm, self.act)])
        self.adapt = nn.ModuleList(Units(channels, refine_norm, self.act) for _ in range(2))
        self.msf, self.crp = Fusion(channels, refine_norm), Pooling(channels, refine_norm, self.act)
        self.output = Units(channels, refine_norm, self.act)
        self.conditional = isinstance(self.normalizer, TableNorm)

    def forward(self, x, y):
        labels = (y,) if self.conditional else ()
        fine = self.begin_conv(2 * x - 1)
        for block in self.res1:
            fine = block(fine, *labels)
        coarse = F.avg_pool2d(fine, 2)
        for block in self.res2:
            coarse = block(coarse, *labels)
        h = self.msf([self.adapt[0](fine, *labels), self.adapt[1](coarse, *labels)], *labels)
        h = self.output(self.crp(h, *labels), *labels)
        return self.end_conv(self.act(self.normalizer(h, *labels)))


class TimeBlock(nn.Module):
    """A residual block with GroupNorm, SiLU, and the embedding of the noise level through the same activation."""

    def __init__(self, channels, act, dropout=0.0, groups=4):
        super().__init__()
        self.norm_0, self.norm_1 = (nn.GroupNorm(groups, channels, eps=1e-6) for _ in range(2))
        self.conv_0, self.conv_1 = (conv(channels, channels) for _ in range(2))
        self.dense, self.act, self.dropout = nn.Linear(2 * channels, channels), act, nn.Dropout(dropout)
        for norm in (self.norm_0, self.norm_1):
            nn.init.normal_(norm.weight, 1, 0.3)
            nn.init.normal_(norm.bias, 0, 0.3)

    def forward(self, x, embedding):
        h = self.conv_0(self.act(self.norm_0(x)))
        h = h + self.dense(self.act(embedding))[:, :, None, None]
        return (x + self.conv_1(self.dropout(self.act(self.norm_1(h))))) / 2**0.5


class TimeNet(nn.Module):
    """In the way of the networks of stochastic differential equations, its modules in one list."""

    def __init__(self, channels=8, act=None):
        super().__init__()
        self.act = nn.SiLU() if act is None else act
        self.all_modules = nn.ModuleList(
            [
                nn.Linear(1, 2 * channels),
                conv(3, channels),
                TimeBlock(channels, self.act, dropout=0.1),
                TimeBlock(channels, self.act),
                nn.GroupNorm(2, channels),
                conv(channels, 3),
            ]
        )

    def forward(self, x, time):
        first, begin, *blocks, norm, end = self.all_modules
        embedding = self.act(first(time[:, None]))
        h = begin(x)
        for block in blocks:
            h = block(h, embedding)
        return end(self.act(norm(h)))
