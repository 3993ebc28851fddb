"""What gossip runs say: mean curves over seeds, ticks to an accuracy, ratios of them, and the words for all that.

``outcomes`` is a dict from a system's name to the outcomes of :func:`lib.studies.gossip.gossip_run` for some seeds;
``groups`` is a dict from a value of a sweep to such outcomes.
"""

import math
from dataclasses import dataclass, replace

import pandas as pd

from lib import runs
from lib.gossip import measures
from lib.gossip.algorithms import Federated
from lib.studies.gossip import gossip_run

MISSING = "not within the run"


@dataclass(frozen=True)
class Ratio:
    """A ratio of ticks; ``at_least``: the first system never got there, so that its last tick counts."""

    value: float
    at_least: bool = False

    def __str__(self):
        return number(self.value, 2, at_least=self.at_least)


def simulate(tree, *, repeats, label=None):
    """Outcomes of a nested dict of run configs, in the same nesting; all runs in one map.

    Parameters
    ----------
    tree : dict
        Of dicts, or of :class:`lib.studies.gossip.Run`.
    repeats : int
        Seeds of each run: its own, and the next ones.

    Returns
    -------
    dict
        A list of outcomes, one a seed, in place of each config. Federated learning is measured at its server.
    """
    configs = []

    def place(node):
        if isinstance(node, dict):
            return {name: place(child) for name, child in node.items()}
        configs.extend(replace(node, seed=node.seed + i) for i in range(repeats))
        return range(len(configs) - repeats, len(configs))

    def fill(node):
        if isinstance(node, dict):
            return {name: fill(child) for name, child in node.items()}
        return [_at_server(configs[i], found[i]) for i in node]

    placed = place(tree)
    found = runs.map(gossip_run, configs, label=label)
    return fill(placed)


def _at_server(config, outcome):
    """The outcome; of a federated run without records of clients that have trained since the server's average."""
    if not isinstance(config.averaging, Federated):
        return outcome
    interval = (config.settings.interval or (10, 10))[0]  # clients train at its start, the server averages halfway
    history = outcome["history"]
    averaged = history.tick % interval >= interval // 2
    return outcome | {"history": history[averaged].reset_index(drop=True)}


def frame(outcomes, *levels, part="history"):
    """One long table of outcomes: a column for each level of the dicts (default: ``system``), ``repeat``, the part's.

    Parameters
    ----------
    levels : str
        Such as "beta", "system".
    part : {"history", "variance", "difference"}
    """
    if isinstance(outcomes, list):
        name, tables = "repeat", {i: outcome[part] for i, outcome in enumerate(outcomes)}
    else:
        name, *below = levels or ("system",)
        tables = {key: frame(child, *below, part=part) for key, child in outcomes.items()}
    return pd.concat(tables, names=[name]).reset_index(level=0).reset_index(drop=True)


def mean_accuracy(group):
    """Mean accuracy by tick over nodes and seeds."""
    return pd.concat([outcome["history"] for outcome in group]).groupby("tick").accuracy.mean()


def summary(outcomes, *, level, batch, interval=10):
    """What each system reaches, and when.

    Returns
    -------
    DataFrame
        ``final accuracy``, ``plateau delay``, ``ticks to ...`` and ``samples to ...`` (of a node) an accuracy
        ``level``, all of the mean over nodes and seeds; ``fastest seed`` and ``slowest seed``: ticks to the level of
        single seeds, nan for those that do not get there; ``last tick`` of the runs.
    """
    rows = []
    for name, group in outcomes.items():
        curve = mean_accuracy(group)
        ticks = measures.ticks_to(curve, level)
        seeds = pd.Series([measures.ticks_to(mean_accuracy([outcome]), level) for outcome in group])
        rows.append({
            "system": name, "final accuracy": curve.iloc[-1], "plateau delay": measures.plateau_delay(curve),
            f"ticks to {level:g}": ticks, "fastest seed": seeds.min(), "slowest seed": seeds.max(skipna=False),
            f"samples to {level:g}": ticks / interval * batch, "last tick": curve.index[-1],
        })  # fmt: skip
    return pd.DataFrame(rows)


def sweep(groups, name, *, level, batch):
    """Table of a sweep: :func:`summary` for each value, with the values in a first column ``name``."""
    tables = {value: summary(outcomes, level=level, batch=batch) for value, outcomes in groups.items()}
    return pd.concat(tables, names=[name]).reset_index(level=0).reset_index(drop=True)


def ratio(outcomes, first, second, *, level):
    """Ticks to a level of the first system over those of the second; nan where the second never gets there.

    Where the first never gets there, its last tick counts: the ratio is then a lower bound.
    """
    curve, other = (mean_accuracy(outcomes[name]) for name in (first, second))
    ticks, faster = measures.ticks_to(curve, level), measures.ticks_to(other, level)
    late = math.isnan(ticks)
    return Ratio((float(curve.index[-1]) if late else ticks) / faster, late and not math.isnan(faster))


def speed_ups(groups, *, level):
    """How much faster corrected gossip is than plain gossip, a :class:`Ratio` for each value of a sweep."""
    return {value: ratio(outcomes, "gossip", "corrected gossip", level=level) for value, outcomes in groups.items()}


def smallest(ratios):
    """The smallest of some ratios; nan if one of them does not exist.

    Examples
    --------
    >>> str(smallest([Ratio(3.0), Ratio(2.0, at_least=True)]))
    'at least 2'
    """
    return min(ratios, key=lambda each: (not math.isnan(each.value), each.value, not each.at_least))


def slowest_over_fastest(ticks):
    """Largest over smallest ticks to a level; nan unless there are at least two, and all reached the level."""
    return ticks.max() / ticks.min() if len(ticks) > 1 and ticks.notna().all() else math.nan


def number(value, digits=3, *, at_least=False):
    """A number with some significant digits, or words for one that does not exist.

    Examples
    --------
    >>> number(7.871), number(7.871, 2, at_least=True), number(float("nan"))
    ('7.87', 'at least 7.9', 'not within the run')
    >>> number(1234.6)
    '1235'
    """
    if not math.isfinite(value):
        return MISSING
    text = f"{value:.0f}" if abs(value) >= 10**digits else f"{value:.{digits}g}"
    return f"at least {text}" if at_least else text


def listing(values):
    """A dict of names to texts, ratios or numbers as ``name: value; name: value``.

    Examples
    --------
    >>> listing({"gossip": float("nan"), "isolated": 145.0, 0.5: Ratio(2.0, at_least=True)})
    'gossip: not within the run; isolated: 145; 0.5: at least 2'
    """
    texts = {name: str(value) if isinstance(value, str | Ratio) else number(value) for name, value in values.items()}
    return "; ".join(f"{name}: {text}" for name, text in texts.items())


def ticks(outcomes, level):
    """Ticks to a level of accuracy of each system, as words."""
    return listing({name: measures.ticks_to(mean_accuracy(group), level) for name, group in outcomes.items()})


def final(outcomes):
    """Mean accuracy of each system at its last tick, as words."""
    return listing({name: mean_accuracy(group).iloc[-1] for name, group in outcomes.items()})


def span(values, digits=3):
    """Smallest to largest of some numbers, and how many of them do not exist.

    Examples
    --------
    >>> span([99.0, 142.6, float("nan")])
    '99 to 143 (1 of 3 not within the run)'
    """
    values = list(values)
    found = [value for value in values if math.isfinite(value)]
    if not found:
        return MISSING
    least, most = number(min(found), digits), number(max(found), digits)
    missing = len(values) - len(found)
    text = least if least == most else f"{least} to {most}"
    return text + (f" ({missing} of {len(values)} {MISSING})" if missing else "")
