"""The two pictures that explain the methods: weights as points in the plane, the variance sphere as a circle."""

import matplotlib
import numpy as np
from matplotlib.figure import Figure

BLUE, RED, GREEN, GREY = "#0072B2", "#D55E00", "#009E73", "0.45"


def draw(folder):
    """Write ``sphere-path.svg`` and ``sphere-mean.svg`` to a folder, the same bytes every time."""
    with matplotlib.rc_context({"svg.hashsalt": "layerwise", "font.family": "DejaVu Sans", "font.size": 9}):
        for name, picture in (("sphere-path", path), ("sphere-mean", mean)):
            fig = Figure(figsize=(4.4, 3.5), layout="constrained")
            ax = fig.subplots()
            ax.set_aspect("equal")
            ax.axis("off")
            turn = np.linspace(0, 2 * np.pi, 200)
            ax.plot(np.cos(turn), np.sin(turn), "--", color=GREY, linewidth=1)
            ax.plot(0, 0, "+", color=GREY, markersize=5)
            picture(ax)
            fig.savefig(folder / f"{name}.svg", metadata={"Date": None, "Creator": None})


def path(ax):
    """Two modes, the straight line between them, and the steps of a path along the sphere."""
    start, end = on_circle(160), on_circle(20)
    ax.plot(*zip(start, end, strict=True), color=RED)
    ax.text(0, 0.24, "straight line: variance\nfalls, loss rises", color=RED, ha="center", va="top")
    point = start
    while (distance := np.linalg.norm(end - point)) > 0.35:
        moved = point + 0.35 * (end - point) / distance
        corrected = moved / np.linalg.norm(moved)
        for a, b, color in ((point, moved, BLUE), (moved, corrected, GREEN)):
            arrow(ax, a, b, color)
        point = corrected
    arrow(ax, point, end, BLUE)
    ax.plot(*zip(start, end, strict=True), "o", color="black")
    ax.annotate("mode A", start, (-6, -12), textcoords="offset points", ha="right")
    ax.annotate("mode B", end, (6, -12), textcoords="offset points")
    ax.text(0, 1.22, "LLPF: move,", color=BLUE, ha="center")
    ax.text(0, 1.08, "then correct, train, correct", color=GREEN, ha="center")
    ax.text(0, -1.17, "variance sphere: Var(W) = v", color=GREY, ha="center")
    ax.set(xlim=(-1.65, 1.65), ylim=(-1.25, 1.35))


def arrow(ax, start, end, color, width=1.0):
    """A thin arrow from point to point."""
    style = {"arrowstyle": "->", "color": color, "linewidth": width, "shrinkA": 0, "shrinkB": 0}
    ax.annotate("", end, start, arrowprops=style)


def mean(ax):
    """Models of five nodes, their mean inside the sphere, and the correction."""
    models = np.array([on_circle(angle) for angle in (140, 40, 170, 5, 270)])
    averaged = models.mean(axis=0)
    for model in models:
        ax.plot(*zip(model, averaged, strict=True), color=RED, linewidth=0.6)
    ax.plot(*models.T, "o", color="black")
    corrected = averaged / np.linalg.norm(averaged)
    arrow(ax, averaged, corrected, GREEN, width=1.6)
    ax.plot(*averaged, "o", color=RED)
    ax.text(0.08, -0.1, "mean: variance\nv/N, learning\nstalls", color=RED, va="top")
    ax.text(0, 1.08, "corrected: back onto the sphere", color=GREEN, ha="center")
    ax.annotate("models of\nfive nodes", models[1], (7, 0), textcoords="offset points")
    ax.text(0, -1.17, "variance sphere: Var(W) = v", color=GREY, ha="center")
    ax.set(xlim=(-1.65, 1.65), ylim=(-1.25, 1.35))


def on_circle(degrees):
    """The point of the circle at an angle."""
    return np.array([np.cos(np.radians(degrees)), np.sin(np.radians(degrees))])
