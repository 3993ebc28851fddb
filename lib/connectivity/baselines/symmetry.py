"""Which permutations of a network's units leave its function alone, derived from its traced data flow.

Permuting the output channels of one layer and the input channels of every layer that reads them changes nothing
(Ainsworth et al., Git Re-Basin, arXiv 2209.04836, who write the groups down by hand for each network). Here a
model is run once on traced tensors, and every axis of every parameter is followed through the operations:

* an operation that matches two axes (the contracted axes of a product, a sum of two branches, the gain of a
  normalisation and its channels) says that they are permuted together: chains, residual nets, batch and layer
  norm, depthwise convolutions and positional embeddings follow from this;
* an axis that is flattened with the axes behind it (channels and pixels before a linear layer) is permuted in
  blocks;
* the images, the logits, and every axis that meets an operation that is not listed here stay as they are (the
  identity): grouped convolutions, channel shuffles, concatenations, attention heads. Less is aligned then, but
  the function of the network stays what it was.
"""

import math
import operator
from collections import defaultdict
from typing import NamedTuple

import torch
from torch.func import functional_call
from torch.fx.experimental.proxy_tensor import make_fx

from lib.errors import InputError
from lib.scopes import computation, evaluation

_aten = torch.ops.aten


class Member(NamedTuple):
    """An axis of a tensor that a group permutes, in blocks of ``inner`` entries."""

    name: str
    axis: int
    inner: int


class Group(NamedTuple):
    """Units that may be permuted, and every axis that must be permuted with them."""

    size: int
    members: tuple[Member, ...]


def groups(model, task=None, *, example=None):
    """The permutation groups of a model.

    Parameters
    ----------
    model : torch.nn.Module
        Any model of one input, in the function that it has in eval mode; it stays as it is.
    task : lib.tasks.Task, optional
        Gives the example input: its first two test images.
    example : tensor, optional
        An example input, instead of a task.

    Returns
    -------
    list of Group
        In the order of the parameters; members name parameters and buffers.

    Raises
    ------
    InputError
        If the model cannot be traced.
    """
    # On the CPU, where a batch norm is one and the same operation whatever the machine.
    state = {name: tensor.detach().cpu() for name, tensor in [*model.named_parameters(), *model.named_buffers()]}
    nodes = _trace(model, state, (task.test.x[:2] if example is None else example).cpu())
    axes = _Axes()
    flow = _Flow(axes)
    inputs = [node for node in nodes if node.op == "placeholder"]
    labels = {}
    for node, (name, tensor) in zip(inputs, state.items(), strict=False):
        labels[name] = [axes.new(size) if node.users else None for size in tensor.shape]
        flow.labels[node] = labels[name]
    for node in nodes:
        flow.follow(node)
    return _collect(axes, labels)


def _trace(model, state, example):
    def forward(tensors, x):
        return functional_call(model, dict(zip(state, tensors, strict=True)), (x,))

    try:
        with computation(), evaluation(model), torch.no_grad():
            return list(make_fx(forward)(list(state.values()), example).graph.nodes)
    except Exception as error:  # control flow on data, an operator of its own: whatever stops the tracer
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise InputError(f"model: cannot be traced, so its permutations are unknown ({reason})") from None


def _collect(axes, labels):
    members = defaultdict(list)
    for name, found in labels.items():
        for axis, label in enumerate(found):
            if label is not None:
                root, inner = axes.find(label)
                if root not in axes.fixed and axes.size[root] > 1:
                    members[root].append(Member(name, axis, inner))
    return [Group(axes.size[root], tuple(found)) for root, found in members.items()]


class _Axes:
    """Axes that are permuted together (union-find). A label is (axis, entries in each of its units) or None for
    an axis that stays as it is."""

    def __init__(self):
        self.parent, self.size, self.fixed = [], [], set()

    def new(self, size):
        self.parent.append((len(self.parent), 1))
        self.size.append(size)
        return len(self.parent) - 1, 1

    def find(self, label):
        axis, inner = label
        while self.parent[axis][0] != axis:
            axis, blocks = self.parent[axis]
            inner *= blocks
        return axis, inner

    def fix(self, *labels):
        self.fixed.update(self.find(label)[0] for label in labels if label is not None)

    def join(self, a, b):
        """Permute two axes of one length together; where their blocks do not fit each other, neither."""
        if a is None or b is None:
            return self.fix(a, b)
        (a, inner_a), (b, inner_b) = sorted([self.find(a), self.find(b)], key=lambda found: -found[1])
        if a == b and inner_a == inner_b:
            return None
        if a == b or inner_a % inner_b:
            return self.fix((a, 1), (b, 1))
        self.parent[b] = (a, inner_a // inner_b)
        return self.fix((a, 1)) if b in self.fixed else None


class _Flow:
    """Labels of the axes of every intermediate result, and the rule for each operation."""

    def __init__(self, axes):
        self.axes, self.labels = axes, {}

    def follow(self, node):
        if node.op == "placeholder":
            self.labels.setdefault(node, self.unmoved(node))
        elif node.op == "output" or (result := self.result(node)) is None:
            for each in node.all_input_nodes:
                self.axes.fix(*_flat(self.labels[each]))
            self.labels[node] = self.unmoved(node)
        else:
            self.labels[node] = result

    def unmoved(self, node):
        value = node.meta.get("val")
        if isinstance(value, tuple | list):
            return [[None] * getattr(part, "ndim", 0) for part in value]
        return [None] * getattr(value, "ndim", 0)

    def result(self, node):
        """Labels of the result of an operation, or None where there is no rule for it."""
        if node.target is operator.getitem:
            return self.labels[node.args[0]][node.args[1]]
        packet = getattr(node.target, "overloadpacket", None)
        if packet in _RULES:
            return _RULES[packet](self, node, *node.args)
        if torch.Tag.pointwise in getattr(node.target, "tags", ()):
            return self.pointwise(node)
        return None

    def pointwise(self, node):
        shape, result = _shape(node), []
        for axis in range(-len(shape), 0):
            full = [self.labels[each][axis] for each in node.all_input_nodes
                    if len(_shape(each)) >= -axis and _shape(each)[axis] == shape[axis]]  # fmt: skip
            for label in full[1:]:
                self.axes.join(full[0], label)
            result.append(full[0] if full else None)
        return result

    def convolution(self, node, x, weight, bias, *options):
        groups, transposed = options[-1], options[3]
        data, kernel = self.labels[x], self.labels[weight]
        depthwise = groups == _shape(x)[1] == _shape(weight)[0]
        if transposed or not (groups == 1 or depthwise):
            return None
        self.axes.join(data[1], kernel[0 if depthwise else 1])
        self.axes.fix(*kernel[2:], *data[2:])
        if bias is not None:
            self.axes.join(kernel[0], self.labels[bias][0])
        return [data[0], kernel[0]] + [None] * (len(data) - 2)

    def batch_norm(self, node, x, *tensors):
        for tensor in tensors[:4]:
            if tensor is not None:
                self.axes.join(self.labels[x][1], self.labels[tensor][0])
        return [self.labels[x], [None], [None]]

    def layer_norm(self, node, x, shape, *tensors):
        last = self.labels[x][-len(shape) :]
        for tensor in tensors[:2]:
            for a, b in zip(last, self.labels[tensor] if tensor is not None else (), strict=False):
                self.axes.join(a, b)
        return [self.labels[x], [None] * len(self.labels[x]), [None] * len(self.labels[x])]

    def product(self, node, x, y):
        left, right = self.labels[x], self.labels[y]
        self.axes.join(left[-1], right[-2])
        for a, b in zip(left[:-2], right[:-2], strict=True):
            self.axes.join(a, b)
        return [*left[:-1], right[-1]]

    def product_and_sum(self, node, bias, x, y):
        result = self.product(node, x, y)
        self.axes.join(result[-1], self.labels[bias][-1])
        return result if len(self.labels[bias]) == 1 else None

    def view(self, node, x, shape):
        """Match runs of axes that hold the same entries before and after."""
        before, after, result = _shape(x), _shape(node), []
        for left, right in _runs(before, after):
            result += self.reshaped(self.labels[x][left], before[left], after[right])
        return result

    def reshaped(self, labels, before, after):
        """Labels of a run of axes behind the change of shape: only a unit's own entries may join or leave it."""
        first = bool(labels and after) and labels[0] is not None and not any(labels[1:])
        if first and len(after) == 1:
            return [(labels[0][0], labels[0][1] * math.prod(before[1:]))]
        if first and len(before) == 1 and labels[0][1] % math.prod(after[1:]) == 0:
            return [(labels[0][0], labels[0][1] // math.prod(after[1:]))] + [None] * (len(after) - 1)
        self.axes.fix(*labels)
        return [None] * len(after)

    def pool(self, node, x, *options):
        self.axes.fix(*self.labels[x][2:])
        result = self.labels[x][:2] + [None] * (len(self.labels[x]) - 2)
        return [result, result] if isinstance(node.meta.get("val"), tuple | list) else result

    def reduce(self, node, x, axes=None, keep=False):
        axes = {axis % len(self.labels[x]) for axis in axes or range(len(self.labels[x]))}
        kept = [None if i in axes else label for i, label in enumerate(self.labels[x])]
        return kept if keep else [label for i, label in enumerate(kept) if i not in axes]

    def same(self, node, x, *options):
        return list(self.labels[x])

    def transpose(self, node, x, a=0, b=1):
        result = list(self.labels[x])
        if len(result) > 1:
            result[a], result[b] = result[b], result[a]
        return result

    def permute(self, node, x, axes):
        return [self.labels[x][axis] for axis in axes]


_RULES = {
    _aten.convolution: _Flow.convolution, _aten.native_batch_norm: _Flow.batch_norm,
    _aten.native_layer_norm: _Flow.layer_norm, _aten.mm: _Flow.product, _aten.bmm: _Flow.product,
    _aten.addmm: _Flow.product_and_sum, _aten.t: _Flow.transpose, _aten.transpose: _Flow.transpose,
    _aten.permute: _Flow.permute, _aten.view: _Flow.view, _aten._unsafe_view: _Flow.view,
    _aten.max_pool2d_with_indices: _Flow.pool, _aten.avg_pool2d: _Flow.pool,
    _aten._adaptive_avg_pool2d: _Flow.pool, _aten.mean: _Flow.reduce, _aten.sum: _Flow.reduce,
    _aten._softmax: _Flow.same, _aten.clone: _Flow.same, _aten.detach: _Flow.same, _aten.alias: _Flow.same,
}  # fmt: skip


def _shape(node):
    return tuple(getattr(node.meta.get("val"), "shape", ()))


def _flat(labels):
    return [each for label in labels for each in (label if isinstance(label, list) else [label])]


def _runs(before, after):
    """Pairs of slices of two shapes, as short as possible, that hold the same number of entries."""
    i = j = 0
    while i < len(before) or j < len(after):
        left, right, i, j = i, j, min(i + 1, len(before)), min(j + 1, len(after))
        while (rest := math.prod(before[left:i]) - math.prod(after[right:j])) != 0:
            i, j = (i + 1, j) if rest < 0 else (i, j + 1)
        yield slice(left, i), slice(right, j)
