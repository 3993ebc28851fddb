"""Figures: one style, the files of each (png, pdf, a csv of what is plotted, its caption), bytes that repeat.

Importing this module sets the style. Every figure carries a footer that says from which data and which
profile it comes, so that a picture on its own cannot be mistaken for one at the papers' settings.
"""

import io
import os
import textwrap
from pathlib import Path

import matplotlib.pyplot as plt
from IPython import get_ipython
from IPython.display import Markdown, display
from matplotlib.figure import Figure
from pandas import DataFrame

from lib.report import context

plt.style.use(Path(__file__).with_name("style.mplstyle"))

FOOTER_POINTS = 6
# Neither dates nor versions: the same picture is the same bytes.
METADATA = {"png": {"Software": None}, "pdf": {"Creator": None, "Producer": None, "CreationDate": None}}


def save(fig: Figure, name: str, data: DataFrame, *, source: str, caption: str, shown: bool = False) -> None:
    """Save a figure, the numbers behind it and its caption; in a notebook also show figure and caption.

    Parameters
    ----------
    fig : Figure
        Gets a footer "data: source · profile: ...". A notebook shows it once, here; it can be saved again.
    name : str
        File name without suffix: lower-case words and numbers joined by dashes.
    data : DataFrame
        What is plotted, one row a point; a named index is written too.
    source : str
        The data set and model, such as "digits, LeNet5".
    caption : str
        Markdown: what is drawn, sizes, repeats, what a band and a line of reference are.
        The files lie in ``results/<profile>/figures``, the caption as ``name.md``.
    shown : bool
        Whether the notebook shows the figure already, above its sliders; then only the caption is shown here.
    """
    path = context.target("figures", name)
    _footer(fig, f"data: {source} · profile: {context.profile()}")
    for kind, metadata in METADATA.items():
        context.write(path.with_suffix(f".{kind}"), _render(fig, kind, metadata))
    context.write(path.with_suffix(".csv"), csv(data))
    context.write(path.with_suffix(".md"), f"{caption}\n")
    if get_ipython():
        display(*[] if shown else [fig], Markdown(caption))
        plt.close(fig)


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
    lines = textwrap.wrap(text, int(22 * fig.get_figwidth()))
    strip = (1.25 * len(lines) + 0.6) * FOOTER_POINTS / 72 / fig.get_figheight()
    layout = fig.get_layout_engine()
    if layout is not None:
        layout.set(rect=(0, strip, 1, 1 - strip))
    elif not earlier:
        fig.subplots_adjust(bottom=fig.subplotpars.bottom + strip)
    fig.text(0.995, 0.2 * strip, "\n".join(lines), ha="right", va="bottom", fontsize=FOOTER_POINTS, color="0.4",
             gid="footer")  # fmt: skip
