"""Path simplification (ours): the fewest segments between anchors of a path that keep its loss below a bound.

A search for a path leaves more anchors than the low-loss region needs. Every pair of anchors is a possible
segment; those that stay below the bound are the edges of a graph, and the fewest segments from the start to
the end are found breadth first. Nothing is trained: the result is a choice of the path's own anchors, to be
held against the pivots of AutoNEB (1, 3, 7, 11 between the ends).
"""

from lib.connectivity.path import Path
from lib.errors import InputError


def simplify(path, task, bound, *, interior_points=10):
    """The fewest anchors of a path that keep its largest training loss below a bound.

    Parameters
    ----------
    path : Path
    task : lib.tasks.Task
    bound : float
        Largest training loss allowed at the anchors kept and at ``interior_points`` points inside every segment.
    interior_points : int

    Returns
    -------
    Path
        Its log has the number (``anchor``) that each of its anchors had in ``path``, its start aside.

    Raises
    ------
    InputError
        If no choice of the path's anchors stays below the bound.

    Notes
    -----
    Of all choices of anchors with the fewest segments it takes one; points off the path are not tried.
    """
    if not bound > 0:
        raise InputError(f"bound={bound}: must be larger than 0")
    low = _Segments(path, task, bound, interior_points)
    came_from, reached = {0: None}, [0]
    last = len(path) - 1
    while last not in came_from and reached:
        reached = _one_segment_further(reached, came_from, last, low)
    if last not in came_from:
        raise InputError(f"bound={bound}: no choice of the path's {len(path)} anchors stays below it")
    kept = [last]
    while kept[-1]:
        kept.append(came_from[kept[-1]])
    log = path.log.iloc[0:0] if path.log.empty else path.log.iloc[[number - 1 for number in kept[-2::-1]]]
    log = log.reset_index(drop=True).reindex(range(len(kept) - 1)).assign(anchor=kept[-2::-1])
    return Path(path.model, path.anchors[kept[::-1]], log)


def evenly_spaced(path, pivots):
    """A path through as many anchors between the two ends as an AutoNEB has pivots, evenly spaced by number."""
    if not 0 <= pivots <= len(path) - 2:
        raise InputError(f"pivots={pivots}: must be between 0 and the {len(path) - 2} anchors between the ends")
    chosen = [round(number * (len(path) - 1) / (pivots + 1)) for number in range(pivots + 2)]
    return Path(path.model, path.anchors[chosen])


def _one_segment_further(reached, came_from, last, low):
    """Anchors that one more segment reaches for the first time, the farthest first; stops at the last."""
    new = []
    for end in range(last, 0, -1):
        if end in came_from:
            continue
        start = next((start for start in reached if low(start, end)), None)
        if start is not None:
            came_from[end] = start
            new.append(end)
        if end == last and start is not None:
            break
    return new


class _Segments:
    """Whether a segment between two anchors stays below the bound; every point is evaluated at most once."""

    def __init__(self, path, task, bound, interior_points):
        self.path, self.task, self.bound = path, task, bound
        # The middle first: it is where a segment that is too long is highest.
        fractions = [number / (interior_points + 1) for number in range(1, interior_points + 1)]
        self.fractions = sorted(fractions, key=lambda fraction: abs(fraction - 0.5))
        self.anchors = {}

    def __call__(self, start, end):
        if not (self._anchor_is_low(start) and self._anchor_is_low(end)):
            return False
        pair = Path(self.path.model, self.path.anchors[[start, end]])
        return all(self._loss(pair, fraction) < self.bound for fraction in self.fractions)

    def _anchor_is_low(self, number):
        if number not in self.anchors:
            self.anchors[number] = self._loss(self.path, number) < self.bound
        return self.anchors[number]

    def _loss(self, path, position):
        return path.scores(position, self.task)["train_loss"]
