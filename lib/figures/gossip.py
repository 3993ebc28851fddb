"""Pictures and tables that several gossip notebooks share: learning curves, ticks to an accuracy.

``outcomes`` is a dict from a line's name to one outcome of :func:`lib.studies.gossip.gossip_run`, or to a
list of them, runs with different seeds.
"""

import math

import matplotlib.pyplot as plt
import pandas as pd

from lib import runs
from lib.gossip import measures
from lib.report import claims
from lib.studies.gossip import gossip_run

# The same line looks the same in all figures; lines that coincide stay visible by their dashes.
COLOURS = {
    "isolated": "#000000", "gossip": "#D55E00", "corrected gossip": "#0072B2", "federated": "#009E73",
}  # fmt: skip
OTHERS = ("#CC79A7", "#56B4E9", "#8C564B", "#7F7F7F", "#BCBD22", "#17BECF", "#882255")
DASHES = {"isolated": ":", "federated": "--", "transfer-like": "-.", "averaged": "--"}


def look(names):
    """Colour and dashes of each line, as keyword arguments of ``plot``, by name."""
    others = iter(OTHERS)
    colours = {name: COLOURS.get(name) or next(others) for name in names}
    above = {name: 2 + (name in DASHES) for name in names}
    return {
        name: {"color": colour, "linestyle": DASHES.get(name, "-"), "zorder": above[name]}
        for name, colour in colours.items()
    }


def simulate(tree, *, label=None):
    """Outcomes of a nested dict or list of run configs, in the same nesting; all runs in one map."""
    leaves = []

    def place(node):
        if isinstance(node, dict):
            return {name: place(child) for name, child in node.items()}
        if isinstance(node, list):
            return [place(child) for child in node]
        leaves.append(node)
        return len(leaves) - 1

    def fill(node):
        if isinstance(node, dict):
            return {name: fill(child) for name, child in node.items()}
        return [fill(child) for child in node] if isinstance(node, list) else outcomes[node]

    placed = place(tree)
    outcomes = runs.map(gossip_run, leaves, label=label)
    return fill(placed)


def of_server(outcome, *, interval=10):
    """A federated outcome as its server has it: without records of clients that have trained since its average.

    Parameters
    ----------
    interval : int
        Ticks of a round; clients train at its start, the server averages in its middle.
    """
    history = outcome["history"]
    averaged = history.tick % interval >= interval // 2
    return outcome | {"history": history[averaged].reset_index(drop=True)}


def frame(outcomes, part="history"):
    """One long table of all outcomes: column ``system``, ``repeat``, then those of the part."""
    tables = [
        outcome[part].assign(system=name, repeat=repeat)
        for name, group in outcomes.items()
        for repeat, outcome in enumerate(_group(group))
    ]
    table = pd.concat(tables, ignore_index=True)
    return table[["system", "repeat", *(c for c in table.columns if c not in ("system", "repeat"))]]


def mean_accuracy(group):
    """Mean accuracy by tick over nodes and repeats."""
    return pd.concat([outcome["history"] for outcome in _group(group)]).groupby("tick").accuracy.mean()


def accuracy(ax, outcomes, *, title=None, legend=True, band=True):
    """Draw mean accuracy against tick, with the range over nodes and repeats as a band."""
    looks = look(outcomes)
    for name, group in outcomes.items():
        table = pd.concat([outcome["history"] for outcome in _group(group)]).groupby("tick")
        mean = table.accuracy.mean()
        (line,) = ax.plot(mean.index, mean, label=name, **looks[name])
        if band:
            ax.fill_between(mean.index, table.lowest.min(), table.highest.max(), color=line.get_color(),
                            alpha=0.12, linewidth=0)  # fmt: skip
    ax.set(xlabel="tick", ylabel="test accuracy", ylim=(0, 1.02), title=title)
    if legend and len(outcomes) > 3:
        ax.figure.legend(*ax.get_legend_handles_labels(), loc="outside upper center", ncols=2)
    elif legend:
        ax.legend(loc="best")
    return ax


def panels(groups, *, columns=3, height=1.9, **options):
    """A figure with one panel for each entry of ``groups``, a dict of title to outcomes; one legend below."""
    rows = math.ceil(len(groups) / columns)
    columns = min(columns, len(groups))
    fig, axes = plt.subplots(rows, columns, figsize=(2.35 * columns, height * rows + 0.35), sharex=True,
                             sharey=True, squeeze=False)  # fmt: skip
    for ax, (title, outcomes) in zip(axes.flat, groups.items(), strict=False):
        accuracy(ax, outcomes, title=title, legend=False, **options)
        ax.label_outer()
    for ax in axes.flat[len(groups) :]:
        ax.set_axis_off()
    handles, labels = axes.flat[0].get_legend_handles_labels()
    fig.legend(handles, labels, loc="outside upper center", ncols=len(labels))
    return fig


def summary(outcomes, *, level, batch, interval=10):
    """Table of outcomes: final accuracy, plateau delay, ticks and samples a node to an accuracy level."""
    rows = []
    for name, group in outcomes.items():
        curve = mean_accuracy(group)
        ticks = measures.ticks_to(curve, level)
        rows.append({
            "system": name, "final accuracy": curve.iloc[-1], "plateau delay": measures.plateau_delay(curve),
            f"ticks to {level:g}": ticks, f"samples to {level:g}": ticks / interval * batch,
        })  # fmt: skip
    return pd.DataFrame(rows)


def record_ratio(quantity, outcomes, first, second, *, level):
    """Record :func:`ratio` as a quantity of a claim, as a lower bound where it is one; returns it."""
    value = ratio(outcomes, first, second, level=level)
    claims.record(quantity, value, at_least=bool(bound(outcomes, first, second, level=level)))
    return value


def arrives(outcomes, name, *, level):
    """Whether a line's mean accuracy reaches a level within the run."""
    return not math.isnan(measures.ticks_to(mean_accuracy(outcomes[name]), level))


def bound(outcomes, first, second, *, level):
    """The word for a :func:`ratio` that is a lower bound, as its first line never gets to the level: "at least"."""
    is_bound = arrives(outcomes, second, level=level) and not arrives(outcomes, first, level=level)
    return "at least" if is_bound else ""


def slowest_over_fastest(ticks):
    """Largest over smallest ticks to a level; nan unless there are at least two, and all reached the level."""
    return ticks.max() / ticks.min() if len(ticks) > 1 and ticks.notna().all() else math.nan


def ratio(outcomes, first, second, *, level):
    """Ticks to a level of the first line, divided by those of the second; nan where the second never gets there.

    Where the first never gets there (:func:`arrives`), its last tick counts: the ratio is then a lower bound.
    """
    curves = [mean_accuracy(outcomes[name]) for name in (first, second)]
    ticks = [measures.ticks_to(curve, level) for curve in curves]
    if math.isnan(ticks[0]):
        ticks[0] = float(curves[0].index[-1])
    return ticks[0] / ticks[1]


def sweep(groups, name, *, level, batch):
    """Table of a sweep: for each value and system, final accuracy and ticks to a level.

    Parameters
    ----------
    groups : dict of value to outcomes
    name : str
        Of the column of values.
    """
    tables = []
    for value, outcomes in groups.items():
        tables.append(summary(outcomes, level=level, batch=batch))
        tables[-1].insert(0, name, value)
    return pd.concat(tables, ignore_index=True)


def sweep_figure(groups, table, *, level, last, shown="corrected gossip", logarithmic=False):
    """A figure of a sweep: ticks to a level against the value, and the learning curves of one system.

    Parameters
    ----------
    groups : dict of value to outcomes
    table : DataFrame
        As :func:`sweep` makes it of them.
    shown : str
        The system whose curves are drawn.
    """
    fig, axes = plt.subplots(1, 2, figsize=(6.6, 2.8))
    ticks_against(axes[0], table, level=level, last=last, logarithmic=logarithmic)
    for i, (value, outcomes) in enumerate(groups.items()):
        curve = mean_accuracy(outcomes[shown])
        axes[1].plot(curve.index, curve, label=_text(value), color=plt.cm.viridis(i / len(groups)))
    axes[1].set(xlabel="tick", ylabel="test accuracy", ylim=(0, 1.02), title=shown)
    axes[1].legend(loc="best", title=table.columns[0], title_fontsize=7, ncols=1 + (len(groups) > 4))
    return fig


def speed_ups(groups, *, level):
    """How much faster corrected gossip is than plain gossip, for each value of a sweep.

    Returns
    -------
    DataFrame
        By value: ``speed-up`` (:func:`ratio`) and ``bound``, "at least" where plain gossip never gets there.
    """
    return pd.DataFrame(
        {
            "speed-up": {value: ratio(of, "gossip", "corrected gossip", level=level) for value, of in groups.items()},
            "bound": {value: bound(of, "gossip", "corrected gossip", level=level) for value, of in groups.items()},
        }
    )


def record_speed_ups(prefix, groups, *, level):
    """Record the speed-up for each value of a sweep, and the smallest of them."""
    speed = speed_ups(groups, level=level)
    for value, row in speed.iterrows():
        claims.record(f"{prefix}.{value:g}.speed_up", row["speed-up"], at_least=bool(row["bound"]))
    record_smallest(f"{prefix}.smallest_speed_up", speed["speed-up"], speed["bound"])


def record_smallest(quantity, values, bounds):
    """Record the smallest of some values, of which those with a word in ``bounds`` are lower bounds."""
    smallest = values.min(skipna=False)
    claims.record(quantity, smallest, at_least=bool((bounds[values == smallest] != "").any()))


def ticks_against(ax, table, *, level, last, systems=None, logarithmic=False):
    """Draw ticks to a level against the first column of a sweep; open triangles: not reached by ``last``."""
    name, column = table.columns[0], f"ticks to {level:g}"
    positions = {value: i for i, value in enumerate(dict.fromkeys(table[name]))}
    number = all(isinstance(value, int | float) for value in positions)
    names = systems or list(dict.fromkeys(table.system))
    for system, style in look(names).items():
        rows = table[table.system == system]
        x = rows[name] if number else rows[name].map(positions)
        (line,) = ax.plot(x, rows[column].fillna(last), marker="o", label=system, **style)
        late = rows[column].isna().to_numpy()
        hollow = {"color": "white", "markeredgecolor": line.get_color(), "markersize": 7}
        ax.plot(x[late], [last] * late.sum(), "^", **hollow)
    if not number:
        ax.set_xticks(list(positions.values()), list(positions), rotation=30, ha="right")
    if logarithmic:
        ax.set_xscale("log")
    if table[column].isna().any():
        ax.plot([], [], "^", color="white", markeredgecolor="0.4", markersize=7, label="not reached by the end")
    ax.set(xlabel=name, ylabel=column, ylim=(0, 1.08 * last))
    ax.legend(loc="best")
    return ax


def _text(value):
    return value if isinstance(value, str) else f"{value:g}"


def _group(group):
    return group if isinstance(group, list) else [group]
