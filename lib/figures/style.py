"""How figures look: one colour, dash and name for every system, method and role of both papers, and what they share.

The colours are those of Okabe and Ito (families: Tol's muted ones), told apart by all kinds of sight. Blue is what a
paper proposes, vermilion what it is compared with first; a variant has its system's colour and other dashes.
"""

import textwrap

import matplotlib.pyplot as plt
import numpy as np
from scipy.optimize import isotonic_regression

from lib.errors import InputError

COLUMN, PAGE = 3.4, 7.0  # widths of a figure in inches
SMALL = 6  # points: no text is smaller
GREY = "0.4"
_PAPER = {"facecolor": "1", "edgecolor": "none", "alpha": 0.75, "pad": 0.3}  # behind a label that lies on lines
BLACK, BLUE, VERMILION, GREEN = "#000000", "#0072B2", "#D55E00", "#009E73"
PINK, ORANGE, SKY, BROWN = "#CC79A7", "#E69F00", "#56B4E9", "#8C564B"

_NAMES = {
    (BLUE, "-"): ["corrected gossip", "after, received", "LLPF", "LLPF, adaptive", "follow the data flow",
                  "down, moving spheres", "variance", "usual end", "training"],
    (BLUE, "--"): ["aligned LLPF", "up, moving spheres"],
    (SKY, "-"): ["corrected, momentum mixed", "compressed", "scale-free", "after, mixed", "corrected before mixing",
                 "LLPF, fixed schedule", "down, M2O then M2M", "random"],
    (SKY, "--"): ["scale-free, Metropolis", "averaged"],
    (SKY, "-."): ["federated, different starts, corrected"],
    (VERMILION, "-"): ["gossip", "straight line", "all at once", "constant", "sharp end"],
    (VERMILION, "--"): ["gossip, momentum mixed", "aligned line", "test"],
    (GREEN, "-"): ["gossip, initial gain", "reestimated", "biases corrected",
                   "Bezier, 1 bend", "root", "two learning rates"],
    (GREEN, "--"): ["federated", "Bezier, 3 bends"],
    (GREEN, ":"): ["half of the clients"],
    (ORANGE, "-"): ["sampled", "messages lost", "before, received", "kept", "chain, 1 bend", "all at once, slowly",
                     "epsilon 0.0001"],
    (ORANGE, "--"): ["chain, 3 bends", "down, as the script"],
    (PINK, "-"): ["federated, different starts", "nodes away", "rate policy inv",
                  "after, own", "AutoNEB", "reversed", "two optimisers"],
    (PINK, "--"): ["partitioned"],
    (BLACK, ":"): ["isolated"],
    (BROWN, "-"): ["five steps a round"],
    (BROWN, "-."): ["transfer-like"],
}  # fmt: skip
_FAMILIES = {
    "lenet5": "#332288", "vgg11_bn": "#DDCC77", "resnet18": "#117733", "densenet": "#661100", "mobilenetv2": "#CC6677",
    "shufflenet": "#AA4499", "efficientnet_b0": "#44AA99", "regnetx": "#999933", "dla": "#882255", "cct7": "#88CCEE",
}  # fmt: skip
LOOKS = {name: style for style, names in _NAMES.items() for name in names}
LOOKS |= {family: (color, "-") for family, color in _FAMILIES.items()}


def look(name):
    """Colour, dashes and label of a system, method or role, as keyword arguments of ``plot``.

    Raises
    ------
    InputError
        For a name that ``LOOKS`` lacks; one of your own is added by ``LOOKS["mine"] = ("#CC79A7", "-")``.

    Examples
    --------
    >>> look("corrected gossip")
    {'color': '#0072B2', 'linestyle': '-', 'label': 'corrected gossip'}
    """
    if name not in LOOKS:
        raise InputError(f"look of {name!r}: not in lib.figures.style.LOOKS; add one")
    color, dashes = LOOKS[name]
    return {"color": color, "linestyle": dashes, "label": name}


def shades(count):
    """Colours of layers, or of the values of a sweep: the deeper, or larger, the darker."""
    return plt.get_cmap("viridis_r")(np.linspace(0.1, 1, count))


def panels(count, *, columns=None, width=PAGE, height=1.7, **options):
    """A figure of ``count`` axes in rows of ``columns`` (default: one row), ``height`` inches each.

    Returns
    -------
    Figure
    list of Axes
    """
    columns = min(columns or count, count)
    rows = -(-count // columns)
    fig, axes = plt.subplots(rows, columns, figsize=(width, height * rows + 0.3), squeeze=False, **options)
    for ax in axes.flat[count:]:
        ax.set_axis_off()
    for ax in axes.flat[max(count - columns, 0) : count]:
        ax.tick_params(labelbottom=True)  # where nothing stands below, also if the row is not the last
    return fig, list(axes.flat[:count])


def outer_labels(axes, columns):
    """Keep labels of axes only where no panel stands below or to the left."""
    for number, ax in enumerate(axes):
        if number + columns < len(axes):
            ax.set_xlabel("")
        if number % columns:
            ax.set_ylabel("")


def reference(ax, value, text="", *, axis="y", at=0.99, dashes="--", va="bottom"):
    """A thin grey line at a value, its word beside it at a fraction of the line (bound, chance, v/N, the paper's)."""
    line = {"color": GREY, "linewidth": 0.8, "linestyle": dashes, "zorder": 1.5}
    words = {"textcoords": "offset points", "fontsize": SMALL, "color": GREY, "va": va}
    if axis == "y":
        ax.axhline(value, **line)
        side = "right" if at > 0.5 else "left"
        away = (0, 1 if va == "bottom" else -1)
        ax.annotate(text, (at, value), away, xycoords=ax.get_yaxis_transform(), ha=side, **words)
    else:
        ax.axvline(value, **line)
        ax.annotate(text, (value, at), (2, 0), xycoords=ax.get_xaxis_transform(), **words | {"va": "top"})


def bound(ax, text="bound 0.1", **where):
    """The paper's bound on the training loss of a path."""
    reference(ax, 0.1, text, **where)


def chance(ax, value):
    """The accuracy of guessing."""
    reference(ax, value, "chance", dashes=":", va="top")


def band(ax, lines, name, **changes):
    """Draw the mean of repeats, and the range from the lowest to the highest of them.

    Parameters
    ----------
    lines : DataFrame
        A column a repeat; the index is x.
    name : str
        In ``LOOKS``.
    """
    style = look(name) | changes
    ax.plot(lines.index, lines.mean(axis=1), **style)
    if lines.shape[1] > 1:
        low, high = lines.min(axis=1), lines.max(axis=1)
        ax.fill_between(lines.index, low, high, color=style["color"], alpha=0.2, linewidth=0)


def not_reached(ax, x, last, color):
    """An arrow that is joined to nothing: at ``x`` the level was not reached by tick ``last``."""
    arrow = {"arrowstyle": "->", "color": color, "linewidth": 1.2, "shrinkA": 0, "shrinkB": 0}
    ax.annotate("", (x, 1.09 * last), (x, 0.97 * last), arrowprops=arrow, annotation_clip=False)


def label_ends(ax, *, gap=7.5, wrap=20):
    """Write every line's label at its right end instead of a legend; rows keep ``gap`` points from one another."""
    ax.figure.draw_without_rendering()  # for the place of the ends on the page
    handles, labels = ax.get_legend_handles_labels()
    labels = [textwrap.fill(label, wrap) if "\n" not in label else label for label in labels]
    heights = gap * np.array([1 + label.count("\n") for label in labels])
    lines = [each[0] if isinstance(each, tuple) else each for each in handles]  # a line with error bars is a tuple
    ends = [points[np.isfinite(points[:, 1])][-1] for points in (line.get_xydata() for line in lines)]
    across, points = ax.transData.transform(ends).T * 72 / ax.figure.dpi
    for place in np.unique(across.round()):  # lines that end elsewhere are not in the way
        here = np.flatnonzero(across.round() == place)
        order = here[np.argsort(points[here], kind="stable")]
        spaces = np.cumsum(heights[order]) - heights[order] / 2
        for number, y in zip(order, isotonic_regression(points[order] - spaces).x + spaces, strict=True):
            text = {"color": lines[number].get_color(), "fontsize": SMALL, "va": "center", "bbox": _PAPER}
            ax.annotate(labels[number], ends[number], (4, y - points[number]), textcoords="offset points",
                        annotation_clip=False, **text)  # fmt: skip


def legend(fig, ax, only=None, note="", **options):
    """One legend above all panels, of the lines of one of them, or of those that are named, with a note behind each."""
    lines = dict(zip(*reversed(ax.get_legend_handles_labels()), strict=True))
    shown = {name: line for name, line in lines.items() if only is None or name in only}
    fig.legend(shown.values(), [name + note for name in shown], loc="outside upper center", **options)


def layer_bar(fig, axes, count):
    """A colour bar for lines drawn in :func:`shades`: from the first layer to the last."""
    colours = plt.matplotlib.colors.ListedColormap(shades(count))
    bar = fig.colorbar(plt.cm.ScalarMappable(plt.Normalize(0, 1), colours), ax=axes, ticks=[0, 1], aspect=30)
    bar.ax.set_yticklabels(["first\nlayer", "last\nlayer"])
