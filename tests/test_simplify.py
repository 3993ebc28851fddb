"""Simplified paths: below the bound everywhere, no more segments than any other choice of the same anchors."""

import itertools

import pandas as pd
import pytest
import torch
from torch import nn

from lib import tasks
from lib.connectivity import Path
from lib.connectivity.analysis.simplification import evenly_spaced, simplify
from lib.errors import InputError

x = torch.zeros(6, 1, 8, 8)
x[:, :, 0, 0] = torch.tensor([1.0, -1.0, 1.0, -1.0, 1.0, -1.0])[:, None]
points = tasks.from_tensors(x, torch.tensor([0, 1] * 3), x, torch.tensor([0, 1] * 3), name="two points", device="cpu")


class Planar(nn.Module):
    """A loss over the plane: low around the unit circle, so that a chord of the circle is a barrier."""

    def __init__(self):
        super().__init__()
        self.at = nn.Parameter(torch.zeros(2))

    def forward(self, x):
        margin = 4 - 8 * (self.at.norm() - 1).abs()
        right = x[:, 0, 0, :1].sign() * margin
        return torch.cat([right, -right], 1)


def arc(anchors, turn=3.14):
    angles = torch.linspace(0, turn, anchors)
    log = pd.DataFrame({"tick": range(1, anchors)})
    return Path(Planar(), torch.stack([angles.cos(), angles.sin()], 1), log)


@pytest.mark.parametrize("bound", [0.01, 0.1, 0.5])
def test_no_choice_of_anchors_has_fewer_segments(bound):
    path = arc(9)
    if path.max_loss(points) >= bound:
        pytest.skip("the path itself is not below the bound")
    simple = simplify(path, points, bound)
    assert simple.max_loss(points) < bound
    fewer = len(simple) - 3
    for inner in itertools.combinations(range(1, 8), fewer) if fewer >= 0 else ():
        other = Path(path.model, path.anchors[[0, *inner, 8]])
        assert other.max_loss(points) >= bound


def test_ends_stay_and_the_log_says_which_anchors_were_kept():
    path = arc(12)
    simple = simplify(path, points, 0.3)
    assert 2 < len(simple) < len(path)
    assert torch.equal(simple.anchors[[0, -1]], path.anchors[[0, -1]])
    kept = [0, *simple.log.anchor]
    assert torch.equal(simple.anchors, path.anchors[kept])
    assert simple.log.tick.tolist() == kept[1:]


def test_a_path_without_log_and_a_straight_one():
    straight = Path(Planar(), torch.tensor([[1.0, 0.0], [1.0, 0.01], [1.0, 0.02]]))
    simple = simplify(straight, points, 0.1)
    assert len(simple) == 2 and simple.log.anchor.tolist() == [2]


def test_evenly_spaced_anchors():
    assert torch.equal(evenly_spaced(arc(9), 3).anchors, arc(9).anchors[::2])
    assert len(evenly_spaced(arc(9), 0)) == 2


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: simplify(arc(3), points, 0.01), "bound=0.01: no choice of the path's 3 anchors stays below it"),
        (lambda: simplify(arc(3), points, 0), "bound=0: must be larger than 0"),
        (lambda: evenly_spaced(arc(5), 4), "pivots=4: must be between 0 and the 3 anchors between the ends"),
    ],
)
def test_bad_input_is_one_clear_line(call, message):
    with pytest.raises(InputError, match=message) as caught:
        call()
    assert "\n" not in str(caught.value)
