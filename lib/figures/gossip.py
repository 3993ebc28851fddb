"""Pictures that several gossip notebooks share: learning curves, layer variance, ticks to an accuracy along a sweep.

Tables are long: a row for each ``system``, ``repeat`` (a seed) and ``tick``, as of :func:`lib.studies.outcomes.frame`.
Lines are means over seeds, bands go from the lowest to the highest seed.
"""

import numpy as np

from lib.figures import style


def by_seed(rows, column="accuracy"):
    """A column of a long table by tick, a column a seed."""
    return rows.pivot_table(index="tick", columns="repeat", values=column)


def curves(ax, table, *, chance, x="tick", context=()):
    """Draw accuracy against ticks, or another column ``x``, for each system; those in ``context`` stay in the back."""
    for system, rows in table.groupby("system", sort=False):
        lines = rows.pivot_table(index=x, columns="repeat", values="accuracy")
        if system in context:
            ax.plot(lines.index, lines.mean(axis=1), **style.look(system), alpha=0.45, linewidth=1)
        else:
            style.band(ax, lines, system)
    style.chance(ax, chance)
    ax.set(xlabel=x, ylabel="test accuracy", ylim=(0, 1.02))


def learning(table, *, chance, height=2.3):
    """Learning curves of a few systems in one column, each labelled at its end."""
    fig, (ax,) = style.panels(1, width=style.COLUMN, height=height)
    curves(ax, table, chance=chance)
    style.label_ends(ax)
    return fig


def learning_by(table, by, *, chance, columns=None, height=1.5, width=style.PAGE, context=()):
    """Learning curves in a panel for each value of the column ``by``; ``context``: systems drawn in every panel."""
    values = [value for value in dict.fromkeys(table[by]) if value not in context]
    fig, axes = style.panels(len(values), columns=columns, height=height, width=width, sharex=True, sharey=True)
    for ax, value in zip(axes, values, strict=True):
        rows = table[table[by].isin([*context, value]) if by == "system" else table[by] == value]
        curves(ax, rows, chance=chance, context=context)
        ax.set_title(value)
    style.outer_labels(axes, columns or len(axes))
    if context:
        style.legend(fig, axes[0], only=context, ncols=len(context), note=" (pale, in every panel)")
    return fig, axes


def variance(ax, table, *, num_nodes):
    """Draw the variance of one layer after averaging, over the initial one, for each system."""
    for system, rows in table.groupby("system", sort=False):
        share = rows.assign(left=rows.averaged / rows.groupby("repeat").start.transform("first"))
        style.band(ax, by_seed(share, "left"), system)
    style.reference(ax, 1 / num_nodes, "v/N", at=0.5)
    ax.set(xlabel="tick", yscale="log")


def ticks_against(ax, table, *, level, logarithmic=False):
    """Draw ticks to a level against the first column of a table of :func:`lib.studies.outcomes.sweep`.

    A dot is the tick at which the mean over nodes and seeds gets there, its bar goes from the fastest seed to the
    slowest. Where the mean, or a seed, does not get there, an arrow at the last tick points up.
    """
    name, last = table.columns[0], table["last tick"].max()
    for system, rows in table.groupby("system", sort=False):
        ticks, look = rows[f"ticks to {level:g}"], style.look(system)
        if ticks.isna().all():
            ax.plot(rows[name].iloc[-1:], rows["last tick"].iloc[-1:], **look)  # nothing to see but its label
        else:
            bars = np.stack([ticks - rows["fastest seed"], rows["slowest seed"].fillna(last) - ticks]).clip(0)
            ax.errorbar(rows[name], ticks, bars, **look, marker="o", markersize=3, capsize=2)
        for x, end in rows[rows["slowest seed"].isna()][[name, "last tick"]].to_numpy(float):
            style.not_reached(ax, x, end, look["color"])
    if table[f"ticks to {level:g}"].isna().any():
        ax.annotate(f"arrows: not reached\nby tick {last:.0f}", (0.5, 1), (0, 2), xycoords="axes fraction",
                    textcoords="offset points", ha="center", fontsize=style.SMALL)  # fmt: skip
    ax.set(xlabel=name, ylabel=f"ticks to accuracy {level:g}", ylim=(0, 1.1 * last))
    if logarithmic:
        ax.set_xscale("log")
    values = list(dict.fromkeys(table[name]))
    shown = values if len(values) <= 7 else values[:: -(-len(values) // 7)]
    ax.set_xticks(shown, [f"{value:g}" for value in shown])
    ax.minorticks_off()


def sweep(ticks, curves_of_one, *, level, chance, logarithmic=False):
    """A figure of a sweep: ticks to a level against the value, and the mean curves of one system by value.

    Parameters
    ----------
    ticks : DataFrame
        Of :func:`lib.studies.outcomes.sweep`; the first column holds the values.
    curves_of_one : DataFrame
        Long, with the same column of values, of one system.
    """
    fig, (left, right) = style.panels(2, height=2)
    ticks_against(left, ticks, level=level, logarithmic=logarithmic)
    style.label_ends(left)
    name = ticks.columns[0]
    groups = list(curves_of_one.groupby(name, sort=False))
    for (value, rows), colour in zip(groups, style.shades(len(groups)), strict=True):
        right.plot(rows.groupby("tick").accuracy.mean(), color=colour, label=f"{value:g}", linewidth=1)
    style.chance(right, chance)
    style.reference(right, level, f"{level:g}", at=0.01)
    right.set(xlabel="tick", ylabel="test accuracy", ylim=(0, 1.02), title=f"{rows.system.iloc[0]}, by {name}")
    style.label_ends(right)
    return fig
