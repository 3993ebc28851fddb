"""Permutation alignment: the copy of a mode, of the same function, that lies nearest to another mode.

Weight matching of Ainsworth et al., Git Re-Basin, arXiv 2209.04836 (algorithm 1): the units of one group are
matched with those of the other mode by a linear assignment that maximises the inner product of the weights,
all other groups as they are, until no group gains any more. The groups come from the traced data flow
(:mod:`lib.connectivity.baselines.symmetry`). The first pass is ours: from the input on, each group is matched by those
weights only whose other units are matched already, which recovers a permuted copy exactly.
"""

import copy

import torch
from scipy.optimize import linear_sum_assignment

from lib import trial
from lib.connectivity.baselines.symmetry import groups
from lib.errors import InputError
from lib.progress import bar

MOST_PASSES = 100


def align(a, b, task, *, progress=None):
    """A copy of ``b``, its units permuted so that its weights lie as near to those of ``a`` as they can.

    Parameters
    ----------
    a, b : torch.nn.Module
        Any two modules of one shape; they stay as they are.
    task : lib.tasks.Task
        Gives the example input, and the images on which the copy is compared with ``b``.
    progress : bool, optional
        Whether to show how far it is; see :func:`lib.progress.bar`.

    Returns
    -------
    torch.nn.Module
        pi(B), in eval mode. Connect ``a`` with it by any method: it computes what ``b`` computes.

    Raises
    ------
    InputError
        If the modes differ in shape, cannot be traced, or f(pi(B)) differs from f(B).
    """
    task = trial.check_ends(a, b, task)
    found = groups(b, task)
    matched = match(dict(a.named_parameters()), dict(b.named_parameters()), found, progress=progress)
    aligned = permuted(b, found, matched)
    if not (apart := trial.difference(b, aligned, task.test.x[:256])) <= trial.TOLERANCE:
        raise InputError(f"alignment: the permuted mode computes something else (logits differ by {apart:.2g})")
    return aligned


@torch.no_grad()
def match(a, b, found, *, progress=None):
    """Permutations of the units of ``b``, one for each group, that bring its weights near to those of ``a``.

    Parameters
    ----------
    a, b : dict of str to tensor
        Parameters by name.
    found : list of lib.connectivity.baselines.symmetry.Group
        Members that are not named in ``a`` (running statistics) have no say.
    progress : bool, optional
        Whether to show how far it is; see :func:`lib.progress.bar`.

    Returns
    -------
    list of tensor
        For each group the unit of ``b`` that takes each place.
    """
    matching = _Matching(a, b, found)
    everything, known = set(range(len(found))), set()
    with bar("align", MOST_PASSES, progress) as tell:
        for number in range(len(found)):
            matching.improve(number, known)
            known.add(number)
            tell(0, lambda: {"groups matched": f"{len(known)} of {len(found)}"})
        for number in range(MOST_PASSES):
            changed = sum([matching.improve(number, everything) for number in range(len(found))])
            tell(number + 1, lambda: {"groups changed": changed})  # noqa: B023 (called at once)
            if not changed:
                break
    return matching.chosen


def permuted(model, found, permutations):
    """A copy of a model, in eval mode, with the units of each group permuted."""
    model = copy.deepcopy(model).eval()
    state = dict([*model.named_parameters(), *model.named_buffers()])
    with torch.no_grad():
        for group, permutation in zip(found, permutations, strict=True):
            for name, axis, inner in group.members:
                state[name].copy_(_permute(state[name], axis, inner, permutation))
    return model


class _Matching:
    """Permutations in the making, and the improvement of one of them by a linear assignment."""

    def __init__(self, a, b, found):
        self.a, self.b, self.groups = a, b, found
        self.chosen = [torch.arange(group.size) for group in found]
        self.axes = {}
        for number, group in enumerate(found):
            for name, axis, inner in group.members:
                if name in a:
                    self.axes.setdefault(name, []).append((axis, inner, number))

    def improve(self, number, known):
        """Match the units of a group by its members whose other groups are known; whether that changed it.

        Where not all groups are known a change is taken as it is, else only if the inner product grows.
        """
        members = [m for m in self.groups[number].members if m.name in self.a]
        settled = [m for m in members if all(g in known for ax, _, g in self.axes[m.name] if ax != m.axis)]
        products = sum(self._products(*member) for member in settled or members)
        units = torch.from_numpy(linear_sum_assignment(products.cpu(), maximize=True)[1])
        former = self.chosen[number]
        if torch.equal(units, former):
            return False
        before = self._closeness(members)
        self.chosen[number] = units
        if len(known) == len(self.groups) and self._closeness(members) <= before * (1 + 1e-6) + 1e-9:
            self.chosen[number] = former
            return False
        return True

    def _products(self, name, axis, inner):
        """Inner products (size, size) of the units of ``a`` with those of ``b``, its other axes permuted."""
        b = self._moved(name, skip=axis)
        rows = [tensor.detach().double().movedim(axis, 0).reshape(tensor.shape[axis] // inner, -1)
                for tensor in (self.a[name], b)]  # fmt: skip
        return rows[0] @ rows[1].T

    def _closeness(self, members):
        return float(sum((self.a[n].double() * self._moved(n)).sum() for n in {m.name: None for m in members}))

    def _moved(self, name, skip=None):
        tensor = self.b[name]
        for axis, inner, number in self.axes[name]:
            if axis != skip:
                tensor = _permute(tensor, axis, inner, self.chosen[number])
        return tensor


def _permute(tensor, axis, inner, permutation):
    """A tensor with blocks of ``inner`` entries of an axis in another order."""
    index = (permutation[:, None] * inner + torch.arange(inner)).reshape(-1)
    return tensor.index_select(axis, index.to(tensor.device))
