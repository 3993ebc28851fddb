"""What is measured along a simulation: accuracy, layer variance, model difference (paper 2, F1 to F6).

Numbers stay on the device until the tables are made, so that recording does not make the simulation wait.
"""

import numpy as np
import pandas as pd
import torch

from lib import batchnorm, training


class Recorder:
    """Records of a simulation.

    Parameters
    ----------
    nodes : StackedNodes or LoopNodes
    split : lib.tasks.Split
        What accuracy and loss are measured on.
    calibration : tensor (m, C, H, W) or None
        Images for batch-norm statistics, see ``StackedNodes.evaluate``.
    names : sequence
        Of the nodes.
    """

    PARTS = ("scores", "start", "trained", "averaged", "distance")

    def __init__(self, nodes, split, calibration, names):
        self.nodes, self.split, self.calibration, self.names = nodes, split, calibration, names
        self.ticks, self.records = [], {part: [] for part in self.PARTS}

    def begin(self, tick, record):
        """Start of a tick; ``record`` says whether it is one to be recorded."""
        self.tick, self.recording = tick, record
        if record:
            self.records["start"].append(self.nodes.variance().mean(0))

    def trained(self):
        """After training and sending."""
        if self.recording:
            self.records["trained"].append(self.nodes.variance().mean(0))

    def end(self):
        """After averaging."""
        if not self.recording:
            return
        variance = self.nodes.variance()
        self._check(variance)
        self.ticks.append(self.tick)
        self.records["averaged"].append(variance.mean(0))
        self.records["distance"].append(self.nodes.distance().mean(0))
        self.records["scores"].append(self.nodes.evaluate(self.split, calibration=self.calibration))

    def _check(self, variance):
        if not torch.isfinite(variance).all():
            node, layer = (int(i[0]) for i in (~torch.isfinite(variance)).nonzero(as_tuple=True))
            raise FloatingPointError(
                f"simulation diverged by tick {self.tick}: layer {self.nodes.layout.layers[layer]} "
                f"of node {self.names[node]} is not finite"
            )

    def last(self):
        """Means over nodes at the last record, a dict."""
        return dict(zip(self.split.score_names, self.records["scores"][-1].mean(0).tolist(), strict=True))

    def tables(self):
        """History (tick, node, metric, loss), variance (tick, layer, ...), difference (tick, l1, l2)."""
        stacked = {part: torch.stack(rows).double().cpu().numpy() for part, rows in self.records.items()}
        layers, count, ticks = self.nodes.layout.layers, len(self.names), np.array(self.ticks)
        names = self.split.score_names
        scores = dict(zip(names, stacked["scores"].reshape(-1, len(names)).T, strict=True))
        history = {"tick": ticks.repeat(count), "node": list(self.names) * len(ticks)}
        variance = {"tick": ticks.repeat(len(layers)), "layer": list(layers) * len(ticks)}
        variance |= {part: stacked[part].reshape(-1) for part in ("start", "trained", "averaged")}
        l1, l2 = stacked["distance"].T
        return (
            pd.DataFrame(history | {name: scores[name] for name in reversed(names)}),
            pd.DataFrame(variance),
            pd.DataFrame({"tick": ticks, "l1": l1, "l2": l2}),
        )

    def state(self):
        """The records so far, as a dict of tensors."""
        stacked = {part: torch.stack(rows) for part, rows in self.records.items() if rows}
        return {"ticks": list(self.ticks), **stacked}

    def load(self, state):
        """Restore the records of a state."""
        self.ticks = list(state["ticks"])
        device = self.split.x.device
        self.records = {part: list(state[part].to(device)) if part in state else [] for part in self.PARTS}


def score(model, split, calibration=None):
    """The score of one model, whose batch norm is first estimated from ``calibration``, where given."""
    if calibration is not None:
        batchnorm.reestimate(model, calibration, batch=len(calibration))
    return training.score(model, split)
