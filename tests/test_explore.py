"""What the explore notebooks stand on: sliders that also work where nobody can move one."""

import pytest
from IPython.display import Markdown

from lib.report import sliders


class _Handle:
    """In place of an output of a cell: keeps what is shown there."""

    def __init__(self, shown):
        self.shown = [shown]

    def update(self, shown):
        self.shown.append(shown)


@pytest.fixture
def cell(monkeypatch):
    """What ``play`` displays in a notebook that a person sits at."""
    outputs = []

    def display(shown, **_):
        outputs.append(_Handle(shown))
        return outputs[-1]

    monkeypatch.setattr(sliders, "attended", lambda: True)
    monkeypatch.setattr(sliders, "display", display)
    return outputs


def root(number=4.0, digits=2):
    if number < 0:
        raise ValueError("no root of a negative number")
    return f"{number**0.5:.{digits}f}", "as text"


def test_a_control_draws_anew_and_the_first_picture_is_returned(cell):
    first = sliders.play(root, number=(-1.0, 9.0, 0.5), digits=[1, 2, 3])
    assert [each.data for each in first] == ["2.00", "as text"]
    number, digits = cell[-1].shown[0].children
    number.value = 9.0
    digits.value = 1
    assert [each.data for each in cell[0].shown] == ["2.00", "3.00", "3.0"]
    number.value = -1.0
    assert cell[0].shown[-1].data == "**ValueError**: no root of a negative number"
    assert [type(each) for each in cell[1].shown] == [Markdown] * 4


def test_controls_reach_the_value_of_the_notebook(cell):
    sliders.play(lambda number=40, kind="c": f"{number}{kind}", number=(1, 9), kind=["a", "b"], animate="number")
    button, number, kind = cell[-1].shown[0].children
    assert (number.min, number.max, number.value, kind.value) == (1, 40, 40, "c")
    assert (button.min, button.max) == (1, 40)


def test_nobody_there_no_controls(capsys):
    (shown,) = sliders.play(lambda number=2: f"{number}", number=(1, 9))
    assert shown.data == "2"
    assert "IntSlider" not in capsys.readouterr().out
