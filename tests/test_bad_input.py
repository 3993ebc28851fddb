"""What a user can get wrong, in one list: library, data loaders, runs and the command line; one clear line each.

The files that test a part go through all of its checks; here is what a user meets most, side by side, so that
the messages speak one language: the parameter, its value, what is allowed.
"""

import math
from dataclasses import dataclass

import networkx as nx
import numpy as np
import pytest
import torch
from run_functions import Config, Inner, everything

from lib import connectivity, gossip, models, paths, runs, sphere, tasks, training
from lib.errors import InputError
from lib.report import notebooks

X, Y = torch.zeros(20, 1, 16, 16), torch.arange(20) % 10


@pytest.fixture(scope="module")
def digits():
    return tasks.load("digits", size=16, device="cpu").subset(100)


def lenet(digits, seed=0):
    return models.create("lenet5", digits, seed=seed)


def diverged(digits):
    model = lenet(digits)
    torch.nn.init.constant_(model.fc3.bias, math.nan)
    return model


def other_shape(digits):
    return models.create("lenet_caffe", digits, seed=0)


def simulate(digits, graph=None, **settings):
    graph = gossip.topology.ring(4) if graph is None else graph
    return gossip.simulate(digits, "lenet5", graph, **{"ticks": 2, "seed": 0, **settings})


def train(digits, **recipe):
    return training.train_mode(lenet(digits), digits, training.Recipe(epochs=2, **recipe), seed=0)


DATA = {
    "unknown data set": (lambda d: tasks.load("mnits"), "data='mnits': unknown data set, choose one of digits, mnist"),
    "no such data folder": (lambda d: tasks.load("mnist", data_dir="no/such"), "DATA_DIR='no/such': no such folder"),
    "data set not there": (lambda d: tasks.load("mnist", data_dir=str(paths.ROOT)), "data='mnist': not found under"),
    "no folders of images": (
        lambda d: tasks.load("folder", data_dir=str(paths.ROOT)),
        "must hold the folders train and test",
    ),
    "tiny images": (lambda d: tasks.load("digits", size=4), "size=4: images must be at least 8 pixels"),
    "no images": (lambda d: tasks.from_tensors(X[:, 0], Y, X, Y, name="m"), r"shape \(20, 16, 16\).* needs \(n, C, H"),
    "missing labels": (lambda d: tasks.from_tensors(X, Y[:3], X, Y, name="m"), "with 3 classes, needs"),
    "infinite images": (lambda d: tasks.from_tensors(X / 0, Y, X, Y, name="m"), "holds values that are not finite"),
    "no such device": (lambda d: tasks.load("digits", device="cuda:99"), "device='cuda:99': not usable here"),
    "empty batches": (lambda d: d.batches(0, 0), "batch=0: must be between 1 and the 100 images"),
    "large batches": (lambda d: d.batches(0, 101), "batch=101: must be between 1 and the 100 images"),
}
MODELS = {
    "unknown model": (lambda d: models.create("lenet", d, seed=0), "model='lenet': unknown family, choose one of"),
    "unknown size": (lambda d: models.create("lenet5", d, size="big", seed=0), "size='big': choose one of laptop"),
    "no epochs": (lambda d: training.Recipe(epochs=0), "epochs=0: must be at least 1"),
    "negative rate": (lambda d: training.Recipe(lr=-1), "lr=-1: must be larger than 0"),
    "rate that is no number": (lambda d: training.Recipe(lr=math.nan), "lr=nan: must be larger than 0"),
    "large momentum": (lambda d: training.Recipe(momentum=1), r"momentum=1: must be in \[0, 1\)"),
    "unknown optimiser": (lambda d: training.Recipe(optimiser="adam"), "optimiser='adam': choose one of sgd, adamw"),
    "unknown schedule": (lambda d: training.Recipe(schedule="flat"), "schedule='flat': choose one of constant"),
    "negative variance": (lambda d: sphere.correct({"w": X}, {"w": torch.tensor(-1.0)}), "cannot be negative"),
    "variance of nothing": (lambda d: sphere.correct({"w": X}, {"v": torch.tensor(1.0)}), "'v' is not a tensor of the"),
}
CONNECTIVITY = {
    "two shapes": (lambda d: connectivity.connect(lenet(d), other_shape(d), d), "modes of different shape: '.*' is"),
    "a mode with NaN": (lambda d: connectivity.connect(lenet(d), diverged(d), d), "of the start or the end is not fin"),
    "unknown order": (lambda d: connectivity.M2M(order="dfd"), "order='dfd': choose one of fdf"),
    "unknown correction": (lambda d: connectivity.M2M(correction="yes"), "correction='yes': choose one of none"),
    "negative epsilon": (lambda d: connectivity.M2M(epsilon=-1), "epsilon=-1: must be 0 or larger"),
    "no steps": (lambda d: connectivity.Adaptive(step=0), "step=0: must be larger than 0"),
    "points inside": (lambda d: connectivity.Adaptive(interior_points=-1), "interior_points=-1: must be 0 or larger"),
    "shrinking steps": (lambda d: connectivity.Adaptive(growth=0.5), "growth=0.5: must be 1 or larger"),
    "no ticks": (lambda d: connectivity.Fixed(ticks=0), "ticks=0: must be larger than 0"),
    "no movement": (lambda d: connectivity.Fixed(step_a=0), "step_f, step_a, step_c: must not be negative, and one"),
    "half a path": (lambda d: connectivity.Path(lenet(d), X[0, 0, 0]), r"anchors: shape \(16,\), needs"),
    "no such file": (lambda d: connectivity.Path.load("none.safetensors"), "file='none.safetensors': not a readable"),
}
GOSSIP = {
    "odd product": (
        lambda d: gossip.topology.random_regular(5, 3, seed=0),
        "degree=3 with num_nodes=5: their product must be even",
    ),
    "large degree": (
        lambda d: gossip.topology.random_regular(4, 4, seed=0),
        "degree=4: must be smaller than num_nodes=4",
    ),
    "small exponent": (lambda d: gossip.topology.scale_free(20, exponent=2, seed=0), "exponent=2: must be larger"),
    "no edges": (lambda d: simulate(d, nx.empty_graph(4)), "graph: has no edges"),
    "no graph": (lambda d: simulate(d, "ring"), "graph: needs a networkx graph or topology.Rewired, got str"),
    "no edge file": (lambda d: gossip.topology.from_file("none.csv"), "path='none.csv': no such edge file"),
    "large own share": (lambda d: gossip.Average(beta=1.5), r"beta=1.5: must be in \[0, 1\]"),
    "negative own share": (lambda d: gossip.VarianceCorrected(beta=-0.1), r"beta=-0.1: must be in \[0, 1\]"),
    "own share that is no number": (lambda d: gossip.Average(beta=math.nan), r"beta=nan: must be in \[0, 1\]"),
    "alpha of zero": (lambda d: gossip.Dirichlet(alpha=0), "alpha=0: must be larger than 0"),
    "negative alpha": (lambda d: gossip.Dirichlet(alpha=-1), "alpha=-1: must be larger than 0"),
    "nobody takes part": (lambda d: gossip.Federated(fraction=0), r"fraction=0: must be in \(0, 1\]"),
    "no simulation": (lambda d: simulate(d, ticks=0), "ticks=0: must be at least 1"),
    "settings twice": (lambda d: simulate(d, settings=gossip.Settings(), lr=0.1), "settings: give one Settings obj"),
    "no rate": (lambda d: simulate(d, lr=0), "lr=0: must be larger than 0"),
    "all messages lost": (lambda d: simulate(d, message_loss=1), r"message_loss=1: must be in \[0, 1\)"),
    "mixing of another size": (lambda d: gossip.average(torch.ones(3, 2), torch.eye(2)), r"mixing: shape \(2, 2\)"),
    "mixing that grows": (lambda d: gossip.average(torch.ones(2, 2), 2 * torch.eye(2)), "mixing: rows must be non-neg"),
    "unknown target": (
        lambda d: gossip.average(torch.ones(2, 2), torch.eye(2), variance="all"),
        "variance='all': choose None or one of",
    ),
}


@dataclass
class Thawed:
    seed: int = 0


RUNS = {
    "config that may change": (lambda d: runs.one(everything, Thawed()), "a config must be a frozen dataclass"),
    "half a seed": (lambda d: runs.one(everything, Config(seed=1.5)), "everything: config.seed=1.5: expected int"),
    "a number in words": (
        lambda d: runs.one(everything, Config(inner=Inner("half"))),
        "config.inner.beta='half': expected float",
    ),
    "a tensor in a config": (lambda d: runs.one(everything, Config(inner=X)), "config.inner: a config holds numbers"),
    "function of a notebook": (lambda d: runs.one(lambda c, k: {}, Config()), "must be defined at the top level"),
}
CASES = {**DATA, **MODELS, **CONNECTIVITY, **GOSSIP, **RUNS}


@pytest.mark.parametrize("name", CASES)
def test_bad_input_is_one_clear_line(name, digits, tmp_path, monkeypatch):
    monkeypatch.setattr(paths, "CACHE", tmp_path)
    call, message = CASES[name]
    with np.errstate(all="ignore"), pytest.raises(InputError, match=message) as caught:
        call(digits)
    assert "\n" not in str(caught.value)
    assert not list(tmp_path.iterdir()), "something ran"


@pytest.mark.parametrize(
    ("arguments", "environment", "message"),
    [
        (["--profile", "huge"], {}, "profile='huge'"),
        (["--notebooks", "gossip/99"], {}, "notebooks='gossip/99': no such notebook"),
        (["--parameters", "bananas=2"], {}, "unknown parameter 'bananas'"),
        (["--notebooks", "gossip/01*", "--parameters", "ticks=many"], {}, "parameter ticks='many': expected int"),
        (["--device", "gpu"], {}, "device='gpu'"),
        (["--jobs", "0"], {}, "jobs=0"),
        ([], {"DATA_DIR": "no/such/folder"}, "DATA_DIR=no/such/folder: no such folder"),
    ],
)
def test_bad_input_to_the_command_is_one_clear_line_and_exit_code_2(
    arguments, environment, message, monkeypatch, capsys
):
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert notebooks.main(arguments) == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.startswith("error: ")
    assert message in said.err
    assert said.err.count("\n") == 1


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda d: train(d, lr=1e20), "training diverged in epoch"),
        (lambda d: simulate(d, lr=1e30, ticks=60), "tick"),
    ],
)
def test_divergence_stops_with_the_place_where_it_happened(call, message, digits):
    with pytest.raises(FloatingPointError, match=message) as caught:
        call(digits)
    assert "\n" not in str(caught.value)


def test_a_graph_of_several_parts_is_legal_and_warned_about(digits):
    parts = nx.disjoint_union(nx.cycle_graph(3), nx.cycle_graph(3))
    with pytest.warns(UserWarning, match="connected"):
        result = simulate(digits, parts)
    assert len(result.weights) == 6
