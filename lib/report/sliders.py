"""Sliders below a picture; where nobody can move one, the picture alone, as the notebook's own values give it.

The picture is an ordinary output of its cell, so that an executed copy shows it without widgets, scripts or a network.
"""

import importlib.util
import inspect
from collections.abc import Callable
from typing import Any

import matplotlib.pyplot as plt
from IPython import get_ipython
from IPython.display import Markdown, display
from matplotlib.figure import Figure

from lib.report import figures  # noqa: F401  sets the style of what is drawn

MILLISECONDS = 400  # between two pictures of an animation


def play(view: Callable, *, animate: str | None = None, **controls: Any) -> tuple:
    """Show what `view` draws and, where a person sits at the notebook, controls that draw it anew.

    Parameters
    ----------
    view : callable
        Its arguments have defaults, which are shown first. It returns what is shown: a Figure, a DataFrame, a text
        in Markdown, or a tuple of these, always as many.
    animate : str, optional
        An argument that a button lets run from its lowest to its highest value.
    **controls
        For each argument that can be changed what it may be, as ipywidgets abbreviates it: ``(lowest, highest)`` or
        ``(lowest, highest, step)`` for a slider, a list for a menu, True or False for a box to tick.

    Returns
    -------
    tuple
        What was shown first, to save it.

    Examples
    --------
    >>> def power(exponent=2):
    ...     return f"two to the power of {exponent} is {2 ** exponent}"
    >>> (shown,) = play(power, exponent=(0, 10))  # in JupyterLab: with a slider from 0 to 10
    <IPython.core.display.Markdown object>
    >>> shown.data
    'two to the power of 2 is 4'
    """
    defaults = {name: argument.default for name, argument in inspect.signature(view).parameters.items()}
    first = _drawn(view, {})
    handles = [display(each, display_id=True) for each in first]
    if attended():
        _add_controls(view, {name: (allowed, defaults[name]) for name, allowed in controls.items()}, handles, animate)
    return first


def attended() -> bool:
    """Whether a person sits at the notebook: papermill, nbconvert and the runner tell the kernel that nobody does."""
    kernel = getattr(get_ipython(), "kernel", None)
    return bool(getattr(kernel, "_allow_stdin", False)) and importlib.util.find_spec("ipywidgets") is not None


def _drawn(view, values):
    """What a view returns, as a tuple; pyplot forgets its figures, else the cell would show them once more."""
    shown = view(**values)
    shown = shown if isinstance(shown, tuple) else (shown,)
    for each in shown:
        if isinstance(each, Figure):
            plt.close(each)
    return tuple(Markdown(each) if isinstance(each, str) else each for each in shown)


def _add_controls(view, controls, handles, animate):
    import ipywidgets as widgets

    made = {name: _control(name, *control) for name, control in controls.items()}

    def redraw(_):
        try:
            shown = _drawn(view, {name: control.value for name, control in made.items()})
        except Exception as error:  # nobody would see it: what a control raises goes to the log of the server
            shown = [Markdown(f"**{type(error).__name__}**: {error}"), *([Markdown("")] * (len(handles) - 1))]
        for handle, each in zip(handles, shown, strict=True):
            handle.update(each)

    for control in made.values():
        control.observe(redraw, "value")
    buttons = []
    if animate:
        slider = made[animate]
        button = widgets.Play(value=slider.min, min=slider.min, max=slider.max, step=slider.step, interval=MILLISECONDS)
        widgets.jslink((button, "value"), (slider, "value"))
        buttons.append(button)
    display(widgets.VBox([*buttons, *made.values()]))


def _control(name, allowed, value):
    """A widget from its abbreviation, which is made to hold the value that the notebook was given."""
    import ipywidgets as widgets

    if isinstance(allowed, tuple):
        allowed = min(allowed[0], value), max(allowed[1], value), *allowed[2:]
    if isinstance(allowed, list) and value not in allowed:
        allowed = [value, *allowed]
    control = widgets.interactive.widget_from_abbrev(allowed, value)
    control.description, control.style.description_width = name.replace("_", " "), "10em"
    control.layout.width = "30em"
    if hasattr(control, "continuous_update"):
        control.continuous_update = False  # one picture for a move, not one for each value on the way
    return control
