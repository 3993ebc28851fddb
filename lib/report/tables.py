"""Tables: csv for machines, markdown for people, LaTeX (booktabs) for papers; bytes that repeat."""

from numbers import Real

from pandas import DataFrame
from pandas.api.types import is_numeric_dtype

from lib.report import context
from lib.report.figures import csv

# What people read for a column that code and csv name in one word.
HEADINGS = {"max_loss": "largest training loss", "sgd_steps": "SGD steps"}


def save(df: DataFrame, name: str, *, caption: str, source: str, missing: str = "nan") -> DataFrame:
    """Save a table.

    Parameters
    ----------
    df : DataFrame
        A named index becomes the first column; another index is left out.
    name : str
        File name without suffix: lower-case words and numbers joined by dashes.
    caption : str
        One sentence; says what the rows are.
    source : str
        The data set and model, such as "digits, LeNet5".
    missing : str
        What people read for a number that does not exist, such as "not within the run"; the csv has an empty field.

    Returns
    -------
    DataFrame
        What was saved, for display.
    """
    path = context.target("tables", name)
    table = df.reset_index() if any(df.index.names) else df.reset_index(drop=True)
    note = f"{caption} (data: {source}; profile: {context.profile()})"
    context.write(path.with_suffix(".csv"), csv(table))
    shown = table.rename(columns=HEADINGS)
    context.write(path.with_suffix(".md"), f"{note}\n\n{markdown(shown, missing)}\n")
    context.write(path.with_suffix(".tex"), _latex(shown, note, missing, label=f"tab:{name}"))
    return table.map(lambda value: missing if _is_missing(value) else value)


def markdown(table: DataFrame, missing: str = "nan") -> str:
    """`table` as a markdown table with four significant digits; `missing` stands for numbers that do not exist."""
    cells = table.map(lambda value: _short(value, missing)).map(lambda text: text.replace("|", "\\|"))
    sides = ["right" if is_numeric_dtype(kind) else "left" for kind in table.dtypes]
    return cells.to_markdown(index=False, disable_numparse=True, colalign=sides)


def _latex(table, caption, missing, label):
    cells = table.map(lambda value: _short(value, missing))
    style = cells.style.hide(axis="index").format(escape="latex").format_index(escape="latex", axis=1)
    sides = "".join("r" if is_numeric_dtype(kind) else "l" for kind in table.dtypes)
    return style.to_latex(hrules=True, caption=caption, label=label, position_float="centering", column_format=sides)


def _is_missing(value):
    return isinstance(value, float) and value != value


def _short(value, missing):
    if _is_missing(value):
        return missing
    number = isinstance(value, Real) and not isinstance(value, bool | int)
    return f"{value:.4g}" if number else str(value)
