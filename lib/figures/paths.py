"""Pictures that several connectivity notebooks share: what happens along a path."""

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.ticker import LogLocator, NullFormatter


def panels(count, *, rows=1, width=3.3, height=2.6):
    """Rows of ``count`` axes."""
    return plt.subplots(rows, count, figsize=(width * count, height * rows))


def shades(count):
    """Colours of layers, the deeper the darker, apart from the colours of the style."""
    return plt.get_cmap("viridis_r")(np.linspace(0.1, 1, count))


def normalised(points):
    """Arc length of each point as a fraction of the whole path's."""
    return points["arc"] / points["arc"].iloc[-1]


def profile(points, column):
    """A column of evaluated points as a Series over the fraction of the path; points that lack it are left out."""
    return pd.Series(points[column].to_numpy(), index=normalised(points)).dropna()


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
            line = profile(points, column)
            ax.plot(line.index, line, color=f"C{number}", label=label if repeat == 0 else None)
    ax.set(xlabel="fraction of the path", ylabel=ylabel, yscale="log" if log else "linear")


def layer_distances(ax, path):
    """Draw the distance of every weight tensor to the end mode, relative to its start, against anchors.

    Parameters
    ----------
    path : dict
        Outcome of :func:`lib.studies.m2m.m2m`.
    """
    distances = path["distances"][path["weights"]]
    for name in distances.columns:
        ax.plot(np.linspace(0, 1, len(distances)), distances[name] / distances[name].iloc[0],
                label=name.removesuffix(".weight"))  # fmt: skip
    ax.set(xlabel="fraction of the anchors", ylabel="layer-wise distance to D\n(relative)")


def layer_variances(ax, variances):
    """Draw the variance of every weight tensor, relative to the first anchor's, against anchors."""
    for name, colour in zip(variances.columns, shades(len(variances.columns)), strict=True):
        ax.semilogy(np.linspace(0, 1, len(variances)), variances[name] / variances[name].iloc[0], color=colour,
                    label=name.removesuffix(".weight"))  # fmt: skip
    ax.set(xlabel="fraction of the anchors")
    plain_decades(ax.yaxis)


def plain_decades(axis, marks=(1, 2, 5)):
    """Label a logarithmic axis in plain numbers, at some marks of every decade."""
    axis.set_major_locator(LogLocator(subs=marks))
    axis.set_major_formatter("{x:g}")
    axis.set_minor_formatter(NullFormatter())


def frame(lines):
    """One long table of the points of all lines: columns ``path``, ``repeat``, then those of the points."""
    tables = [
        points.assign(path=label, repeat=repeat, fraction=normalised(points))
        for label, repeats in lines.items()
        for repeat, points in enumerate(repeats)
    ]
    table = pd.concat(tables, ignore_index=True)
    return table[["path", "repeat", "fraction", *(c for c in table.columns if c not in ("path", "repeat", "fraction"))]]
