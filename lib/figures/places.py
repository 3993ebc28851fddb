"""Pictures of a place on a path, from numbers of :mod:`lib.studies.places`: where it lies, what is left of the way."""

from lib.figures import style

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
    fig, axes = style.panels(3, height=2.2)
    curves(axes[0], lines, "train_loss", at, scores)
    curves(axes[1], lines, "test_accuracy", at, scores, chance=chance)
    layers(axes[2], left)
    style.legend(fig, axes[0], ncols=2)
    return fig


def curves(ax, lines, column, at, scores, *, chance=None):
    """A column of evaluated points against the fraction of the length, and the place; the paper's bound, or chance."""
    for name, points in lines.items():
        ax.plot(points.arc / points.arc.iloc[-1], points[column], **style.look(name))
    ax.axvline(at, color=style.GREY, linewidth=0.8)
    ax.plot(at, scores[column], "o", color=style.look("LLPF")["color"], markeredgecolor="black")
    if chance is None:
        style.bound(ax)
    else:
        style.chance(ax, chance)
    ax.set(xlabel="fraction of the length", ylabel=LABELS[column], yscale="log" if chance is None else "linear")


def layers(ax, left):
    """How far each layer is from the end, a bar for each, the first layer on top."""
    ax.barh(list(left), list(left.values()), color=style.shades(len(left)))
    ax.set(xlim=(0, 1.05), xlabel="distance from the end / at the start")
    ax.invert_yaxis()
    if len(left) > 12:
        ax.set_yticks([])
        ax.set_ylabel("layers, the first on top")
