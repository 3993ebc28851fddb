"""Tables of paths, for figures and csv files: what was measured along them, a row a point or a row a path."""

import numpy as np
import pandas as pd


def normalised(points):
    """Arc length of each evaluated point as a fraction of the whole path's."""
    return points["arc"] / points["arc"].iloc[-1]


def frame(lines):
    """One long table of the points of some paths: columns ``path``, ``repeat``, ``fraction``, then those of the points.

    Parameters
    ----------
    lines : dict of str to list of DataFrame
        By name, :meth:`lib.connectivity.Path.evaluate` of each repeat.
    """
    tables = {
        (name, repeat): points.assign(fraction=normalised(points))
        for name, repeats in lines.items()
        for repeat, points in enumerate(repeats)
    }
    table = pd.concat(tables, names=["path", "repeat"]).reset_index(["path", "repeat"]).reset_index(drop=True)
    first = ["path", "repeat", "fraction"]
    return table[[*first, *(column for column in table if column not in first)]]


def distances(paths):
    """Distance left to the destination at every stored point, relative to the start's.

    Parameters
    ----------
    paths : list of dict
        Outcomes of :func:`lib.studies.m2m.m2m`, a repeat each.

    Returns
    -------
    DataFrame
        ``repeat``, ``layer`` (a weight tensor, or "all" parameters together), ``fraction`` of the path, ``distance``.
    """
    tables = []
    for repeat, path in enumerate(paths):
        fraction = normalised(path["points"])[path["points"].anchor].to_numpy()
        left = path["distances"][path["weights"]].rename(columns=lambda name: name.removesuffix(".weight"))
        left["all"] = np.sqrt((path["distances"] ** 2).sum(axis=1))
        for layer in left:
            columns = {"repeat": repeat, "layer": layer, "fraction": fraction}
            tables.append(pd.DataFrame(columns | {"distance": left[layer] / left[layer].iloc[0]}))
    return pd.concat(tables, ignore_index=True)


def trials(configs, outcomes):
    """What each trial of :mod:`lib.studies.methods` measured, a row each."""
    names = ("worst", "mean", "accuracy", "length", "samples", "arrived", "seconds")
    rows = [
        {"family": config.start.model, "method": config.method, "sgd_steps": config.sgd_steps}
        | {name: found[name] for name in names}
        for config, found in zip(configs, outcomes, strict=True)
    ]
    table = pd.DataFrame(rows)
    table.insert(2, "repeat", table.groupby(["family", "method", "sgd_steps"]).cumcount())
    return table


def trial_points(table, outcomes):
    """Training loss along the path of each trial: ``family``, ``method``, ``repeat``, ``fraction``, ``train_loss``."""
    tables = [
        found["points"][["train_loss"]].assign(
            family=row.family, method=row.method, repeat=row.repeat, fraction=normalised(found["points"])
        )
        for row, found in zip(table.itertuples(), outcomes, strict=True)
    ]
    return pd.concat(tables, ignore_index=True)[["family", "method", "repeat", "fraction", "train_loss"]]


def trial_summary(table):
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
