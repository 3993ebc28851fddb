"""Kinds of modules that people build networks of, for images (1, 8, 8) and five classes: each a function of a seed."""

import torch
from torch import nn
from torch.nn import functional as F
from torch.nn.utils import parametrizations, prune

from lib import tasks


def task(n=60):
    """Images of five prototypes and noise."""
    generator = torch.Generator().manual_seed(0)
    y = torch.arange(n) % 5
    x = torch.randn(n, 1, 8, 8, generator=generator) + 2 * torch.randn(5, 1, 8, 8, generator=generator)[y]
    return tasks.from_tensors(x, y, x[:20], y[:20], name="kinds", device="cpu")


def chain(*makers):
    """Modules one after another, made under the seed."""

    def make(seed):
        torch.manual_seed(seed)
        return nn.Sequential(*[each() for each in makers])

    return make


def dense(*between, width=12):
    """Two linear layers with other modules between them."""
    return chain(nn.Flatten, lambda: nn.Linear(64, width), *between, lambda: nn.Linear(width, 5))


def conv(*between, first=lambda: nn.Conv2d(1, 6, 3), width=216):
    """A convolution and a linear layer with other modules between them."""
    return chain(first, *between, nn.Flatten, lambda: nn.Linear(width, 5))


def norm(kind, **options):
    """A norm behind the convolution."""
    return conv(lambda: kind(6, **options), nn.ReLU)


class Function(nn.Module):
    """A function of two linear layers and the images."""

    def __init__(self, function, seed, **parts):
        super().__init__()
        torch.manual_seed(seed)
        self.a, self.b = nn.Linear(64, 16), nn.Linear(16, 5)
        self.function = function
        for name, part in parts.items():
            setattr(self, name, part())

    def forward(self, x):
        return self.function(self, x)


def function(of, **parts):
    """``net(seed)`` of a function of (module, images), and what it needs beside two linear layers."""
    return lambda seed: Function(of, seed, **parts)


class Optional(Function):
    """An argument with a default."""

    def forward(self, x, mask=None, scale=3.0):
        x = self.a(x.flatten(1))
        return self.b(x * scale if mask is None else x * mask)


def tied_bias(seed):
    net = Function(lambda m, x: m.b(torch.relu(m.c(torch.relu(rows(m, x))))), seed, c=lambda: nn.Linear(16, 16))
    nn.init.normal_(net.a.bias)
    net.c.bias = net.a.bias
    return net


def hooked(register, hook):
    """A linear network, one module of which has a hook."""

    def make(seed):
        net = dense(nn.ReLU)(seed)
        getattr(net[3], register)(hook)
        return net

    return make


def reparametrised(by, **options):
    """A linear network, the weight of a layer of which is computed from other parameters."""

    def make(seed):
        net = dense(nn.ReLU)(seed)
        by(net[1], **options)
        return net

    return make


class Double(torch.autograd.Function):
    """Twice the input, with a gradient of its own."""

    @staticmethod
    def forward(ctx, x):
        return 2 * x

    @staticmethod
    def backward(ctx, gradient):
        return 3 * gradient


def attention(m, x):
    x = x.flatten(1, 2)
    return m.c(m.attention(x, x, x, need_weights=False)[0].flatten(1))


def last_state(m, x):
    return m.c(m.cell(x.flatten(1, 2))[0][:, -1])


def tokens(x):
    return (x.flatten(1) * 2).round().long().clamp(-4, 4) + 4


def frozen(seed):
    net = dense(nn.ReLU)(seed)
    torch.manual_seed(7)
    nn.init.normal_(net[1].weight)
    net[1].requires_grad_(False)
    return net


def checkpointed(m, x):
    hidden = torch.utils.checkpoint.checkpoint(m.a, x.flatten(1), use_reentrant=False)
    return m.b(torch.relu(hidden))


head = lambda width: lambda: nn.Linear(width, 5)  # noqa: E731
rows = lambda m, x: m.a(x.flatten(1))  # noqa: E731
GROUPED = {
    "linear": dense(nn.ReLU),
    "convolution": conv(nn.ReLU),
    "strided and dilated convolution": conv(nn.ReLU, first=lambda: nn.Conv2d(1, 6, 3, 2, 2, dilation=2), width=96),
    "grouped convolution": conv(lambda: nn.Conv2d(6, 6, 3, groups=3, bias=False), nn.SiLU, width=96),
    "depthwise convolution": conv(lambda: nn.Conv2d(6, 12, 3, groups=6), nn.GELU, width=192),
    "max pooling": conv(nn.ReLU, lambda: nn.MaxPool2d(2), width=54),
    "average pooling": conv(nn.Tanh, lambda: nn.AdaptiveAvgPool2d(2), width=24),
    "batch norm": norm(nn.BatchNorm2d),
    "batch norm of rows": dense(lambda: nn.BatchNorm1d(12), nn.ReLU),
    "batch norm, momentum 0": norm(nn.BatchNorm2d, momentum=0.0),
    "batch norm without affine": norm(nn.BatchNorm2d, affine=False),
    "batch norm without statistics": norm(nn.BatchNorm2d, track_running_stats=False),
    "group norm": conv(lambda: nn.GroupNorm(2, 6), nn.ReLU),
    "tied bias": tied_bias,
    "tied layers": function(lambda m, x: m.b(torch.relu(m.c(torch.relu(m.c(rows(m, x)))))),
                            c=lambda: nn.Linear(16, 16)),
    "branch in training": function(
        lambda m, x: m.b(rows(m, x)) + m.c(x.flatten(1)) if m.training else m.b(rows(m, x)), c=head(64)),
    "two branches from the input": function(
        lambda m, x: m.b(rows(m, x)) + m.d(torch.relu(m.c(x)).flatten(1)), c=lambda: nn.Conv2d(1, 4, 3), d=head(144)),
    "residual to the input": function(lambda m, x: m.b(m.a(torch.flatten(x + m.c(x), 1))),
                                      c=lambda: nn.Conv2d(1, 1, 3, padding=1)),
    "unused layer": function(lambda m, x: m.b(rows(m, x)), c=lambda: nn.Linear(3, 3)),
    "frozen layer": frozen,
    "checkpointed layer": function(checkpointed),
}  # fmt: skip
OTHERS = {
    "circular padding": conv(nn.ReLU, first=lambda: nn.Conv2d(1, 6, 3, padding=1, padding_mode="circular"), width=384),
    "transposed convolution": conv(lambda: nn.ConvTranspose2d(6, 3, 3), nn.ReLU, width=192),
    "batch norm, momentum None": norm(nn.BatchNorm2d, momentum=None),
    "instance norm": norm(nn.InstanceNorm2d, affine=True),
    "group norm of rows": dense(lambda: nn.GroupNorm(3, 12), nn.ReLU),
    "layer norm": dense(lambda: nn.LayerNorm(12), nn.ReLU),
    "RMS norm": dense(lambda: nn.RMSNorm(12), nn.ReLU),
    "local response norm": conv(lambda: nn.LocalResponseNorm(2), nn.ReLU),
    "PReLU": dense(nn.PReLU),
    "bilinear": function(lambda m, x: m.c(rows(m, x), rows(m, x)), c=lambda: nn.Bilinear(16, 16, 5)),
    "embedding": function(lambda m, x: m.b(m.c(tokens(x)).mean(1)), c=lambda: nn.Embedding(9, 16)),
    "embedding with padding": function(lambda m, x: m.b(m.c(tokens(x)).sum(1)),
                                       c=lambda: nn.Embedding(9, 16, padding_idx=4)),
    "convolution of sequences": function(lambda m, x: m.b(m.c(x.flatten(2)).mean(2)), c=lambda: nn.Conv1d(1, 16, 5)),
    "LSTM": function(last_state, cell=lambda: nn.LSTM(8, 6, batch_first=True), c=head(6)),
    "GRU": function(last_state, cell=lambda: nn.GRU(8, 6, batch_first=True), c=head(6)),
    "attention": function(attention, attention=lambda: nn.MultiheadAttention(8, 2, batch_first=True), c=head(64)),
    "transformer": function(lambda m, x: m.d(m.c(x.flatten(1, 2)).flatten(1)), d=head(64),
                            c=lambda: nn.TransformerEncoderLayer(8, 2, 16, dropout=0.0, batch_first=True)),
    "forward hook": hooked("register_forward_hook", lambda module, inputs, output: 3 * output),
    "forward pre-hook": hooked("register_forward_pre_hook", lambda module, inputs: (2 * inputs[0],)),
    "backward hook": hooked("register_full_backward_hook", lambda module, inputs, outputs: (2 * inputs[0],)),
    "hook of a parameter": lambda seed: (net := dense(nn.ReLU)(seed), net[1].weight.register_hook(lambda g: 2 * g))[0],
    "optional argument": lambda seed: Optional(None, seed),
    "linear over rows": function(lambda m, x: m.b(m.c(x).flatten(1)), c=lambda: nn.Linear(8, 2)),
    "concatenation": function(lambda m, x: m.c(torch.cat([rows(m, x), x.flatten(1)], 1)), c=head(80)),
    "product of branches": function(lambda m, x: m.b(rows(m, x) * torch.sigmoid(m.c(x.flatten(1)))),
                                    c=lambda: nn.Linear(64, 16)),
    "bare parameter": function(lambda m, x: m.b(m.scale * rows(m, x)), scale=lambda: nn.Parameter(torch.rand(16))),
    "einsum": function(lambda m, x: m.b(torch.einsum("bchw,hk->bk", x, m.w)),
                       w=lambda: nn.Parameter(torch.randn(8, 16))),
    "function with a gradient of its own": function(lambda m, x: m.b(Double.apply(rows(m, x)))),
    "way by the data": function(lambda m, x: m.b(rows(m, x) * (2 if x.sum() > 0 else 3))),
    "view": chain(nn.Flatten, lambda: Function(lambda m, x: m.b(m.a(x.view(x.size(0), -1))), 0)),
    "weight norm": reparametrised(parametrizations.weight_norm),
    "weight norm of the old kind": reparametrised(nn.utils.weight_norm),
    "pruned": reparametrised(prune.l1_unstructured, name="weight", amount=0.5),
    "spectral norm": reparametrised(parametrizations.spectral_norm),
    "spectral norm of the old kind": reparametrised(nn.utils.spectral_norm),
    "instance norm with statistics": norm(nn.InstanceNorm2d, track_running_stats=True),
    "random projection": function(lambda m, x: m.b(torch.tanh(x.flatten(1) @ m.c)),
                                  c=lambda: nn.Buffer(torch.randn(64, 16))),
    "unrolled code": function(lambda m, x: F.linear(F.relu(F.linear(x.flatten(1), m.a.weight)), m.b.weight, m.b.bias)),
}  # fmt: skip
KINDS = GROUPED | OTHERS
