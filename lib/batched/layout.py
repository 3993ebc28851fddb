"""Where each parameter of a model lies in a row of the (nodes, D) weight matrix.

All nodes of a simulation have one architecture, so that one layout serves all rows. The *layers* of paper 2
are the weight tensors (two dimensions or more): they have a variance and are corrected, biases are not.
"""

import itertools
import math
from dataclasses import dataclass

from lib import sphere


@dataclass(frozen=True)
class Layout:
    """Names and shapes of the parameters, in the order of the model; those that are frozen stay where they are."""

    names: tuple[str, ...]
    shapes: tuple[tuple[int, ...], ...]
    frozen: frozenset[str] = frozenset()

    @classmethod
    def of(cls, model):
        """Layout of a ``torch.nn.Module``; what does not require gradients is frozen."""
        named = dict(model.named_parameters())
        frozen = frozenset(name for name, p in named.items() if not p.requires_grad)
        return cls(tuple(named), tuple(tuple(p.shape) for p in named.values()), frozen)

    @property
    def slices(self):
        """Slice of each parameter in a row, by name."""
        slices, start = {}, 0
        for name, shape in zip(self.names, self.shapes, strict=True):
            slices[name] = slice(start, start + math.prod(shape))
            start += math.prod(shape)
        return slices

    @property
    def size(self):
        """Number of parameters, D."""
        return sum(math.prod(shape) for shape in self.shapes)

    @property
    def layers(self):
        """Names of the weight tensors, those that have a variance sphere."""
        return tuple(n for n, s in zip(self.names, self.shapes, strict=True) if len(s) >= 2)

    def views(self, rows):
        """Parameters by name, (k, *shape), as views of rows (k, D)."""
        slices = self.slices
        return {n: rows[:, slices[n]].view(-1, *s) for n, s in zip(self.names, self.shapes, strict=True)}

    def state(self, row):
        """Parameters by name of one row (D,)."""
        return {name: view[0] for name, view in self.views(row[None]).items()}

    def variance(self, rows):
        """Population variance of each layer, (k, layers), of rows (k, D)."""
        slices = self.slices
        found = rows.new_empty(len(rows), len(self.layers))  # filled in place: small results that stay between large
        for part, into in zip(rows.split(16), found.split(16), strict=True):  # temporaries would fragment the memory
            for number, name in enumerate(self.layers):
                into[:, number] = sphere.row_variance(part[:, slices[name]])
        return found

    def correct_(self, rows, target, *, epsilon=0.0):
        """Project each layer of rows (k, D) that is not frozen onto its sphere, target (k, layers), in place."""
        slices, free = self.slices, [name not in self.frozen for name in self.layers]
        if any(free):
            blocks = [rows[:, slices[name]] for name in itertools.compress(self.layers, free)]
            sphere.correct_rows_(blocks, target[:, free], epsilon=epsilon)
        return rows
