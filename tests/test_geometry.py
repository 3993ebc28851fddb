"""The sketch of a tick: computed points, on the sphere where the paper says so."""

import pytest
import torch

from lib.studies import geometry


def test_a_tick_starts_and_ends_on_the_sphere_and_training_lowers_the_loss():
    points = geometry.tick().set_index("point")
    radius = (points**2).sum(axis=1) ** 0.5
    for name in ("P_i", "M_2", "P_{i+1}", "D"):
        assert radius[name] == pytest.approx(1)
    assert radius["M_1"] < 0.9
    found = {
        name: float(geometry.loss(torch.tensor(points.loc[name].to_numpy()))) for name in ("P_i", "M_2", "M_3", "D")
    }
    assert found["M_3"] < found["M_2"]
    assert max(found["P_i"], found["D"]) < 1e-9
