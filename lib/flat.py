"""A model whose parameters are views of one vector: moving, averaging and recording points in weight space.

The papers speak of a network as a point P and of its layers P_l. Here P is one contiguous vector and a layer
is a slice of it, so that a step towards another point, an SGD step or a copy is one operation on the vector.
"""

import copy

import torch

from lib.batchnorm import batch_norms
from lib.errors import InputError


class FlatModel:
    """A private copy of a model, its parameters and gradients laid out in two vectors.

    Attributes
    ----------
    module : torch.nn.Module
        The copy; its parameters are views of ``vector`` (D,), their gradients views of ``gradient`` (D,).
    names : tuple of str
    slices : dict of str to slice
        Where each parameter lies in the vector, in the order of the model.
    frozen : set of str
        Parameters of the model that do not require gradients.
    """

    def __init__(self, model):
        self.module = copy_of(model)
        parameters = dict(self.module.named_parameters())
        self.names = tuple(parameters)
        self.frozen = {name for name, p in parameters.items() if not p.requires_grad}
        self.shapes = {name: p.shape for name, p in parameters.items()}
        self.slices, start = {}, 0
        for name, parameter in parameters.items():
            self.slices[name] = slice(start, start + parameter.numel())
            start += parameter.numel()
        self.vector = flatten(model)
        self.gradient = torch.zeros_like(self.vector)
        for name, parameter in parameters.items():
            parameter.data = self.view(self.vector, name)
            parameter.grad = self.view(self.gradient, name)

    def view(self, vector, name):
        """The part of a vector (D,) that holds one parameter, in the parameter's shape."""
        return vector[self.slices[name]].view(self.shapes[name])

    def state(self, vector):
        """A vector (D,) as parameters by name (views)."""
        return {name: self.view(vector, name) for name in self.names}

    def freeze(self, names):
        """Let only parameters receive gradients that are neither named nor frozen in the model."""
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
