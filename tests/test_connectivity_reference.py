"""The fixed schedule against its tick as it stands in the paper."""

import copy

import pytest
import torch

from lib import models, seeds, sphere, tasks, training
from lib.connectivity import M2M, Fixed, connect, reference
from lib.connectivity.walker import arc
from lib.weights import flatten

digits = tasks.load("digits", size=12, device="cpu").subset(200, 60)


@pytest.mark.parametrize("steps", [{"step_f": 0.3, "step_a": 0.0}, {"step_f": 0.0, "step_a": 0.1, "step_c": 0.05}])
def test_a_path_by_the_fixed_schedule_is_ticks_of_the_paper(steps):
    recipe = training.Recipe(epochs=5, lr=0.03, momentum=0.9, batch=50)
    start, end = (
        training.train_mode(models.create("lenet5", digits, seed=seed), digits, recipe, seed=seed) for seed in (1, 2)
    )
    ticks, sgd_steps, lr, seed = 4, 3, 0.02, 5
    driver = Fixed(ticks=ticks, min_sgd_steps=sgd_steps, max_sgd_steps=sgd_steps, stop_loss=1e-9, **steps)
    config = M2M(order="all", moving_spheres=False, batch=50, lr=lr, driver=driver)
    path = connect(start, end, digits, config, seed=seed)

    point = copy.deepcopy(start).train()
    destination = {name: p.detach() for name, p in end.named_parameters()}
    arcs = {name: arc(p.detach().flatten(), destination[name].flatten()) for name, p in start.named_parameters()}
    spheres = {name: value.detach() for name, value in sphere.variance(start).items()}
    batches = digits.batches(seeds.derive(seed, "path"), 50)
    for number in range(ticks):
        reference.tick(
            point, destination, spheres, set(destination),
            [batches.get(sgd_steps * number + i) for i in range(sgd_steps)],
            lr=lr, arcs=arcs, **{"step_c": 0.0, **steps},
        )  # fmt: skip
        torch.testing.assert_close(path.anchors[number + 1], flatten(point), rtol=1e-4, atol=1e-5)
