"""What the explore notebooks stand on: a start page, sliders that work where nobody moves them, a place on a path."""

import re

import nbformat
import pytest
import torch
from IPython.display import Markdown

from lib import folders, tasks
from lib.connectivity import Path
from lib.figures import places as draw
from lib.report import plan, sliders
from lib.studies import places


def test_the_start_page_links_every_notebook_by_its_title():
    page = (folders.NOTEBOOKS / "README.md").read_text(encoding="utf-8")
    linked = {file: title for title, file in re.findall(r"\[([^\]]+)\]\((\w+/[^)]+\.ipynb)\)", page)}
    titles = {
        f"{name}.ipynb": nbformat.read(file, as_version=4).cells[0].source.splitlines()[0].removeprefix("# ")
        for name, file in plan.find().items()
    }
    assert linked == titles
    assert len(re.findall(r"\.ipynb\)", page)) == len(titles), "none is linked twice"


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


@pytest.fixture(scope="module")
def task():
    return tasks.load("digits", size=8, device="cpu").subset(40, 20)


def linear(value):
    """A network of two layers, its weights set so that distances are known."""
    layers = torch.nn.Linear(64, 4), torch.nn.Linear(4, 10)
    with torch.no_grad():
        for layer, factor in zip(layers, (1, 2), strict=True):
            layer.weight.copy_(factor * value * torch.eye(*layer.weight.shape))
            layer.bias.zero_()
    return torch.nn.Sequential(torch.nn.Flatten(), *layers)


def test_place_on_a_path(task):
    start, end = linear(0.0), linear(1.0)
    middle = torch.nn.utils.parameters_to_vector(linear(0.5).parameters()).detach()
    path = Path.linear(start, end)
    path = Path(start, torch.stack([path.anchors[0], middle, path.anchors[1], path.anchors[1]]))
    for at in (0.0, 0.25, 0.5, 1.0):
        scores, left = places.place(path, end, task, at)
        assert left == pytest.approx({"1": 1 - at, "2": 1 - at}, abs=1e-6)
        assert scores == path.scores(places.position(path, at), task, splits=("train", "test"))


def test_place_on_a_path_of_one_point_and_of_equal_ends(task):
    model = linear(0.5)
    path = Path(model, Path.linear(model, model).anchors[:1])
    scores, left = places.place(path, model, task, 0.7)
    assert left == {"1": 0.0, "2": 0.0}
    fig = draw.picture({"LLPF": path.evaluate(task)}, 0.7, scores, left, chance=0.1)
    assert [len(ax.lines) for ax in fig.axes[:2]] == [4, 4]
