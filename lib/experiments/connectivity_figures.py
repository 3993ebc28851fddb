"""Pictures that several connectivity notebooks share: what happens along a path."""

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd


def panels(count, *, width=3.3, height=2.6):
    """A row of axes."""
    return plt.subplots(1, count, figsize=(width * count, height))


def normalised(points):
    """Arc length of each point as a share of the whole path's."""
    return points["arc"] / points["arc"].iloc[-1]


def along(ax, lines, column, *, ylabel, log=False):
    """Draw a column of evaluated points against normalised arc length.

    Parameters
    ----------
    lines : dict of str to list of DataFrame
        By label, the points of each repeat; repeats share a colour.
    column : str
        Such as "train_loss".
    """
    for number, (label, repeats) in enumerate(lines.items()):
        for repeat, points in enumerate(repeats):
            ax.plot(normalised(points), points[column], color=f"C{number}", label=label if repeat == 0 else None)
    ax.set(xlabel="share of the path", ylabel=ylabel, yscale="log" if log else "linear")


def layer_distances(ax, distances):
    """Draw the distance of every weight tensor to the end mode, relative to its start, against anchors."""
    for name in distances.columns:
        if name.endswith("weight"):
            ax.plot(np.linspace(0, 1, len(distances)), distances[name] / distances[name].iloc[0],
                    label=name.removesuffix(".weight"))  # fmt: skip
    ax.set(xlabel="share of the anchors", ylabel="layer-wise distance to D\n(relative)")


def frame(lines):
    """One long table of the points of all lines: columns ``path``, ``repeat``, then those of the points."""
    tables = [
        points.assign(path=label, repeat=repeat, share=normalised(points))
        for label, repeats in lines.items()
        for repeat, points in enumerate(repeats)
    ]
    table = pd.concat(tables, ignore_index=True)
    return table[["path", "repeat", "share", *(c for c in table.columns if c not in ("path", "repeat", "share"))]]
