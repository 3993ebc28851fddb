"""A path in weight space: anchors P_0 ... P_T and the straight segments between them.

A path is honest only through :meth:`Path.evaluate`: the loss of the stored points, in eval mode, on the whole
training set, batch norm re-estimated on a sample of it, on the anchors and between them. The largest of these
losses is the path's *largest training loss*: what paper 1 (arXiv 2505.02604) calls a low-loss path stays below L_thres
everywhere.
"""

import json
from functools import cached_property

import pandas as pd
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from lib import models, trial
from lib.batchnorm import reestimate
from lib.errors import InputError
from lib.scopes import computation
from lib.training import score
from lib.weights import FlatModel, check_ends, check_same_shape, copy_of, flatten, same_constants

NORM_IMAGES = 2048
FINE_POINTS = 8  # of an evaluation from coarse to fine, on the whole training split
ROWS = 8  # anchors that are looked at together: a large path lies on the disk


class Path:
    """Anchors of a path and the model whose weights they are.

    Parameters
    ----------
    model : torch.nn.Module
        Any point of the path; a copy gives the architecture.
    anchors : tensor or array (T, D)
        Flat parameters of P_0 ... P_{T-1}.
    log : DataFrame, optional
        What the driver that found the path noted for each anchor.
    """

    def __init__(self, model, anchors, log=None):
        anchors = torch.as_tensor(anchors)
        if anchors.ndim != 2 or len(anchors) < 1:
            raise InputError(f"anchors: shape {tuple(anchors.shape)}, needs (points, parameters)")
        trial.check_module(model, "model")
        self.model = copy_of(model)
        self.anchors = anchors.detach()
        self.log = pd.DataFrame() if log is None else log

    @classmethod
    def linear(cls, a, b):
        """The straight path between two modes."""
        trial.check_module(a, "a")
        trial.check_module(b, "b")
        check_ends(a, b)
        return cls(a, torch.stack([flatten(a), flatten(b)]))

    def __len__(self):
        return len(self.anchors)

    @cached_property
    def _flat(self):
        return FlatModel(self.model)

    def states(self):
        """The anchors as a list of {name: tensor}, start and end included."""
        return [self._flat.layout.state(anchor) for anchor in self.anchors]

    def point(self, position):
        """Flat parameters (D,) at ``position`` in [0, T-1]: anchor number plus fraction of the segment after it."""
        if not 0 <= position <= len(self) - 1:
            raise InputError(f"position={position}: the path runs from 0 to {len(self) - 1}")
        index = min(int(position), max(0, len(self) - 2))
        fraction = position - index
        start = self.anchors[index]
        return start if fraction == 0 else torch.lerp(start, self.anchors[index + 1], fraction)

    def model_at(self, position, task=None):
        """A model at a position, in eval mode, batch norm re-estimated on the training split where a task is given."""
        flat = FlatModel(self.model)
        flat.vector.copy_(self.point(position))
        if task is not None:
            reestimate(flat.module, task.train.sample(NORM_IMAGES).x, batch=NORM_IMAGES)
        return flat.module.eval()

    def lengths(self):
        """Arc length from the start to every anchor, a tensor (T,)."""
        pairs = zip(self.anchors[1:].split(ROWS), self.anchors[:-1].split(ROWS), strict=True)
        steps = torch.cat([self.anchors.new_zeros(0), *((after - before).norm(dim=1) for after, before in pairs)])
        return torch.cat([steps.new_zeros(1), steps.cumsum(0)])

    def distances(self, target):
        """Distance of every anchor to another model, parameter by parameter.

        Returns
        -------
        DataFrame
            A row an anchor, a column a parameter: ||D_l - P_l||.
        """
        check_same_shape(self.model, target)
        end, slices, rows = flatten(target), self._flat.layout.slices, []
        for part in self.anchors.split(ROWS):
            difference = part - end
            rows.append(torch.stack([difference[:, slices[name]].norm(dim=1) for name in slices], 1))
        return pd.DataFrame(torch.cat(rows).tolist(), columns=list(slices))

    def reached(self, target):
        """Whether the path ends exactly in a model: every parameter equal, and all else that a path does not move."""
        check_same_shape(self.model, target)
        return bool((self.anchors[-1] == flatten(target)).all()) and same_constants(self.model, target)

    def evaluate(self, task, *, interior_points=0, splits=("train", "test"), inside=None, images=0):
        """Loss and accuracy on anchors and on segments.

        With ``images`` it goes from coarse to fine: every point on that many images of a split, then the eight points
        of the largest training loss on the whole training split.

        Parameters
        ----------
        task : lib.tasks.Task
        interior_points : int
            Points inside every segment, evenly spaced, beside its two ends.
        splits : tuple of {"train", "test"}
            Which splits of the task to evaluate on.
        inside : tuple, optional
            Splits that are evaluated inside the segments too, default ``splits``; the other columns are NaN there.
        images : int
            Images of a split, of every class its part, that each point is evaluated on; 0 takes the whole.

        Returns
        -------
        DataFrame
            A row a point: ``position`` (anchor number plus fraction), ``arc`` (arc length from the start),
            ``anchor`` (bool), and ``<split>_loss``, ``<split>_accuracy`` (or the name of the task's metric),
            ``<split>_images`` (on how many).
        """
        positions, task = self._positions(interior_points), trial.check(self.model, task)
        lengths, rows = self.lengths().tolist(), []
        for position in positions:
            index = min(int(position), max(0, len(self) - 2))
            arc = lengths[index] + (position - index) * (lengths[min(index + 1, len(self) - 1)] - lengths[index])
            row = {"position": position, "arc": arc, "anchor": float(position).is_integer()}
            looked_at = splits if row["anchor"] or inside is None else inside
            rows.append(row | self.scores(position, task, looked_at, images=images))
        points = pd.DataFrame(rows)
        if 0 < images < len(task.train) and "train" in splits:
            for row in points.train_loss.nlargest(FINE_POINTS).index:
                for column, value in self.scores(points.position[row], task).items():
                    points.loc[row, column] = value
        return points

    def max_loss(self, task, *, interior_points=10, images=0):
        """The largest training loss over all anchors and ``interior_points`` points inside every segment; see
        :meth:`evaluate`."""
        points = self.evaluate(task, interior_points=interior_points, splits=("train",), images=images)
        return float(points.train_loss.max())

    @computation()
    def scores(self, position, task, splits=("train",), *, images=0):
        """Loss and metric at a position, a dict: ``<split>_loss``, ``<split>_accuracy``, ``<split>_images``; see
        :meth:`evaluate`."""
        flat, sample = self._flat, task.train.sample(images or NORM_IMAGES)
        flat.vector.copy_(self.point(position))
        logits, scores = reestimate(flat.module, sample.x, batch=len(sample)), {}
        for split in splits:
            seen = getattr(task, split)
            seen = seen.sample(images) if images else seen
            # Re-estimating has already evaluated a training split, or a part of it, that is one batch.
            known = split == "train" and logits is not None and len(sample) == len(seen)
            found = sample.score(logits) if known else score(flat.module, seen)
            scores |= {f"{split}_{name}": value for name, value in found._asdict().items()}
            scores[f"{split}_images"] = len(seen)
        return scores

    def _positions(self, interior_points):
        if interior_points < 0:
            raise InputError(f"interior_points={interior_points}: must be 0 or larger")
        parts = interior_points + 1
        return [number / parts for number in range((len(self) - 1) * parts + 1)]

    def save(self, file):
        """Write anchors, buffers and log to a safetensors file; a registry model is remembered by its entry."""
        entry = getattr(self.model, "registry_entry", None)
        metadata = {"model": json.dumps(entry), "names": json.dumps(self._flat.layout.names)}
        metadata["log"] = self.log.to_json(orient="split", double_precision=15)
        tensors = {f"buffer {name}": buffer for name, buffer in self.model.named_buffers()}
        tensors = {n: t.cpu().clone().contiguous() for n, t in (tensors | {"anchors": self.anchors}).items()}
        save_file(tensors, str(file), metadata=metadata)

    @classmethod
    def load(cls, file, *, model=None):
        """Read a path; ``model`` gives the architecture where it is not one of the registry.

        Raises
        ------
        InputError
            If the file is not a path, or holds another architecture than ``model``.
        """
        try:
            with safe_open(str(file), framework="pt") as stored:
                metadata = stored.metadata() or {}
                tensors = {name: stored.get_tensor(name) for name in stored.keys()}  # noqa: SIM118 (no dict)
            anchors = tensors.pop("anchors")
            tensors = {name.removeprefix("buffer "): tensor for name, tensor in tensors.items()}
            entry, names = json.loads(metadata["model"]), json.loads(metadata["names"])
        except (SafetensorError, OSError, KeyError) as error:
            raise InputError(f"file='{file}': not a readable path ({str(error).splitlines()[0]})") from None
        if model is None and entry is None:
            raise InputError(f"file='{file}': its model is not of the registry, give model=")
        path = cls(models.from_entry(entry) if model is None else model, anchors, _read_log(metadata["log"]))
        parameters, buffers = (dict(named) for named in (path.model.named_parameters(), path.model.named_buffers()))
        same = list(parameters) == names and sum(p.numel() for p in parameters.values()) == anchors.shape[1]
        if not same or any(name not in buffers or buffers[name].shape != b.shape for name, b in tensors.items()):
            raise InputError(f"file='{file}': holds another architecture than the given model")
        for name, stored in tensors.items():
            buffers[name].copy_(stored)
        return path


def _read_log(text):
    parts = json.loads(text)
    return pd.DataFrame(parts["data"], columns=parts["columns"])
