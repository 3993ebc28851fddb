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
from torch import nn
from torch.nn import functional as F

from lib import connectivity, folders, gossip, models, runs, sphere, tasks, training
from lib.augmentation import Augmentation
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
    "data set not there": (lambda d: tasks.load("mnist", data_dir=str(folders.ROOT)), "data='mnist': not found under"),
    "no folders of images": (
        lambda d: tasks.load("folder", data_dir=str(folders.ROOT)),
        "must hold the folders train and test",
    ),
    "tiny images": (lambda d: tasks.load("digits", size=4), "size=4: images must be at least 8 pixels"),
    "no such device": (lambda d: tasks.load("digits", device="cuda:99"), "device='cuda:99': not usable here"),
    "empty batches": (lambda d: d.batches(0, 0), "batch=0: must be between 1 and the 100 inputs"),
    "large batches": (lambda d: d.batches(0, 101), "batch=101: must be between 1 and the 100 inputs"),
}


def own(x=X, y=Y, x_test=None, y_test=None, **options):
    """A task of these, the test split the first five unless it is given."""
    x_test, y_test = x[:5] if x_test is None else x_test, y[:5] if y_test is None else y_test
    return tasks.from_tensors(x, y, x_test, y_test, name="own", device="cpu", **options)


def pairs(*items):
    return tasks.from_datasets(list(items), list(items), name="own", device="cpu")


PIXELS = np.zeros((20, 16, 16, 3), np.uint8)
OWN_DATA = {
    "images beside rows": (lambda d: own(X, x_test=X[:5, 0]), r"x_test: shape \(5, 16, 16\), x has \(20, 1, 16, 16\)"),
    "other sizes in test": (lambda d: own(x_test=X[:5, :, 1:]), r"x_test: shape \(5, 1, 15, 16\), x has"),
    "other targets in test": (lambda d: own(y=Y, y_test=Y[:5, None]), r"y_test: shape \(5, 1\), y has \(20,\)"),
    "other type in test": (lambda d: own(PIXELS.transpose(0, 3, 1, 2), x_test=X[:5].expand(-1, 3, -1, -1)), "x_test:"),
    "missing labels": (lambda d: own(y=Y[:3]), "y: 3 targets for the 20 inputs of x"),
    "missing labels in test": (lambda d: own(y_test=Y[:3]), "y_test: 3 targets for the 5 inputs of x_test"),
    "infinite images": (lambda d: own(X / 0), "x: holds values that are not finite"),
    "NaN in a test image": (lambda d: own(x_test=X[:5] * math.nan), "x_test: holds values that are not finite"),
    "no images": (lambda d: own(X[:0], Y[:0]), r"x: shape \(0, 1, 16, 16\), holds nothing"),
    "no test images": (lambda d: own(x_test=X[:0], y_test=Y[:0]), r"x_test: shape \(0, 1, 16, 16\), holds nothing"),
    "a number": (lambda d: own(np.float32(1), x_test=X, y_test=Y), r"x: shape \(\), holds nothing"),
    "a path": (lambda d: own("images.npy", x_test=X), "x: str cannot be read as an array of numbers"),
    "rows of several lengths": (lambda d: own([[1.0], [1.0, 2.0]], x_test=X), "x: list cannot be read as an array of"),
    "complex numbers": (lambda d: own(X + 1j), "x: torch.complex64, torch.strided: needs real numbers"),
    "a sparse tensor": (lambda d: own(X.to_sparse(), x_test=X, y_test=Y), "x: torch.float32, torch.sparse_coo: needs"),
    "channels last": (lambda d: own(PIXELS), r"x: shape \(20, 16, 16, 3\): images need their channels first"),
    "bytes without channels": (lambda d: own(PIXELS[..., 0]), r"x: bytes of shape \(20, 16, 16\): images need their c"),
    "regression targets": (lambda d: own(y=Y / 4), "y: 0.25 is not a class; for numbers to be predicted give loss="),
    "NaN label": (lambda d: own(y=torch.where(Y == 1, math.nan, 0.0)), "y: holds values that are not finite"),
    "negative label": (lambda d: own(y=Y - 1), "y: class -1, classes are numbered 0, 1, ...: numpy.unique"),
    "text as labels": (lambda d: own(y=np.array(["cat"] * 20)), "y: ndarray cannot be read as an array of numbers"),
    "class that training lacks": (lambda d: own(y_test=torch.full((5,), 12)), "y_test: class 12 has no input in the t"),
    "a loss by name": (lambda d: own(loss="mse"), "loss='mse': needs a function of outputs and targets"),
    "a metric by name": (lambda d: own(metric="f1"), "metric='f1': needs a function of outputs and targets"),
    "no name of a device": (lambda d: tasks.load("digits", device=3.5), "device='3.5': not usable here"),
    "half a pixel": (lambda d: tasks.load("digits", size=16.5), "size=16.5: images must be at least 8 pixels"),
    "a sample of nothing": (lambda d: d.subset(0), "size=0: a sample has at least one input"),
    "augmented rows": (lambda d: own(X[:, 0, 0], augmentation=Augmentation()), "augmentation: needs images"),
    "stream of data": (lambda d: tasks.from_datasets(iter([]), [], name="own"), "train: needs a data set with a lengt"),
    "no pairs": (lambda d: pairs(X[0], X[0]), r"train\[0\]: needs a pair \(input, target\), got Tensor"),
    "pairs of several sizes": (lambda d: pairs((X[0], 0), (X[0, :, 1:], 0)), r"train\[1\]: the shape of its input is"),
    "no items": (lambda d: pairs(), r"x: shape \(0,\), holds nothing"),
}


class Returns(nn.Module):
    """A model that makes something else of its outputs (n, 10)."""

    def __init__(self, change, outputs=10):
        super().__init__()
        self.layer, self.change = nn.Linear(256, outputs), change

    def forward(self, x):
        return self.change(self.layer(x.flatten(1)))


def fit(d, model):
    return training.train_mode(model, d, training.Recipe(epochs=1, batch=10), seed=0)


def returning(change, outputs=10):
    return lambda d: fit(d, Returns(change, outputs))


def same_module(model):
    return lambda seed: model


def by_turns(*made):
    made = iter(made)
    return lambda seed: next(made)


def layers(*modules):
    return nn.Sequential(nn.Flatten(), *modules)


def activations():
    return [layers(nn.Linear(256, 10), activation()) for activation in (nn.ReLU, nn.Tanh)]


def regression(model, loss=F.mse_loss, **options):
    x, y = torch.randn(20, 4), torch.randn(20)
    return fit(own(x, y, loss=loss, **options), model)


def tokens(ids=30):
    return own(torch.arange(40).view(20, 2) % ids, torch.arange(40).view(20, 2) % 7)


TRIALS = {
    "a function": (lambda d: fit(d, torch.relu), "model: needs a torch.nn.Module, got builtin_function_or_method"),
    "a class": (lambda d: fit(d, nn.Flatten), "model: needs a torch.nn.Module, got the class Flatten: call it"),
    "a state": (lambda d: fit(d, lenet(d).state_dict()), "model: needs a torch.nn.Module, got OrderedDict"),
    "no weights": (lambda d: fit(d, nn.Flatten()), "model: Flatten has no parameters"),
    "lazy": (lambda d: fit(d, layers(nn.LazyLinear(10))), "model: '1.weight' is not initialised yet, call the module"),
    "scripted": (lambda d: fit(d, torch.jit.trace(lenet(d), d.test.x[:2])), "model: a scripted module cannot be taken"),
    "half precision": (lambda d: fit(d, lenet(d).half()), "'conv1.weight' is torch.float16, needs torch.float32: call"),
    "double precision": (lambda d: fit(d, lenet(d).double()), r"torch.float64, needs torch.float32: call model.to\(to"),
    "another device": (lambda d: fit(d, lenet(d).to("meta")), "is on the device meta, the data are on cpu: call model"),
    "another size of images": (lambda d: fit(d, layers(nn.Linear(9, 10))), r"stopped on \d+ inputs of the task, \(.*,"),
    "a dict": (returning(lambda o: {"logits": o}), "model: returns a dict of logits, needs one tensor: wrap it in a m"),
    "a tuple": (returning(lambda o: (o, o)), "model: returns a tuple, needs one tensor: wrap it in a module"),
    "nothing": (returning(lambda o: None), "model: returns a NoneType, needs one tensor"),
    "the sum over a batch": (returning(lambda o: o.sum()), r"returns shape \(\) for \d+ inputs, needs .* counts the i"),
    "no batch": (returning(lambda o: o[0]), r"returns shape \(10,\) for \d+ inputs, needs"),
    "classes": (returning(lambda o: o.argmax(1)), "model: returns torch.int64, needs torch.float32"),
    "half outputs": (returning(lambda o: o.half()), "model: returns torch.float16, needs torch.float32"),
    "outputs elsewhere": (returning(lambda o: o.to("meta")), "returns a tensor on the device meta, the data are on cp"),
    "NaN": (returning(lambda o: o / 0 - o / 0), "model: returns values that are not finite"),
    "too few classes": (returning(lambda o: o, 9), "model: returns 9 numbers for each input, the task has 10 classes,"),
    "prices as classes": (
        lambda d: fit(own(torch.randn(20, 4), 100.0 * Y), nn.Linear(4, 1)),
        "model: returns 1 numbers for each input, the task has 901 classes, 0 to 900; for numbers to be predicted give",
    ),
    "a single output": (returning(lambda o: o[:, 0]), r"returns shape \(\d+,\) for \d+ inputs, needs one number a cla"),
    "no task": (lambda d: fit((X, Y), lenet(d)), "task: needs a task, as of tasks.load or tasks.from_tensors, got tup"),
    "evaluated function": (lambda d: training.evaluate(torch.relu, d.test), "model: needs a torch.nn.Module, got"),
    "evaluated elsewhere": (lambda d: training.evaluate(lenet(d).to("meta"), d.test), "device meta, the data are on c"),
    "evaluated on a task of tokens": (lambda d: training.evaluate(lenet(d), tokens().test), r"integers are token ids;"),
    "token too large": (lambda d: fit(tokens(), nn.Embedding(20, 7)), "stopped on .* IndexError, index out of range i"),
    "too few letters": (lambda d: fit(tokens(), nn.Embedding(30, 6)), "returns 6 numbers for each input, the task has"),
    "classes first or last": (
        lambda d: fit(own(Y.view(4, 5), Y.view(4, 5) % 4), nn.Embedding(10, 5)),
        r"loss: outputs \(\d, 5, 5\) and classes \(\d, 5\): either of two dimensions may count the classes; give",
    ),
    "a column for a row": (lambda d: regression(nn.Linear(4, 1)), r"loss: outputs .* are broadcast to each other: giv"),
    "no mean": (lambda d: regression(nn.Linear(4, 1), lambda o, y: (o[:, 0] - y).square()), r"loss: gives shape \(\d+"),
    "a sum": (lambda d: regression(nn.Linear(4, 1), lambda o, y: (o[:, 0] - y).square().sum()), "loss: grows with the"),
    "a constant": (lambda d: regression(nn.Linear(4, 1), lambda o, y: y.mean()), "loss: cannot be differentiated by t"),
    "loss of other outputs": (lambda d: regression(nn.Linear(4, 1), F.nll_loss), "loss: stopped on outputs .*RuntimeE"),
    "metric of a batch": (
        lambda d: regression(nn.Linear(4, 1), lambda o, y: F.mse_loss(o[:, 0], y), metric=lambda o, y: (o < 9e9).sum()),
        "metric: grows with the batch, 1 for an input, 2 for the same input twice: needs a mean",
    ),
    "family for a table": (
        lambda d: models.create("lenet5", own(X[:, 0, 0]), seed=0),
        r"model='lenet5': is for images \(C, H, W\) and a class for each, the task has inputs \(16,\) and 10 classes",
    ),
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
    "a mode with NaN": (lambda d: connectivity.connect(lenet(d), diverged(d), d), "b: returns values that are not fin"),
    "a function for a mode": (lambda d: connectivity.connect(torch.relu, lenet(d), d), "a: needs a torch.nn.Module, g"),
    "a function for an end": (lambda d: connectivity.Path.linear(lenet(d), torch.relu), "b: needs a torch.nn.Module"),
    "a path of functions": (lambda d: connectivity.Path(torch.relu, X[0, 0]), "model: needs a torch.nn.Module, got"),
    "a class for a mode": (lambda d: connectivity.connect(lenet(d), nn.Linear, d), "b: needs .* got the class Linear:"),
    "another size": (
        lambda d: connectivity.connect(layers(nn.Linear(256, 10)), layers(nn.Linear(256, 11)), d),
        r"modes of different shape: '1.weight' is \(10, 256\) in the first and \(11, 256\) in the second",
    ),
    "another activation": (
        lambda d: connectivity.connect(*activations(), d),
        "modes of different kind: '2' is ReLU in the first and Tanh in the second",
    ),
    "another slope": (
        lambda d: connectivity.connect(*(layers(nn.Linear(256, 10), nn.LeakyReLU(slope)) for slope in (0.1, 0.9)), d),
        "modes of different kinds: with the state of b, a computes something else",
    ),
    "two devices": (
        lambda d: connectivity.connect(lenet(d), lenet(d).to("meta"), d),
        "b: 'conv1.weight' is on the device meta, the data are on cpu",
    ),
    "path on other data": (
        lambda d: connectivity.Path.linear(lenet(d), lenet(d, 1)).max_loss(tasks.load("digits", size=28, device="cpu")),
        "model: stopped on .* inputs of the task",
    ),
    "no task for a path": (lambda d: connectivity.connect(lenet(d), lenet(d, 1), d.train.x), "task: needs a task, .*"),
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
    "nothing to augment": (lambda d: simulate(d, augment=True), "augment=True: the task 'digits' has no augmentation"),
    "all messages lost": (lambda d: simulate(d, message_loss=1), r"message_loss=1: must be in \[0, 1\)"),
    "mixing of another size": (lambda d: gossip.average(torch.ones(3, 2), torch.eye(2)), r"mixing: shape \(2, 2\)"),
    "mixing that grows": (lambda d: gossip.average(torch.ones(2, 2), 2 * torch.eye(2)), "mixing: rows must be non-neg"),
    "a module for a function": (
        lambda d: gossip.simulate(d, lenet(d), nx.cycle_graph(3), ticks=1, seed=0),
        "model: needs a name or a function of a seed that gives a module, got LeNet5",
    ),
    "no task for nodes": (lambda d: simulate((X, Y)), "task: needs a task, as of tasks.load or tasks.from_tensors"),
    "a function of functions": (
        lambda d: gossip.simulate(d, lambda seed: torch.relu, nx.cycle_graph(3), ticks=1, seed=0),
        r"model\(seed\): needs a torch.nn.Module, got builtin_function_or_method",
    ),
    "one module for all nodes": (
        lambda d: gossip.simulate(d, same_module(lenet(d)), nx.cycle_graph(3), ticks=1, seed=0),
        "model: returns the same module for two nodes, must make a new one at each call",
    ),
    "nodes of several sizes": (
        lambda d: gossip.simulate(d, by_turns(lenet(d), other_shape(d)), nx.cycle_graph(2), ticks=1, seed=0),
        "model: 'conv1.weight' is .* in node 0, .* in node 1",
    ),
    "nodes of several kinds": (
        lambda d: gossip.simulate(d, by_turns(*activations()), nx.cycle_graph(2), ticks=1, seed=0),
        "nodes of different kind: '2' is ReLU in the first and Tanh in the second",
    ),
    "nodes of too few classes": (
        lambda d: gossip.simulate(d, lambda seed: layers(nn.Linear(256, 3)), nx.cycle_graph(3), ticks=1, seed=0),
        "model: returns 3 numbers for each input, the task has 10 classes",
    ),
    "labels without classes": (
        lambda d: gossip.simulate(
            tokens(), lambda seed: nn.Embedding(30, 7), nx.cycle_graph(3), ticks=1, seed=0, labels=gossip.Halves()
        ),
        r"labels=Halves\(\): the task has no classes, only IID\(\) and Partition\(...\) are possible",
    ),
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
PARTS = DATA, OWN_DATA, TRIALS, MODELS, CONNECTIVITY, GOSSIP, RUNS
CASES = {name: case for part in PARTS for name, case in part.items()}
assert len(CASES) == sum(map(len, PARTS)), "two cases of one name"


@pytest.mark.parametrize("name", CASES)
def test_bad_input_is_one_clear_line(name, digits, tmp_path, monkeypatch):
    monkeypatch.setattr(folders, "CACHE", tmp_path)
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
