"""The picture of one tick of paper 1, on the variance sphere of a layer of three weights (a circle)."""

import numpy as np
from matplotlib.patches import Circle

from lib.figures import style

STEPS = (  # words, from, to, colour, place of the number beside the arrow's middle
    ("1 move towards $D$", "P_i", "M_1", style.VERMILION, (0, -6)),
    ("2 correct the variance", "M_1", "M_2", style.GREEN, (7, 2)),
    ("3 train", "M_2", "M_3", style.BLUE, (-4, 5)),
    ("4 correct again", "M_3", "P_{i+1}", style.GREEN, (-6, -3)),
)
OFFSETS = {"P_i": (-10, 3), "M_1": (9, -5), "M_2": (10, 5), "M_3": (9, -5), "P_{i+1}": (-13, 7), "D": (9, 3)}


def sketch(points, surface):
    """The toy loss (dark is high), the variance sphere, and the tick's points with named arrows between them.

    Parameters
    ----------
    points : DataFrame
        Of :func:`lib.studies.geometry.tick`.
    surface : callable
        (x, y) to the height of the toy loss on their grid: :func:`lib.studies.geometry.surface`.
    """
    fig, (ax,) = style.panels(1, height=2.7)
    x, y = np.linspace(-1.15, 1.15, 200), np.linspace(0.2, 1.15, 100)
    ax.contourf(x, y, surface(x, y), levels=np.linspace(0, 0.6, 13), cmap="Blues", extend="max", alpha=0.6)
    ax.add_patch(Circle((0, 0), 1, fill=False, linestyle="--", color="0.3"))
    places = dict(zip(points["point"], points[["x", "y"]].to_numpy(), strict=True))
    for row, (words, one, other, color, offset) in enumerate(STEPS):
        arrow = {"arrowstyle": "->", "color": color, "linewidth": 1.6, "shrinkA": 2, "shrinkB": 2}
        ax.annotate("", places[other], places[one], arrowprops=arrow)
        middle, place = (places[one] + places[other]) / 2, {"ha": "center", "va": "center", "fontsize": 7.5}
        ax.annotate(words[0], middle, offset, textcoords="offset points", color=color, weight="bold", **place)
        ax.annotate(words, (0.08, 0.66 - 0.06 * row), color=color, fontsize=9)
    for name, place in places.items():
        ax.plot(*place, "ko", markersize=3)
        ax.annotate(f"${name}$", place, OFFSETS[name], textcoords="offset points", ha="center", va="center", fontsize=9)
    ax.annotate("variance sphere", (np.cos(1), np.sin(1)), (6, 6), textcoords="offset points", color="0.3")
    ax.annotate("valley of low loss", (0.28, 0.74), ha="center", color="0.3")
    white = {"arrowprops": {"arrowstyle": "->", "color": "1"}, "color": "1"}
    ax.annotate("to the origin", (0, 0.2), (0, 0.32), ha="center", **white)
    ax.set(aspect="equal", ylim=(0.2, 1.15), xlim=(-1.15, 1.15), xticks=[], yticks=[])
    return fig
