"""A network's parameters as one vector, or those of N networks as the rows of a matrix; what a weight tensor is.

The papers speak of a network as a point P and of its layers P_l. Here P is one contiguous vector and a layer is a
slice of it, so that a step towards another point, an SGD step or a copy is one operation on the vector. N networks of
one architecture, the nodes of a simulation above all, are the rows of one matrix and share one :class:`Layout`.
"""

import copy
import math
from dataclasses import dataclass
from functools import cached_property

import torch

from lib.batchnorm import batch_norms
from lib.errors import InputError


def is_weight(tensor):
    """Whether a parameter is a weight tensor: two dimensions or more, so no bias and no normalisation gain."""
    return tensor.ndim >= 2


@dataclass(frozen=True)
class Layout:
    """Where each parameter of a model lies in a vector (D,) or in rows (k, D) of all of them.

    Parameters
    ----------
    names : tuple of str
        In the order of the model.
    shapes : tuple of tuple of int
    frozen : frozenset of str
        Parameters that do not require gradients: they stay where they are.
    biases : bool
        Whether biases and normalisation parameters count among ``layers``.

    Examples
    --------
    >>> layout = Layout.of(torch.nn.Linear(3, 2))
    >>> layout.slices["bias"], layout.size, layout.layers
    (slice(6, 8, None), 8, ('weight',))
    >>> layout.state(torch.arange(8))["weight"]
    tensor([[0, 1, 2],
            [3, 4, 5]])
    """

    names: tuple[str, ...]
    shapes: tuple[tuple[int, ...], ...]
    frozen: frozenset[str] = frozenset()
    biases: bool = False

    @classmethod
    def of(cls, model, *, biases=False):
        """Layout of a ``torch.nn.Module``."""
        named = dict(model.named_parameters())
        frozen = frozenset(name for name, p in named.items() if not p.requires_grad)
        return cls(tuple(named), tuple(tuple(p.shape) for p in named.values()), frozen, biases)

    @cached_property
    def slices(self):
        """Slice of each parameter, by name."""
        slices, start = {}, 0
        for name, shape in zip(self.names, self.shapes, strict=True):
            slices[name] = slice(start, start + math.prod(shape))
            start += math.prod(shape)
        return slices

    @property
    def size(self):
        """Number of parameters, D."""
        return sum(math.prod(shape) for shape in self.shapes)

    @cached_property
    def layers(self):
        """Names of the weight tensors, which have a variance sphere; paper 2 calls them layers."""
        shapes = zip(self.names, self.shapes, strict=True)
        return tuple(name for name, shape in shapes if self.biases or is_weight(torch.empty(shape, device="meta")))

    def views(self, rows):
        """Rows (k, D) as parameters by name, (k, *shape)."""
        return {n: rows[:, self.slices[n]].view(len(rows), *s) for n, s in zip(self.names, self.shapes, strict=True)}

    def state(self, vector):
        """A vector (D,) as parameters by name (views)."""
        return {name: view[0] for name, view in self.views(vector[None]).items()}


class FlatModel:
    """A private copy of a model, its parameters and gradients laid out in two vectors.

    Attributes
    ----------
    module : torch.nn.Module
        The copy; its parameters are views of ``vector`` (D,), their gradients views of ``gradient`` (D,).
    layout : Layout
    frozen : set of str
        Parameters that never receive gradients: at first those that do not in the model.
    """

    def __init__(self, model):
        self.module, self.layout = copy_of(model), Layout.of(model)
        self.frozen = set(self.layout.frozen)
        self.vector = flatten(model)
        self.gradient = torch.zeros_like(self.vector)
        values, gradients = (self.layout.state(each) for each in (self.vector, self.gradient))
        for name, parameter in self.module.named_parameters():
            parameter.data, parameter.grad = values[name], gradients[name]

    def freeze(self, names):
        """Let only parameters receive gradients that are neither named nor frozen for good."""
        names = self.frozen.union(names)
        for name, parameter in self.module.named_parameters():
            parameter.requires_grad_(name not in names)


def copy_of(model):
    """A deep copy of a model.

    Weight norm, spectral norm and pruning of the old kind keep a result of their parameters as an attribute, which
    torch does not copy; the next call of the model computes it anew.
    """
    computed = [v for m in model.modules() for v in vars(m).values() if torch.is_tensor(v) and not v.is_leaf]
    copied = copy.deepcopy(model, {id(value): value.detach().clone() for value in computed})
    for parameter, own in zip(model.parameters(), copied.parameters(), strict=True):
        for hook in (parameter._backward_hooks or {}).values():  # torch copies hooks of modules, not of tensors
            own.register_hook(hook)
    return copied


def flatten(model):
    """The parameters of a model as one new vector (D,)."""
    return torch.cat([p.detach().reshape(-1) for p in model.parameters()])


def check_same_shape(a, b, what="modes"):
    """Raise :class:`InputError` unless two models have parameters of the same names and shapes, in modules of the same
    names and classes."""
    shapes = [{name: tuple(p.shape) for name, p in model.named_parameters()} for model in (a, b)]
    kinds = [{name or "model": type(m).__name__ for name, m in model.named_modules()} for model in (a, b)]
    for difference, (first, second) in (("shape", shapes), ("kind", kinds)):
        for name in [*first, *second]:
            if first.get(name) != second.get(name):
                found = f"{first.get(name, 'missing')} in the first and {second.get(name, 'missing')} in the second"
                raise InputError(f"{what} of different {difference}: '{name}' is {found}")


def check_ends(a, b):
    """Raise :class:`InputError` unless two modes can be the ends of a path.

    A path moves parameters. What else a mode consists of must be the same at both ends: buffers, but for the running
    statistics that batch norm gets anew (vectors of spectral norm, statistics of a frozen norm, random features), and
    parameters with ``requires_grad=False``, which stay where they are.
    """
    check_same_shape(a, b)
    if difference := _difference(a, b):
        raise InputError(f"modes: {difference}")


def same_constants(a, b):
    """Whether two modes of one shape are the same in all that a path does not move."""
    return _difference(a, b) is None


def _difference(a, b):
    """What keeps two modes from being the ends of a path, or None."""
    (first, moves), (second, moves_too) = (_constants(model) for model in (a, b))
    for name in [*first, *second]:
        if name not in moves & moves_too and not _equal(first.get(name), second.get(name)):
            if name in dict(a.named_parameters()):
                return f"'{name}' is frozen and differs, call requires_grad_() on it in both to let it move"
            return f"buffer '{name}' differs, and nothing computes it anew on a path: give both the same"
    return None


def _constants(model):
    """Parameters and buffers of a model, and the names of those that a path moves or computes anew."""
    parameters, buffers = (dict(named) for named in (model.named_parameters(), model.named_buffers()))
    moved = {name for name, p in parameters.items() if p.requires_grad}
    moved |= {f"{name}.{part}".lstrip(".") for name, norm in batch_norms(model).items() for part in norm._buffers}
    return parameters | buffers, moved | {n for n in buffers if n.endswith("num_batches_tracked")}


def _equal(first, second):
    return first is not None and second is not None and torch.equal(first, second.to(first.device))
