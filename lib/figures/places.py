"""Pictures of a place on a path, from numbers of :mod:`lib.studies.places`: where it lies, what is left of the way."""

import matplotlib.pyplot as plt
import numpy as np

COLOURS = {"straight line": "#D55E00", "LLPF": "#0072B2"}
LABELS = {"train_loss": "training loss", "test_accuracy": "test accuracy"}


def picture(lines, at, scores, left, *, chance):
    """Training loss and test accuracy along a path, and the distances left at a place of it.

    Parameters
    ----------
    lines : dict of str to DataFrame
        "straight line" and "LLPF": points as of :meth:`lib.connectivity.Path.evaluate`.
    at : float
        The place: fraction of the path's length.
    scores, left : dict
        As of :func:`lib.studies.places.place`.
    chance : float
        Accuracy of guessing.

    Returns
    -------
    Figure
    """
    fig, axes = plt.subplots(1, 3, figsize=(7, 2.5))
    curves(axes[0], lines, "train_loss", at, scores)
    curves(axes[1], lines, "test_accuracy", at, scores, chance=chance)
    layers(axes[2], left)
    fig.legend(*axes[0].get_legend_handles_labels(), loc="outside upper center", ncols=2)
    return fig


def curves(ax, lines, column, at, scores, *, chance=None):
    """A column of evaluated points against the fraction of the length, and the place; the paper's bound, or chance."""
    for name, points in lines.items():
        ax.plot(points.arc / points.arc.iloc[-1], points[column], color=COLOURS[name], label=name)
    ax.axvline(at, color="0.4", linewidth=0.8)
    ax.plot(at, scores[column], "o", color=COLOURS["LLPF"], markeredgecolor="black")
    value, word = (0.1, "bound 0.1") if chance is None else (chance, "chance")
    ax.axhline(value, color="0.4", linewidth=0.8, linestyle="--")
    ax.annotate(word, (1, value), (0, 2), textcoords="offset points", ha="right", fontsize=7)
    ax.set(xlabel="fraction of the length", ylabel=LABELS[column], yscale="log" if chance is None else "linear")


def layers(ax, left):
    """How far each layer is from the end, a bar for each, the first layer on top."""
    ax.barh(list(left), list(left.values()), color=plt.get_cmap("viridis_r")(np.linspace(0.1, 1, len(left))))
    ax.set(xlim=(0, 1.05), xlabel="distance from the end / at the start")
    ax.invert_yaxis()
    if len(left) > 12:
        ax.set_yticks([])
        ax.set_ylabel("layers, the first on top")
