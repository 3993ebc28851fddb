"""Pictures and tables that compare ways to connect modes: curves, worst losses, budgets, layers, planes."""

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.colors import LogNorm

from lib.figures.paths import normalised

FLOOR = 1e-4  # of logarithmic loss axes
COLOURS = {
    "straight line": "0.35", "aligned line": "0.65", "Bezier, 1 bend": "C0", "Bezier, 3 bends": "C5",
    "chain, 1 bend": "C1", "chain, 3 bends": "C4", "AutoNEB": "C2", "LLPF": "C3", "aligned LLPF": "#6B2D5C",
}  # fmt: skip


def long_table(trials, outcomes):
    """What each trial measured, a row each: family, method, repeat, SGD steps, and the numbers of the outcome."""
    rows, seen = [], {}
    for config, found in zip(trials, outcomes, strict=True):
        case = (config.start.model, config.method, config.sgd_steps)
        seen[case] = seen.get(case, -1) + 1
        row = {"family": config.start.model, "method": config.method, "repeat": seen[case]}
        row["sgd_steps"] = config.sgd_steps
        names = ("worst", "mean", "accuracy", "length", "samples", "arrived", "seconds")
        rows.append(row | {name: found[name] for name in names})
    return pd.DataFrame(rows)


def summary(table):
    """Mean and spread over repeats for each family and method, in the order of the table.

    Returns
    -------
    DataFrame
        ``worst``, ``mean``, ``accuracy`` and ``length`` with their standard deviations over the repeats
        (``... sd``), the largest ``worst`` of all repeats, the mean of ``samples``, and how many ``arrived``.
    """
    groups = table.groupby(["family", "method"], sort=False)
    columns = {"worst of repeats": groups["worst"].max()}
    for name in ("worst", "mean", "accuracy", "length"):
        columns |= {name: groups[name].mean(), f"{name} sd": groups[name].std(ddof=0)}
    table = pd.DataFrame(columns | {"samples": groups["samples"].mean(), "arrived": groups["arrived"].sum()})
    return table.reset_index()


def curves(trials, outcomes, *, columns=3):
    """Training loss of every curve over normalised arc length, a panel a family, a line a repeat.

    Returns
    -------
    Figure
    DataFrame
        What is drawn: ``family``, ``method``, ``repeat``, ``fraction``, ``train_loss``.
    """
    families = list(dict.fromkeys(config.start.model for config in trials))
    rows = -(-(len(families) + 1) // columns)
    fig, axes = plt.subplots(rows, columns, figsize=(2.6 * columns, 2.2 * rows), sharey=True, squeeze=False)
    tables, seen = [], {}
    for config, found in zip(trials, outcomes, strict=True):
        family, method = config.start.model, config.method
        repeat = seen[family, method] = seen.get((family, method), -1) + 1
        fraction, loss = normalised(found["points"]), found["points"]["train_loss"]
        ax = axes.flat[families.index(family)]
        ax.plot(fraction, loss.clip(FLOOR), color=COLOURS[method], linewidth=0.7, label=None if repeat else method)
        columns = {"family": family, "method": method, "repeat": repeat, "fraction": fraction, "train_loss": loss}
        tables.append(pd.DataFrame(columns))
    for ax, family in zip(axes.flat, families, strict=False):
        ax.set(title=family, yscale="log", xlabel="fraction of the path")
    for ax in axes[:, 0]:
        ax.set_ylabel("training loss")
    for ax in axes.flat[len(families) :]:
        ax.axis("off")
    axes.flat[len(families)].legend(*axes.flat[0].get_legend_handles_labels(), loc="center", fontsize=7)
    return fig, pd.concat(tables, ignore_index=True)


def worst_losses(table):
    """The largest training loss of each repeat, a panel a family, a row of dots a method."""
    families, methods = (list(dict.fromkeys(table[name])) for name in ("family", "method"))
    fig, axes = plt.subplots(1, len(families), figsize=(1.2 + 1.45 * len(families), 2.4), sharey=True, squeeze=False)
    for ax, family in zip(axes[0], families, strict=True):
        for place, method in enumerate(methods[::-1]):
            worst = table[(table.family == family) & (table.method == method)].worst
            ax.plot(worst.clip(FLOOR), [place] * len(worst), "o", markersize=3, color=COLOURS[method], alpha=0.8)
        ax.set(title=family, xscale="log", yticks=range(len(methods)), yticklabels=methods[::-1])
    fig.supxlabel("largest training loss of the path", fontsize=8)
    return fig


def budgets(table):
    """Largest training loss against SGD samples, mean and range over repeats, a panel a family."""
    families, methods = (list(dict.fromkeys(table[name])) for name in ("family", "method"))
    fig, axes = plt.subplots(1, len(families), figsize=(1.8 + 2.8 * len(families), 2.6), sharey=True, squeeze=False)
    for ax, family in zip(axes[0], families, strict=True):
        for method in methods:
            part = table[(table.family == family) & (table.method == method)].groupby("sgd_steps")
            spent, worst = part.samples.mean(), part.worst
            bounds = [worst.mean() - worst.min(), worst.max() - worst.mean()]
            ax.errorbar(spent, worst.mean(), bounds, color=COLOURS[method], label=method, marker="o", markersize=3,
                        linewidth=1, capsize=2)  # fmt: skip
        ax.set(title=family, xscale="log", yscale="log", xlabel="SGD samples spent")
        allowed = table[table.family == family].groupby("sgd_steps").samples.median()
        ax.set_xticks(allowed, [f"{each:,.0f}" for each in allowed])
        ax.tick_params(axis="x", which="minor", bottom=False, labelbottom=False)
    axes[0, 0].set_ylabel("largest training loss")
    fig.legend(*axes[0, 0].get_legend_handles_labels(), loc="outside right center", fontsize=7)
    return fig


def layers(tables):
    """Heat maps of the training loss on layer-wise and cumulative lines, a column a case.

    Parameters
    ----------
    tables : dict of str to DataFrame
        By title, the ``losses`` of :func:`lib.studies.methods.layer_barriers`.
    """
    kinds = ("layer-wise", "cumulative")
    height = 0.6 + 0.12 * max(table.layer.nunique() for table in tables.values())
    fig, axes = plt.subplots(2, len(tables), figsize=(2.2 * len(tables) + 0.6, 2 * height), squeeze=False)
    norm = LogNorm(1e-3, max(float(table.loss.max()) for table in tables.values()), clip=True)
    for column, (title, table) in enumerate(tables.items()):
        for ax, kind in zip(axes[:, column], kinds, strict=True):
            part = table[table.kind == kind]
            grid = part.pivot_table(index="layer", columns="fraction", values="loss", sort=False)
            image = ax.imshow(grid, aspect="auto", norm=norm, cmap="viridis", extent=(0, 1, len(grid), 0))
            ax.set(yticks=np.arange(len(grid)) + 0.5, yticklabels=grid.index, title=f"{title}\n{kind}")
            ax.tick_params(axis="y", labelsize=5)
            ax.grid(visible=False)
        ax.set_xlabel("fraction of the way")
    fig.colorbar(image, ax=axes, label="training loss", shrink=0.6)
    return fig


def planes(found):
    """The loss surface in planes of two modes and a path point, every method's path projected.

    Parameters
    ----------
    found : dict of str to dict
        By title, the outcome of :func:`lib.studies.methods.plane`.
    """
    fig, axes = plt.subplots(1, len(found), figsize=(1.4 + 2.7 * len(found), 2.9), squeeze=False)
    lowest = min(float(each["surface"].train_loss.min()) for each in found.values())
    levels = np.geomspace(max(lowest, 1e-3), 10, 13)
    for ax, (title, each) in zip(axes[0], found.items(), strict=True):
        grid = each["surface"].pivot_table(index="y", columns="x", values="train_loss")
        image = ax.contourf(grid.columns, grid.index, np.clip(grid, levels[0], levels[-1]), levels=levels,
                            norm="log", vmax=1000, cmap="Greys")  # fmt: skip
        for method, line in each["curves"].groupby("method", sort=False):
            straight = {"color": "k", "linestyle": ":"} if method == "straight line" else {"color": COLOURS[method]}
            ax.plot(line.x, line.y, label=method, **straight)
        ax.plot(line.x.iloc[[0, -1]], line.y.iloc[[0, -1]], "ko", markersize=4)
        ax.set(title=title, xlabel="distance")
        ax.grid(visible=False)
    axes[0, 0].set_ylabel("distance")
    bar = fig.colorbar(image, ax=axes, label="training loss", shrink=0.8)
    bar.set_ticks([0.001, 0.01, 0.1, 1, 10])
    fig.legend(*axes[0, 0].get_legend_handles_labels(), loc="outside upper center", ncols=5, fontsize=7)
    return fig
