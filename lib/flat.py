"""A model whose parameters are views of one vector: moving, averaging and recording points in weight space.

The papers speak of a network as a point P and of its layers P_l. Here P is one contiguous vector and a layer
is a slice of it, so that a step towards another point, an SGD step or a copy is one operation on the vector.
"""

import copy

import torch

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
    """

    def __init__(self, model):
        self.module = copy.deepcopy(model)
        parameters = dict(self.module.named_parameters())
        self.names = tuple(parameters)
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
        """Let only the parameters that are not named receive gradients."""
        names = set(names)
        for name, parameter in self.module.named_parameters():
            parameter.requires_grad_(name not in names)


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
