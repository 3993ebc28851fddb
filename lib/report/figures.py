"""Figures: one style, three files each (png, pdf, and a csv of what is plotted), bytes that repeat.

Importing this module sets the style. Every figure carries a footer that says from which data and which
profile it comes, so that a picture on its own cannot be mistaken for one at the papers' settings.
"""

import io
import os
from pathlib import Path

import matplotlib.pyplot as plt
from matplotlib.figure import Figure
from pandas import DataFrame

from lib.report import context

plt.style.use(Path(__file__).with_name("style.mplstyle"))

FOOTER_INCHES = 0.16
# Neither dates nor versions: the same picture is the same bytes.
METADATA = {"png": {"Software": None}, "pdf": {"Creator": None, "Producer": None, "CreationDate": None}}


def save(fig: Figure, name: str, data: DataFrame, *, source: str) -> Path:
    """Save a figure and the numbers behind it.

    Parameters
    ----------
    fig : Figure
        Stays open and shows in the notebook; gets a footer "data: source · profile: ...".
    name : str
        File name without suffix: lower-case words and numbers joined by dashes.
    data : DataFrame
        What is plotted, one row a point; a named index is written too.
    source : str
        The data set and model, such as "digits, LeNet5".

    Returns
    -------
    Path
        The png; pdf and csv lie beside it, in ``results/<profile>/figures``.
    """
    path = context.target("figures", name)
    _footer(fig, f"data: {source} · profile: {context.profile()}")
    for kind, metadata in METADATA.items():
        context.write(path.with_suffix(f".{kind}"), _render(fig, kind, metadata))
    context.write(path.with_suffix(".csv"), csv(data))
    return path.with_suffix(".png")


def csv(data: DataFrame) -> str:
    """`data` as csv: eight significant digits, an index only if it has a name."""
    return data.to_csv(index=any(data.index.names), float_format="%.8g", lineterminator="\n")


def _render(fig, kind, metadata):
    os.environ.setdefault("SOURCE_DATE_EPOCH", "0")  # dates inside embedded fonts
    buffer = io.BytesIO()
    fig.savefig(buffer, format=kind, metadata=metadata)
    return buffer.getvalue()


def _footer(fig, text):
    """Put `text` into a strip of its own below the axes, in place of an earlier footer."""
    earlier = [artist for artist in fig.texts if artist.get_gid() == "footer"]
    for artist in earlier:
        artist.remove()
    share = FOOTER_INCHES / fig.get_figheight()
    layout = fig.get_layout_engine()
    if layout is not None:
        layout.set(rect=(0, share, 1, 1 - share))
    elif not earlier:
        fig.subplots_adjust(bottom=fig.subplotpars.bottom + share)
    fig.text(0.995, 0.2 * share, text, ha="right", va="bottom", fontsize=5, color="0.45", gid="footer")
