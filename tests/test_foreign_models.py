"""Models and checkpoints of others: what is understood, and what is refused in one line."""

import argparse
import subprocess
import sys

import nbformat
import pytest
import safetensors.torch
import torch
from torch.optim.swa_utils import AveragedModel

from lib import folders, tasks, training
from lib.connectivity import Path
from lib.errors import InputError
from lib.models import files, foreign


class Net(torch.nn.Module):
    """A network with batch norm and two names that share one tensor."""

    def __init__(self, width=4):
        super().__init__()
        self.body = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, width), torch.nn.BatchNorm1d(width))
        self.head = torch.nn.Linear(width, 10)
        self.again = torch.nn.Linear(width, 10, bias=False)
        self.again.weight = self.head.weight

    def forward(self, x):
        return self.head(self.body(x)) + self.again(self.body(x))


class Wrong:
    """Not a module."""


def fails(width=4):
    raise RuntimeError("nothing\nworks")


@pytest.fixture(scope="module")
def task():
    return tasks.load("digits", size=8, device="cpu").subset(40, 20)


def saved(content, folder):
    file = folder / "weights.pt"
    torch.save(content, file)
    return file


def prefixed(state, prefix):
    return {f"{prefix}{key}": value for key, value in state.items()}


def lightning(state):
    return {"state_dict": prefixed(state, "net."), "pytorch-lightning_version": "2", "epoch": 3}


def without_ties(state):
    return {key: value for key, value in state.items() if key != "again.weight"}


WRAPPED = {
    "plain": (lambda s: s, "a plain state dict"),
    "data parallel": (lambda s: prefixed(s, "module."), "without 'module.'"),
    "compiled": (lambda s: prefixed(s, "_orig_mod."), "without '_orig_mod.'"),
    "compiled, in parallel": (
        lambda s: {"model": prefixed(s, "_orig_mod.module.")}, "in 'model', without '_orig_mod.', without 'module.'"
    ),
    "a part compiled": (
        lambda s: {key.replace("body.", "body._orig_mod."): value for key, value in s.items()}, "without '_orig_mod.'"
    ),
    "lightning": (lightning, "in 'state_dict', without 'net.'"),
    "timm": (
        lambda s: {
            "epoch": 1, "arch": "net", "state_dict": {k: v * 0 for k, v in s.items()}, "optimizer": {"state": {}},
            "args": argparse.Namespace(lr=0.1), "state_dict_ema": s, "metric": 0.5,
        },
        "in 'state_dict_ema'",
    ),
    "averaged": (lambda s: {"n_averaged": torch.tensor(3), **prefixed(s, "module.")}, "without 'module.'"),
    "averaged without names": (lambda s: {"ema": {"decay": 0.9, "shadow": [1.0]}, "model": s}, "in 'model'"),
    "average of two levels": (lambda s: {"ema": {"decay": torch.tensor(0.9), "shadow": s}}, "in 'ema.shadow'"),
    "half precision": (
        lambda s: {k: v.half() if v.is_floating_point() else v for k, v in s.items()}, "a plain state dict"
    ),
    "tied weights once": (without_ties, "a plain state dict"),
    "old batch norm": (
        lambda s: {k: v for k, v in s.items() if not k.endswith("num_batches_tracked")}, "a plain state dict"
    ),
}  # fmt: skip


@pytest.mark.parametrize(("wrap", "where"), WRAPPED.values(), ids=WRAPPED)
def test_wrapped_weights_are_found(wrap, where, tmp_path):
    source, model = Net(), Net()
    source.body[2].running_mean.fill_(0.25)
    before = {key: value.clone() for key, value in model.state_dict().items()}
    loaded, found = files.load(model.train(), saved(wrap(source.state_dict()), tmp_path))
    assert found == where
    assert not loaded.training and model.training
    for key, value in source.state_dict().items():
        assert torch.allclose(loaded.state_dict()[key].float(), value.float(), atol=1e-3), key
        assert torch.equal(model.state_dict()[key], before[key]), "the given model stays as it is"
    assert loaded.again.weight is loaded.head.weight
    assert {p.dtype for p in loaded.parameters()} == {torch.float32}


def test_real_wrappers(tmp_path):
    source = Net()
    for wrapper in (AveragedModel(source), torch.nn.DataParallel(source), torch.compile(source, backend="eager")):
        loaded, _ = files.load(Net(), saved(wrapper.state_dict(), tmp_path))
        assert torch.equal(loaded.head.weight, source.head.weight)


def test_a_model_whose_own_names_look_wrapped(tmp_path):
    """Its own prefix stays, and one more is removed."""
    source = torch.nn.ModuleDict({"module": torch.nn.Linear(3, 2)})
    for prefix in ("", "module."):
        file = saved(prefixed(source.state_dict(), prefix), tmp_path)
        loaded, _ = files.load(torch.nn.ModuleDict({"module": torch.nn.Linear(3, 2)}), file)
        assert torch.equal(loaded["module"].weight, source["module"].weight)


def test_safetensors(tmp_path):
    source, file = Net(), tmp_path / "weights.safetensors"
    safetensors.torch.save_model(source, str(file))  # which keeps one of two tied names
    loaded, _ = files.load(Net(), file)
    assert torch.equal(loaded.again.weight, source.head.weight)


def damaged(folder, name):
    file = folder / name
    file.write_bytes(b"no weights at all")
    return file


def changed(key, value):
    """A plain state dict with one entry changed, or left out."""
    state = Net().state_dict() | {key: value}
    return {k: v for k, v in state.items() if v is not None}


REFUSED = {
    "missing": (changed("head.bias", None), "does not fit the model, it lacks 'head.bias'"),
    "extra": (changed("tail.bias", torch.ones(1)), "does not fit the model, it has 'tail.bias' too many"),
    "shape": (
        Net(width=5).state_dict(), r"'body.1.weight' is \(5, 64\) in the file and \(4, 64\) in the model"
    ),
    "type": (
        changed("head.bias", torch.ones(10).to(torch.int8)),
        "'head.bias' is torch.int8 in the file and torch.float32 in the model",
    ),
    "another model": (
        {f"layer{i}.weight": torch.ones(1) for i in range(9)},
        "it lacks 'body.1.weight', 'body.1.bias', 'body.2.weight' and 6 more and has 'layer0.weight', 'layer1.weight', "
        "'layer2.weight' and 6 more too many",
    ),
    "no tensors": ({"epoch": 3, "lr": 0.1}, "holds a dict of 'epoch', 'lr', needs tensors by name"),
    "one tensor": (torch.ones(3), "holds a Tensor, needs tensors by name"),
    "two that fit": (
        {"teacher": Net().state_dict(), "student": Net().state_dict()},
        "'student', 'teacher' fit the model: save one of them alone",
    ),
    "whole module": (Net(), r"holds Python objects \(test_foreign_models.Net\) beside tensors, which could run code"),
    "other objects": (
        {"model": Net().state_dict(), "best": Wrong()},
        r"holds Python objects \(test_foreign_models.Wrong\) beside tensors",
    ),
}  # fmt: skip


@pytest.mark.parametrize(("content", "message"), REFUSED.values(), ids=REFUSED)
def test_what_does_not_fit_is_one_line(content, message, tmp_path):
    file = saved(content, tmp_path)
    with pytest.raises(InputError, match=f"start='{file}': .*{message}") as caught:
        files.load(Net(), file, name="start")
    assert "\n" not in str(caught.value)


@pytest.mark.filterwarnings("ignore")  # of torch, that scripts are old
def test_files_that_cannot_be_read(tmp_path):
    for name in ("a.pt", "b.safetensors"):
        with pytest.raises(InputError, match=r"end='.*': not readable as weights: \w+") as caught:
            files.load(Net(), damaged(tmp_path, name), name="end")
        assert "\n" not in str(caught.value)
    with pytest.raises(InputError, match=r"end='nowhere.pt': no such file in /"):
        files.load(Net(), "nowhere.pt", name="end")
    script = tmp_path / "script.pt"
    torch.jit.script(torch.nn.Linear(2, 1)).save(str(script))
    with pytest.raises(InputError, match="not readable as weights"):
        files.load(torch.nn.Linear(2, 1), script)


class _Code:
    """A pickle that would write a file when it is read."""

    def __init__(self, target):
        self.target = target

    def __reduce__(self):
        return open, (self.target, "w")


def test_no_code_of_a_file_runs(tmp_path):
    target = tmp_path / "written"
    with pytest.raises(InputError, match="which could run code"):
        files.load(Net(), saved({"model": Net().state_dict(), "x": _Code(str(target))}, tmp_path))
    assert not target.exists()


def test_models_by_name(task):
    wide = tasks.load("digits", size=32, device="cpu").subset(40, 20)
    model = foreign.create("timm:resnet10t", wide)
    assert model.fc.out_features == 10 and model.conv1[0].in_channels == 1
    grey = [each.repeat(1, 3, 1, 1) for each in (wide.train.x, wide.test.x)]
    colours = tasks.from_tensors(grey[0], wide.train.y, grey[1], wide.test.y, name="grey", device="cpu")
    model = foreign.create("torchvision:squeezenet1_1", colours, arguments={"dropout": 0.1})
    assert model.classifier[1].out_channels == 10
    own = f"{__name__}:Net"
    one, same, other = (foreign.create(own, task, arguments={"width": 3}, seed=seed) for seed in (1, 1, 2))
    assert one.head.in_features == 3 and not one.training
    assert torch.equal(one.head.weight, same.head.weight) and not torch.equal(one.head.weight, other.head.weight)


@pytest.mark.parametrize(
    ("spec", "arguments", "message"),
    [
        ("resnet18", {}, "expected timm:NAME, torchvision:NAME or package.module:function"),
        ("timm:", {}, "expected timm:NAME"),
        ("timm:resnet81", {}, "timm has no such model; did you mean .*resnet18"),
        ("torchvision:resnet81", {}, "torchvision has no such model; did you mean .*resnet18"),
        ("timm:hf-hub:someone/something", {}, "timm has no such model"),
        ("no.such.place:Net", {}, "there is no module 'no' in the folder where Python was started"),
        ("lib.models.lenet:Net", {}, "the module lib.models.lenet has no 'Net'"),
        ("test_foreign_models:Net", {"depth": 3}, r"stopped with the arguments {'depth': 3}: TypeError, .*depth"),
        ("test_foreign_models:fails", {}, "stopped with the arguments {}: RuntimeError, nothing works"),
        ("test_foreign_models:Wrong", {}, "needs a torch.nn.Module, got Wrong"),
        ("test_foreign_models:torch", {}, "stopped with the arguments {}: TypeError"),
        ("torchvision:squeezenet1_1", {}, r"stopped on 4 inputs of the task, \(4, 1, 8, 8\).*RuntimeError"),
    ],
)
def test_models_that_cannot_be_made(task, spec, arguments, message):
    with pytest.raises(InputError, match=f"model='{spec}': .*{message}") as caught:
        foreign.create(spec, task, arguments=arguments)
    assert "\n" not in str(caught.value)


OWN = """
import torch


def small(width, inputs=144):
    layers = torch.nn.Flatten(), torch.nn.Linear(inputs, width), torch.nn.ReLU(), torch.nn.Linear(width, 10)
    return torch.nn.Sequential(*layers)
"""


def connect(folder, **parameters):
    """The notebook for checkpoints, run by papermill in a folder of the user's: the finished process."""
    words = [word for name, value in parameters.items() for word in ("-y", f"{name}: {value}")]
    notebook = str(folders.NOTEBOOKS / "explore/connect-your-checkpoints.ipynb")
    command = [sys.executable, "-m", "papermill", "--no-progress-bar", notebook, "out.ipynb", *words]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)


def test_papermill_connects_files_of_the_users_own(tmp_path, monkeypatch):
    """A function in the user's folder, a compiled model's .pt and an average in .safetensors."""
    (tmp_path / "mine.py").write_text(OWN)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setenv("LIB_RESULTS", str(tmp_path / "results"))
    monkeypatch.setenv("PYTHONPATH", str(folders.ROOT))
    small = tasks.load("digits", size=12, device="cpu").subset(100)
    for seed, file in ((1, "a.pt"), (2, "b.safetensors")):
        model = foreign.create("mine:small", small, arguments={"width": 8}, seed=seed)
        training.train_mode(model, small, training.Recipe(epochs=30, batch=25, lr=0.1, momentum=0.9), seed=seed)
        if file.endswith(".pt"):
            torch.save({"epoch": 30, "model": prefixed(model.state_dict(), "_orig_mod.")}, tmp_path / file)
        else:
            safetensors.torch.save_file(prefixed(model.state_dict(), "module."), str(tmp_path / file))
    about = {"start": "a.pt", "end": "b.safetensors", "model": "'mine:small'", "image_size": 12, "train_images": 100}
    done = connect(tmp_path, **about, model_arguments="{width: 8}", save_path="path.safetensors")
    assert done.returncode == 0, done.stderr[-2000:]
    conclusion = next(
        output.data["text/markdown"] for cell in nbformat.read(tmp_path / "out.ipynb", as_version=4).cells
        for output in cell.get("outputs", ()) if "onnected**" in output.get("data", {}).get("text/markdown", "")
    )  # fmt: skip
    assert conclusion.startswith("**Connected**: the path has ")
    assert "stays below the bound" in conclusion
    path = Path.load(tmp_path / "path.safetensors", model=model)
    assert path.reached(model)
    refused = connect(tmp_path, **about, model_arguments="{width: 9}")
    assert refused.returncode == 1
    assert "InputError: start='a.pt': '1.weight' is (8, 144) in the file and (9, 144) in the model" in refused.stderr
