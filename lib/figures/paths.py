"""Pictures of paths: what happens along them, their layers, their largest training losses.

Tables are those of :mod:`lib.studies.path_tables`.
"""

import numpy as np
import pandas as pd
from matplotlib.ticker import MaxNLocator

from lib.figures import style

FLOOR = 1e-4  # of logarithmic loss axes
GRID = np.linspace(0, 1, 101)


def on_grid(table, column):
    """A column of a table with ``repeat`` and ``fraction``, linear between its rows: 101 fractions by repeats."""
    known = table.dropna(subset=column).groupby("repeat")
    lines = {repeat: np.interp(GRID, rows["fraction"], rows[column]) for repeat, rows in known}
    return pd.DataFrame(lines, index=pd.Index(GRID, name="fraction"))


def along(ax, table, column="train_loss", *, ylabel="training loss"):
    """Draw a column over the fraction of the path, a line for each ``path`` and ``repeat``; losses are logarithmic."""
    for (path, repeat), rows in table.dropna(subset=column).groupby(["path", "repeat"], sort=False):
        look = style.look(path) | ({"label": None} if repeat else {})
        ax.plot(rows["fraction"], rows[column], linewidth=1, **look)
    ax.set(xlabel="fraction of the path", ylabel=ylabel, yscale="log" if column.endswith("loss") else "linear")


def by_family(table, *, columns=5):
    """Training loss along the paths, a panel for each ``family``, all of one scale."""
    families = list(dict.fromkeys(table["family"]))
    fig, axes = style.panels(len(families), columns=columns, height=1.3, sharex=True, sharey=True)
    for number, (ax, family) in enumerate(zip(axes, families, strict=True)):
        along(ax, table[table["family"] == family])
        style.bound(ax, "bound 0.1" if number == 0 else "", at=0.33)
        ax.set(title=family, xticks=[0, 0.5, 1])
    style.outer_labels(axes, columns)
    style.legend(fig, axes[0], ncols=4)
    return fig


def layers(ax, table, column="distance"):
    """Draw a column for each ``layer``, mean over repeats, the deeper the darker."""
    names = list(dict.fromkeys(table["layer"]))
    for name, colour in zip(names, style.shades(len(names)), strict=True):
        lines = table[table["layer"] == name].pivot(index="fraction", columns="repeat", values=column)
        ax.plot(lines.index, lines.mean(axis=1), color=colour, linewidth=0.8, label=name)
    ax.set(xlabel="fraction of the path")


def dots(ax, table, by, column="max_loss", *, hollow=None, names=None):
    """A row for each value of ``by``: a dot for each row of the table, hollow dots for a second column; the bound."""
    names = names or list(dict.fromkeys(table[by]))
    for place, name in enumerate(reversed(names)):
        rows = table[table[by] == name]
        colour = style.LOOKS.get(name, (style.BLUE, ""))[0]
        for values, face in ((hollow, "w"), (column, colour)):
            if values:
                ax.plot(rows[values].clip(FLOOR), [place] * len(rows), "o", markersize=3.5, color=colour, mfc=face)
    style.reference(ax, 0.1, axis="x")
    ax.set(xscale="log", ylim=(-0.6, len(names) - 0.4), yticks=range(len(names)), yticklabels=names[::-1])


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
                color=style.BLUE if skipped else style.GREY, linewidth=0.8)  # fmt: skip
    ax.scatter(list(graph.nodes), [0] * len(graph), s=10, color=["0.6", *["k"] * (len(graph) - 1)], zorder=3)
    ax.set(yticks=[], title=title, ylim=(-0.6, max(0.6, ax.get_ylim()[1])))
    ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    ax.grid(visible=False)
