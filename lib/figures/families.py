"""Pictures of families: layers as a graph, paths family by family, and many paths as a mean and a band."""

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.ticker import MaxNLocator

from lib.figures.paths import along, profile, shades

GRID = np.linspace(0, 1, 101)
COLUMNS = 5


def layer_graph(ax, graph, *, title):
    """Draw the layers of :func:`lib.layers.graph` from left to right; a skip connection is an arc.

    Parameters
    ----------
    graph : networkx.DiGraph
        Nodes 0 (the input), 1, 2, ...; an edge from what a layer reads.
    """
    fraction = np.linspace(0, 1, 25)
    for before, after in graph.edges:
        skipped = after - before - 1
        ax.plot(before + (after - before) * fraction, 4 * skipped**0.6 * fraction * (1 - fraction),
                color="C0" if skipped else "0.4", linewidth=0.8)  # fmt: skip
    ax.scatter(list(graph.nodes), [0] * len(graph), s=12, color=["0.6", *["C1"] * (len(graph) - 1)], zorder=3)
    ax.set(yticks=[], title=title, ylim=(-0.6, max(0.6, ax.get_ylim()[1])))
    ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    ax.tick_params(axis="x", labelsize=6)
    ax.grid(visible=False)


def by_family(families, column, *, ylabel, log=False):
    """A panel for each family, all of one scale.

    Parameters
    ----------
    families : dict of str to dict
        By family, the lines of :func:`lib.figures.paths.along`.
    """
    columns = min(COLUMNS, len(families))
    rows = -(-len(families) // columns)
    fig, axes = plt.subplots(
        rows, columns, figsize=(1.5 * max(columns, 2), 0.5 + 1.5 * rows), sharex=True, sharey=True, squeeze=False
    )
    for ax, (name, lines) in zip(axes.flat, families.items(), strict=False):
        along(ax, lines, column, ylabel=ylabel, log=log)
        ax.set_title(name)
        ax.label_outer()
    fig.legend(*axes[0, 0].get_legend_handles_labels(), loc="outside upper center", ncols=4)
    return fig


def on_grid(repeats, column):
    """A column of evaluated points over the fraction of the path: repeats on one grid.

    Parameters
    ----------
    repeats : list of DataFrame
        :meth:`lib.connectivity.Path.evaluate` of each repeat.

    Returns
    -------
    DataFrame
        Columns ``fraction``, ``mean``, ``low``, ``high`` (over the repeats).
    """
    lines = np.stack([np.interp(GRID, line.index, line) for line in (profile(each, column) for each in repeats)])
    columns = {"fraction": GRID, "mean": lines.mean(0), "low": lines.min(0), "high": lines.max(0)}
    return pd.DataFrame(columns)


def band(ax, table, *, label, color, ylabel, log=False):
    """Draw the mean over repeats and the band from the lowest to the highest."""
    ax.plot(table["fraction"], table["mean"], color=color, label=label)
    ax.fill_between(table["fraction"], table["low"], table["high"], color=color, alpha=0.25, linewidth=0)
    ax.set(xlabel="fraction of the path", ylabel=ylabel, yscale="log" if log else "linear")


def distance_left(path, names=slice(None)):
    """Distance to the destination at every anchor, of the named parameters together (default: all), as a table
    for :func:`on_grid`."""
    whole = np.sqrt((path["distances"].loc[:, names] ** 2).sum(axis=1)).to_numpy()
    anchors = path["points"][path["points"].anchor]
    return pd.DataFrame({"arc": anchors["arc"].to_numpy(), "distance": whole / whole[0]})


def mean_layer_distances(ax, repeats, *, title):
    """Draw the distance of every weight tensor to the destination, mean over repeats; the deeper the darker.

    Returns
    -------
    DataFrame
        What is drawn: ``layer``, ``fraction`` of the path, ``distance`` relative to the start's.
    """
    names = repeats[0]["weights"]
    tables = []
    for name, colour in zip(names, shades(len(names)), strict=True):
        line = on_grid([distance_left(path, [name]) for path in repeats], "distance")
        ax.plot(line["fraction"], line["mean"], color=colour, linewidth=0.8)
        tables.append(pd.DataFrame({"layer": name, "fraction": line["fraction"], "distance": line["mean"]}))
    ax.set(title=title, xlabel="fraction of the path")
    return pd.concat(tables, ignore_index=True)
