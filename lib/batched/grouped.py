"""N networks of one architecture as one network: N times the channels, with ``groups=N``.

Networks differ in their weights, not in their operations. Images of n networks lie side by side in the channel
dimension, (B, n C, H, W): convolutions become grouped convolutions, batch norm over n C channels is exactly
batch norm per network, group norm has n times the groups, pooling and element-wise functions need no change. After
flattening, features are (n, B, F) and linear layers are batched matrix products. The model is traced by ``torch.fx``,
in training and in eval mode; an operation without a counterpart here raises :class:`UnsupportedError`, and the caller
takes another way.
"""

import operator

import torch
from torch import fx, nn
from torch.nn import functional as F

from lib.errors import InputError

ELEMENTWISE_MODULES = (
    nn.ReLU, nn.ReLU6, nn.LeakyReLU, nn.ELU, nn.GELU, nn.SiLU, nn.Tanh, nn.Sigmoid, nn.Identity, nn.Dropout,
)  # fmt: skip
POOLS = (nn.MaxPool2d, nn.AvgPool2d, nn.AdaptiveAvgPool2d, nn.AdaptiveMaxPool2d)
WEIGHTED = (nn.Conv2d, nn.Linear, nn.BatchNorm1d, nn.BatchNorm2d, nn.GroupNorm)
ELEMENTWISE_FUNCTIONS = (
    F.relu, torch.relu, F.leaky_relu, F.gelu, F.silu, torch.tanh, torch.sigmoid,
    operator.add, operator.iadd, torch.add,
)  # fmt: skip
POOL_FUNCTIONS = (F.max_pool2d, F.avg_pool2d, F.adaptive_avg_pool2d)


class UnsupportedError(InputError):
    """The model does something that this way to run many networks cannot do; the message says what."""


class GroupedNetwork:
    """The grouped network of a model.

    Parameters
    ----------
    model : torch.nn.Module
        Gives the operations; its own weights are not used, its training flags change.
    ndim : int
        Dimensions of a batch of its inputs: 4 for images (B, C, H, W), 2 for rows (B, F).

    Raises
    ------
    UnsupportedError
        If the model cannot be traced or an operation has no counterpart.
    """

    title = "grouped"

    def __init__(self, model, ndim=4):
        if ndim not in (2, 4):
            raise UnsupportedError(f"inputs of {ndim} dimensions")
        self.model, self.ndim = model, ndim
        self.traced = {training: _trace(model.train(training)) for training in (True, False)}
        first = {}  # a parameter that several layers share has the name of the first one
        self.names = {n: first.setdefault(p, n) for n, p in model.named_parameters(remove_duplicate=False)}

    def __call__(self, parameters, buffers, x, *, training):
        """Outputs (n, B, ...).

        Parameters
        ----------
        parameters : dict of str to tensor (n, *shape)
        buffers : dict of str to tensor (n, *shape)
            The networks' own buffers; running statistics are updated in place when training.
        x : tensor (B, n, ...), or (B, ...) for inputs that all networks share
        training : bool or None
            Whether the networks are in training mode; None takes the flags that their modules have.
        """
        set_mode(self.model, training)
        parameters = {name: parameters[first] for name, first in self.names.items()}
        return _Run(self.traced[self.model.training], parameters, buffers, x.ndim == self.ndim).run(x)


def set_mode(model, training):
    """Put a model into training or eval mode, unless it is there."""
    if training is not None and model.training != training:
        model.train(training)


def _trace(model):
    try:
        traced = fx.symbolic_trace(model)
    except Exception as error:  # tracing runs the model's own code: anything may come out of it
        raise UnsupportedError(f"torch.fx cannot trace it: {first_line(error)}") from None
    for node in traced.graph.nodes:
        _check(node, traced)
    return traced


def first_line(error):
    """The first line of an error's message, or its kind where it has none."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


def _check(node, traced):
    if node.op == "call_module":
        module = traced.get_submodule(node.target)
        if not _has_counterpart(module):
            raise UnsupportedError(f"module {type(module).__name__} '{node.target}'")
    elif node.op == "call_function":
        if node.target not in ELEMENTWISE_FUNCTIONS + POOL_FUNCTIONS and not _flattens(node):
            raise UnsupportedError(f"function {getattr(node.target, '__name__', node.target)}")
    elif node.op == "get_attr" or (node.op == "call_method" and not _flattens(node)):
        raise UnsupportedError(f"{node.op} '{node.target}'")


def _has_counterpart(module):
    if isinstance(module, WEIGHTED):
        plain = {name for name, _ in module.named_parameters()} <= {"weight", "bias"}
        zeros, momentum = getattr(module, "padding_mode", "zeros") == "zeros", getattr(module, "momentum", 0)
        return plain and zeros and momentum is not None
    if isinstance(module, nn.Flatten):
        return (module.start_dim, module.end_dim) == (1, -1)
    return isinstance(module, POOLS + ELEMENTWISE_MODULES)


def _flattens(node):
    return node.target in (torch.flatten, "flatten") and node.args[1:] == (1,) and not node.kwargs


class _Run(fx.Interpreter):
    """One pass of the traced model with stacked parameters."""

    def __init__(self, traced, parameters, buffers, shared):
        super().__init__(traced)
        self.parameters, self.buffers, self.shared = parameters, buffers, shared
        self.networks = len(next(iter(parameters.values())))

    def run_node(self, node):
        """Any operation; whether it is the first one on images that all networks share is for convolutions."""
        self.first = self.shared and node.op == "call_module" and node.args[0].op == "placeholder"
        return super().run_node(node)

    def placeholder(self, target, args, kwargs):
        """Images as (B, n C, H, W), rows as (n, B, F)."""
        x = super().placeholder(target, args, kwargs)
        if x.ndim == 2 + (not self.shared):
            return x.expand(self.networks, -1, -1) if self.shared else x.transpose(0, 1)
        if self.shared:
            self.images = x.contiguous(memory_format=torch.channels_last)
            x = x.repeat(1, self.networks, 1, 1)
        else:
            x = x.flatten(1, 2)
        return x.contiguous(memory_format=torch.channels_last)

    def call_module(self, target, args, kwargs):
        """A layer, with the parameters of all networks."""
        module = self.fetch_attr(target)
        if isinstance(module, nn.Conv2d):
            return self._convolve(module, target, args[0])
        if isinstance(module, nn.Linear):
            return self._linear(module, target, args[0])
        if isinstance(module, (nn.BatchNorm1d, nn.BatchNorm2d)):
            return self._batch_norm(module, target, args[0])
        if isinstance(module, nn.GroupNorm):
            return self._group_norm(module, target, args[0])
        if isinstance(module, nn.Flatten):
            return self._flatten(args[0])
        return module(*args, **kwargs)

    def call_function(self, target, args, kwargs):
        """A function; flattening is where channels are split by network."""
        return self._flatten(args[0]) if target is torch.flatten else target(*args, **kwargs)

    def call_method(self, target, args, kwargs):
        """The one method that there is a counterpart for."""
        return self._flatten(args[0])

    def _weights(self, module, name):
        return [None if getattr(module, part) is None else self.parameters[f"{name}.{part}"]
                for part in ("weight", "bias")]  # fmt: skip

    def _convolve(self, module, name, x):
        weight, bias = self._weights(module, name)
        groups = module.groups * self.networks
        if self.first and module.groups == 1:  # once for all networks: n times the output channels
            x, groups = self.images, 1
        bias = None if bias is None else bias.flatten()
        return F.conv2d(x, weight.flatten(0, 1), bias, module.stride, module.padding, module.dilation, groups)

    def _linear(self, module, name, x):
        if x.ndim != 3:
            raise UnsupportedError(f"module Linear '{name}' of inputs that are not flat")
        weight, bias = self._weights(module, name)
        product = weight.transpose(1, 2)
        return torch.bmm(x, product) if bias is None else torch.baddbmm(bias[:, None], x, product)

    def _batch_norm(self, module, name, x):
        rows = x.ndim == 3
        if rows:
            x = x.transpose(0, 1).flatten(1)
        running = [self._statistics(module, f"{name}.{part}") for part in ("running_mean", "running_var")]
        flat = [None if p is None else p.flatten().clone() for p in running]  # autograd keeps them: no views
        affine = [None if p is None else p.flatten() for p in self._weights(module, name)]
        from_batch = module.training or flat[0] is None
        result = F.batch_norm(x, *flat, *affine, from_batch, module.momentum, module.eps)
        if module.training:
            for part, updated in zip(("running_mean", "running_var"), flat, strict=True):
                if f"{name}.{part}" in self.buffers:
                    self.buffers[f"{name}.{part}"].copy_(updated.view(self.networks, -1))
            if f"{name}.num_batches_tracked" in self.buffers:
                self.buffers[f"{name}.num_batches_tracked"] += 1
        return result.view(len(x), self.networks, -1).transpose(0, 1) if rows else result

    def _group_norm(self, module, name, x):
        if x.ndim != 4:
            raise UnsupportedError(f"module GroupNorm '{name}' of rows")
        affine = [None if p is None else p.flatten() for p in self._weights(module, name)]
        return F.group_norm(x, self.networks * module.num_groups, *affine, module.eps)

    def _statistics(self, module, name):
        shared = getattr(module, name.rpartition(".")[2])
        return self.buffers.get(name, None if shared is None else shared.expand(self.networks, -1))

    def _flatten(self, x):
        """(B, n C, H, W) to (n, B, C H W); what is flat already stays."""
        return x if x.ndim == 3 else x.reshape(len(x), self.networks, -1).transpose(0, 1)
