"""A checkpoint belongs to the arguments of one computation: everything else refuses it in one line."""

import dataclasses
import functools

import networkx as nx
import numpy as np
import pytest
import torch
from torch import nn

from lib import connectivity, gossip, tasks, training
from lib.checkpoint import Checkpoint, identity
from lib.connectivity.baselines import curves, neb
from lib.errors import InputError

DATA = tasks.load("digits", size=8, device="cpu").subset(100, 20)


def net(seed, hidden=4, between=nn.ReLU):
    torch.manual_seed(seed)
    return nn.Sequential(nn.Flatten(), nn.Linear(64, hidden), between(), nn.Linear(hidden, 10))


def other_data(which="train"):
    split = getattr(DATA, which)
    x = split.x.clone()
    x[3, 0, 2, 2] += 1e-3
    return dataclasses.replace(DATA, **{which: dataclasses.replace(split, x=x)})


FIXED = connectivity.M2M(driver=connectivity.Fixed(ticks=3, min_sgd_steps=1, max_sgd_steps=1), moving_spheres=False)
MODES = {"a": net(1), "b": net(2), "task": DATA, "seed": 0}
OTHER_MODES = {"a": net(3), "b": net(1), "task": other_data(), "seed": 1}
WEIGHTED = nx.Graph([(0, 1), (1, 2), (2, 0)])
# Of each computation: the function, its arguments, and others of which each makes it another computation.
COMPUTATIONS = {
    "train_mode": (
        lambda model, **more: training.train_mode(net(model), **more),
        {"model": 1, "task": DATA, "recipe": training.Recipe(epochs=2), "seed": 0},
        {"model": 2, "task": other_data(), "recipe": training.Recipe(epochs=2, lr=0.02), "seed": 1},
    ),
    "connect": (connectivity.connect, MODES | {"config": FIXED}, OTHER_MODES | {"config": connectivity.M2M()}),
    "connect_abreast": (
        connectivity.connect_abreast,
        {"pairs": [(net(1), net(2)), (net(3), net(4))], "task": DATA, "config": FIXED, "seeds": [0, 1]},
        {"pairs": [(net(1), net(2)), (net(4), net(3))], "task": other_data(),
         "config": dataclasses.replace(FIXED, lr=0.02), "seeds": [1, 0]},
    ),
    "to_origin": (
        connectivity.to_origin,
        {"a": net(1), "task": DATA, "config": connectivity.M2O(ticks=3, max_sgd_steps=5), "targets": {}, "seed": 0},
        {"a": net(2), "task": other_data(), "config": connectivity.M2O(ticks=4), "targets": {"1.weight": 1e-5},
         "seed": 1},
    ),
    "curve": (
        curves.connect, MODES | {"config": curves.Curve(sgd_steps=4)},
        OTHER_MODES | {"config": curves.Curve(sgd_steps=4, kind="chain")},
    ),
    "band": (
        neb.connect, MODES | {"config": neb.AutoNEB(cycles=((1e-3, 3, 1),))},
        OTHER_MODES | {"config": neb.AutoNEB(cycles=((1e-2, 3, 1),))},
    ),
    "simulate": (
        lambda settings, **more: gossip.simulate(**more, ticks=12, **settings),
        {"task": DATA, "model": net, "graph": WEIGHTED, "averaging": gossip.Average(), "seed": 0,
         "labels": gossip.IID(), "settings": {"batch": 8}},
        {"task": other_data("test"), "model": functools.partial(net, hidden=5), "graph": nx.path_graph(3),
         "averaging": gossip.Average(0.4), "seed": 1, "labels": gossip.Shards(2), "settings": {"batch": 9}},
    ),
}  # fmt: skip
CASES = [(name, argument) for name, (_, _, others) in COMPUTATIONS.items() for argument in others]


@pytest.fixture(scope="module")
def states(tmp_path_factory):
    """For each computation a folder with the state in which it was interrupted."""

    class Stop(Checkpoint):
        def save(self, state):
            super().save(state)
            raise KeyboardInterrupt

    folders = {}
    for name, (function, arguments, _) in COMPUTATIONS.items():
        folders[name] = tmp_path_factory.mktemp(name)
        with pytest.raises(KeyboardInterrupt):
            function(**arguments, checkpoint=Stop(folders[name], every=0))
    return folders


@pytest.mark.parametrize(("name", "argument"), CASES)
def test_a_state_of_other_arguments_is_refused_in_one_line_and_stays(states, name, argument):
    function, arguments, others = COMPUTATIONS[name]
    before = {file.name: file.read_bytes() for file in states[name].iterdir()}
    told = rf"checkpoint='.*': its state belongs to other arguments \((model, )?{argument}\);"
    with pytest.raises(InputError, match=told) as caught:
        function(**(arguments | {argument: others[argument]}), checkpoint=Checkpoint(states[name]))
    assert "\n" not in str(caught.value)
    assert {file.name: file.read_bytes() for file in states[name].iterdir()} == before


@pytest.mark.parametrize("name", COMPUTATIONS)
def test_the_same_arguments_go_on_and_another_computation_does_not(states, name, caplog):
    other = "simulate" if name == "curve" else "curve"
    function, arguments, _ = COMPUTATIONS[other]
    with pytest.raises(InputError, match="belongs to other arguments"):
        function(**arguments, checkpoint=Checkpoint(states[name]))
    function, arguments, _ = COMPUTATIONS[name]
    again = {key: net(1) if key == "a" else net(2) if key == "b" else value for key, value in arguments.items()}
    function(**again, checkpoint=Checkpoint(states[name], every=0))
    assert not caplog.messages


def test_a_simulation_that_is_further_than_asked_says_so(tmp_path):
    run = functools.partial(gossip.simulate, DATA, net, WEIGHTED, seed=0, batch=8)
    run(ticks=9, checkpoint=Checkpoint(tmp_path, every=0))
    longer = run(ticks=12, checkpoint=Checkpoint(tmp_path))
    assert list(longer.accuracy.index) == [0, 8, 10, 11], "8 was the last tick once"
    with pytest.raises(InputError, match="ticks=5: the simulation in the checkpoint is at tick 9 already"):
        run(ticks=5, checkpoint=Checkpoint(tmp_path))


class Plain:
    def __init__(self, value):
        self.value = value


def frozen(model):
    model[1].requires_grad_(False)
    return model


SAME = {
    "modules": lambda: net(1), "tensors": lambda: torch.arange(6.0).view(2, 3), "arrays": lambda: np.arange(2000),
    "objects": lambda: Plain([Plain(1)]), "functions": lambda: net, "partial": lambda: functools.partial(net, hidden=5),
    "sets": lambda: {"a", "b", "c"}, "numbers": lambda: [1, 2.5, None, True, "x"], "tasks": lambda: DATA,
    "settings": lambda: gossip.VarianceCorrected(message=gossip.Sampled(0.3)),
}  # fmt: skip
DIFFERENT = {
    "weights": (net(1), net(2)), "shapes": (net(1), net(1, hidden=5)), "structure": (net(1), net(1, between=nn.Tanh)),
    "frozen": (net(1), frozen(net(1))), "types": (torch.ones(2), torch.ones(2).double()),
    "shape": (torch.ones(6), torch.ones(2, 3)), "sign of zero": (torch.zeros(1), -torch.zeros(1)),
    "long arrays": (np.zeros(5000), np.eye(1, 5000, 2500)[0]), "objects": (Plain(1), Plain(2)),
    "order": ([1, 2], [2, 1]),
    "number and text": (1, "1"), "nesting": ([[1], 2], [[1, 2]]), "functions": (net, frozen),
    "settings": (gossip.Average(0.5), gossip.VarianceCorrected(0.5)), "test images": (DATA, other_data("test")),
    "precision": (DATA, dataclasses.replace(DATA, precision="bfloat16")),
}  # fmt: skip


@pytest.mark.parametrize("name", SAME)
def test_equal_arguments_have_one_identity(name):
    assert identity(SAME[name]()) == identity(SAME[name]())


@pytest.mark.parametrize("name", DIFFERENT)
def test_different_arguments_have_different_identities(name):
    one, other = DIFFERENT[name]
    assert identity(one) != identity(other)


def test_an_object_that_holds_itself_has_an_identity():
    loop = Plain(None)
    loop.value = [loop]
    assert identity(loop)
