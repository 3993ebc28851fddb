"""Pictures that compare ways to connect modes: curves, worst losses, budgets, layers, planes.

Tables are those of :mod:`lib.studies.path_tables`, with columns ``family``, ``method`` and ``repeat``.
"""

import numpy as np
import pandas as pd

from lib.figures import style
from lib.figures.paths import FLOOR, dots, on_grid


def curves(points, *, columns=3):
    """Training loss over the fraction of the path, a panel a family: median of the repeats, and their range.

    Parameters
    ----------
    points : DataFrame
        Of :func:`lib.studies.path_tables.trial_points`; methods that come last lie on top.
    """
    families, methods = (list(dict.fromkeys(points[name])) for name in ("family", "method"))
    fig, axes = style.panels(len(families), columns=columns, height=1.7, sharex=True, sharey=True)
    for number, (ax, family) in enumerate(zip(axes, families, strict=True)):
        for method in methods:
            lines = on_grid(points[(points.family == family) & (points.method == method)], "train_loss").clip(FLOOR)
            look = style.look(method)
            ax.plot(lines.index, lines.median(axis=1), **look)
            low, high = lines.min(axis=1), lines.max(axis=1)
            ax.fill_between(lines.index, low, high, color=look["color"], alpha=0.15, linewidth=0)
        style.bound(ax, "bound 0.1" if number == 0 else "")
        ax.set(title=family, yscale="log", xlabel="fraction of the path", ylabel="training loss")
    style.outer_labels(axes, columns)
    style.legend(fig, axes[0], ncols=4)
    return fig


def worst_losses(table):
    """The largest training loss of each repeat, a panel a family, a row of dots a method."""
    families = list(dict.fromkeys(table["family"]))
    fig, axes = style.panels(len(families), height=1.6, sharey=True)
    for ax, family in zip(axes, families, strict=True):
        dots(ax, table[table["family"] == family], "method", "worst", names=list(dict.fromkeys(table["method"])))
        ax.set_title(family)
    fig.suptitle("largest training loss of the path (dashed: bound 0.1)", fontsize=7)
    return fig


def budgets(table):
    """Largest training loss against SGD samples, mean and range over repeats, a panel a family."""
    families, methods = (list(dict.fromkeys(table[name])) for name in ("family", "method"))
    width = style.COLUMN if len(families) == 1 else style.PAGE
    fig, axes = style.panels(len(families), width=width, height=2.3, sharey=True)
    for ax, family in zip(axes, families, strict=True):
        for method in methods:
            part = table[(table.family == family) & (table.method == method)].groupby("sgd_steps")
            spent, worst = part.samples.mean(), part.worst
            bars = [worst.mean() - worst.min(), worst.max() - worst.mean()]
            marks = {"marker": "o", "markersize": 3, "linewidth": 1, "capsize": 2}
            ax.errorbar(spent, worst.mean(), bars, **style.look(method), **marks)
        style.bound(ax)
        ax.set(title=family, xscale="log", yscale="log", xlabel="SGD samples spent")
        allowed = table[table.family == family].groupby("sgd_steps").samples.median()
        ax.set_xticks(allowed, [f"{each:,.0f}" for each in allowed])
        ax.minorticks_off()
    axes[0].set_ylabel("largest training loss")
    style.label_ends(axes[-1])
    return fig


def planes(found):
    """The loss surface in planes of two modes and a path point, every method's path projected; distances to scale.

    Parameters
    ----------
    found : dict of str to dict
        By title, the outcome of :func:`lib.studies.methods.plane`.
    """
    fig, axes = style.panels(len(found), columns=1, height=1.7, sharex=True)
    surfaces = pd.concat(each["surface"] for each in found.values())
    levels = np.geomspace(max(float(surfaces.train_loss.min()), 1e-3), 10, 13)
    for ax, (title, each) in zip(axes, found.items(), strict=True):
        grid = each["surface"].pivot_table(index="y", columns="x", values="train_loss")
        image = ax.contourf(grid.columns, grid.index, np.clip(grid, levels[0], levels[-1]), levels=levels,
                            norm="log", vmax=1000, cmap="Greys")  # fmt: skip
        for method, line in each["curves"].groupby("method", sort=False):
            ax.plot(line.x, line.y, **style.look(method))
        ends = line.iloc[[0, -1]]
        ax.plot(ends.x, ends.y, "ko", markersize=4)
        for name, x, shift in zip("AB", ends.x, (-8, 8), strict=True):
            ax.annotate(name, (x, 0), (shift, 0), textcoords="offset points", ha="center", va="center")
        ax.set(title=title, ylabel="distance", aspect="equal")
        ax.grid(visible=False)
    axes[-1].set_xlabel("distance from mode A")
    bar = fig.colorbar(image, ax=axes, label="training loss", shrink=0.8)
    bar.set_ticks([0.001, 0.01, 0.1, 1, 10])
    style.legend(fig, axes[0], ncols=5)
    return fig
