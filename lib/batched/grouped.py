"""N nodes of one architecture as one network: N times the channels, with ``groups=N``.

Nodes differ in their weights, not in their operations. Images of n nodes lie side by side in the channel
dimension, (B, n C, H, W): convolutions become grouped convolutions, batch norm over n C channels is exactly
batch norm per node, pooling and element-wise functions need no change. After flattening, features are
(n, B, F) and linear layers are batched matrix products. The model is traced once by ``torch.fx``; an
operation without a counterpart here raises :class:`UnsupportedError`, and the caller takes another way.
"""

import operator

import torch
from torch import fx, nn
from torch.nn import functional as F

ELEMENTWISE_MODULES = (
    nn.ReLU, nn.ReLU6, nn.LeakyReLU, nn.ELU, nn.GELU, nn.SiLU, nn.Tanh, nn.Sigmoid, nn.Identity,
)  # fmt: skip
POOLS = (nn.MaxPool2d, nn.AvgPool2d, nn.AdaptiveAvgPool2d, nn.AdaptiveMaxPool2d)
ELEMENTWISE_FUNCTIONS = (
    F.relu, torch.relu, F.leaky_relu, F.gelu, F.silu, torch.tanh, torch.sigmoid,
    operator.add, operator.iadd, torch.add,
)  # fmt: skip
POOL_FUNCTIONS = (F.max_pool2d, F.avg_pool2d, F.adaptive_avg_pool2d)


class UnsupportedError(Exception):
    """The model does something that has no grouped counterpart; the message says what."""


class GroupedNetwork:
    """The grouped network of a model.

    Parameters
    ----------
    model : torch.nn.Module
        Gives the operations; its own weights are not used.

    Raises
    ------
    UnsupportedError
        If the model cannot be traced or an operation has no counterpart.
    """

    def __init__(self, model):
        try:
            self.traced = fx.symbolic_trace(model)
        except Exception as error:  # tracing runs the model's own code: anything may come out of it
            raise UnsupportedError(f"torch.fx cannot trace it: {str(error).splitlines()[0]}") from None
        self.modules = dict(self.traced.named_modules())
        for node in self.traced.graph.nodes:
            self._check(node)

    def __call__(self, parameters, statistics, x, *, training):
        """Logits (n, B, classes).

        Parameters
        ----------
        parameters : dict of str to tensor (n, *shape)
        statistics : dict of str to tensor (n, C)
            Running mean and variance of batch norms, updated in place when training.
        x : tensor (B, n, C, H, W), or (B, C, H, W) for images that all nodes share
        training : bool
            Whether batch norm uses the statistics of the batch.
        """
        return _Run(self.traced, parameters, statistics, training).run(x)

    def _check(self, node):
        if node.op == "call_module":
            module = self.modules[node.target]
            if isinstance(module, nn.Conv2d) and module.padding_mode == "zeros":
                return
            if isinstance(module, nn.Dropout) and module.p == 0:
                return
            if isinstance(module, nn.Flatten) and (module.start_dim, module.end_dim) == (1, -1):
                return
            if isinstance(module, (nn.Linear, nn.BatchNorm2d, *POOLS, *ELEMENTWISE_MODULES)):
                return
            raise UnsupportedError(f"module {type(module).__name__} '{node.target}'")
        if node.op == "call_function":
            flat = node.target is torch.flatten and node.args[1:] == (1,)
            if not flat and node.target not in ELEMENTWISE_FUNCTIONS + POOL_FUNCTIONS:
                raise UnsupportedError(f"function {getattr(node.target, '__name__', node.target)}")
        if node.op in ("call_method", "get_attr"):
            raise UnsupportedError(f"{node.op} '{node.target}'")


class _Run(fx.Interpreter):
    """One pass of the traced model with stacked parameters."""

    def __init__(self, traced, parameters, statistics, training):
        super().__init__(traced)
        self.parameters, self.statistics, self.training = parameters, statistics, training
        self.nodes = len(next(iter(parameters.values())))

    def placeholder(self, target, args, kwargs):
        """Images as (B, n C, H, W), or (B, C, H, W) where all nodes share them."""
        x = super().placeholder(target, args, kwargs)
        self.shared = x.ndim == 4
        return (x if self.shared else x.flatten(1, 2)).contiguous(memory_format=torch.channels_last)

    def call_module(self, target, args, kwargs):
        """A layer, with the parameters of all nodes."""
        module = self.fetch_attr(target)
        if isinstance(module, nn.Conv2d):
            return self._convolve(module, target, args[0])
        if isinstance(module, nn.Linear):
            return self._linear(target, args[0])
        if isinstance(module, nn.BatchNorm2d):
            return self._batch_norm(module, target, args[0])
        if isinstance(module, nn.Flatten):
            return self._flatten(args[0])
        return module(*args, **kwargs)

    def call_function(self, target, args, kwargs):
        """A function; flattening is where channels are split by node."""
        return self._flatten(args[0]) if target is torch.flatten else target(*args, **kwargs)

    def _convolve(self, module, name, x):
        weight = self.parameters[f"{name}.weight"].flatten(0, 1)
        bias = self.parameters.get(f"{name}.bias")
        shared, self.shared = self.shared, False
        if shared and module.groups > 1:
            x, shared = x.repeat(1, self.nodes, 1, 1), False
        groups = module.groups * (1 if shared else self.nodes)
        bias = None if bias is None else bias.flatten()
        return F.conv2d(x, weight, bias, module.stride, module.padding, module.dilation, groups)

    def _linear(self, name, x):
        weight, bias = self.parameters[f"{name}.weight"], self.parameters.get(f"{name}.bias")
        if x.ndim == 4:
            x = self._flatten(x)
        product = weight.transpose(1, 2)
        return torch.bmm(x, product) if bias is None else torch.baddbmm(bias[:, None], x, product)

    def _batch_norm(self, module, name, x):
        if self.shared:
            x, self.shared = x.repeat(1, self.nodes, 1, 1), False
        parameters = [self.parameters.get(f"{name}.{part}") for part in ("weight", "bias")]
        running = [self.statistics.get(f"{name}.{part}") for part in ("running_mean", "running_var")]
        flat = [None if p is None else p.flatten().clone() for p in running]  # autograd keeps them: no views
        affine = [None if p is None else p.flatten() for p in parameters]
        from_batch = self.training or flat[0] is None
        result = F.batch_norm(x, *flat, *affine, from_batch, module.momentum, module.eps)
        if self.training:
            for kept, updated in zip(running, flat, strict=True):
                if kept is not None:
                    kept.copy_(updated.view_as(kept))
        return result

    def _flatten(self, x):
        """(B, n C, H, W) or (B, n F) to (n, B, F)."""
        if x.ndim == 3:
            return x
        if self.shared:
            self.shared = False
            return x.flatten(1).expand(self.nodes, -1, -1)
        return x.reshape(len(x), self.nodes, -1).transpose(0, 1)
