"""Where the data lie, how they are augmented, how many threads: what training and evaluation cost."""

import os
import subprocess
import sys
import time

import pandas as pd
import torch
from torch.nn import functional as F
from torchvision.transforms import v2

from benchmarks.measure import ratio, seconds
from lib import folders, models, tasks
from lib.augmentation import AUGMENTATIONS
from lib.connectivity.walker import Walker
from lib.studies.families import FAMILIES

BATCH, IMAGES = 64, 1024


def batches():
    """An augmented epoch of 1,024 images of 28 x 28: tensors in one go, and an image at a time by a data loader."""
    x = torch.rand(IMAGES, 1, 28, 28, generator=torch.Generator().manual_seed(0))
    y = torch.arange(IMAGES) % 10
    data = tasks.from_tensors(x, y, x, y, name="noise", device="cpu", augmentation=AUGMENTATIONS["mnist"])
    ours = data.batches(seed=0, size=BATCH)
    transform = v2.Compose([v2.RandomRotation(5), v2.RandomCrop(28, padding=2)])

    class Images(torch.utils.data.Dataset):
        def __len__(self):
            return IMAGES

        def __getitem__(self, i):
            return transform(data.train.x[i]), data.train.y[i]

    loader = torch.utils.data.DataLoader(Images(), batch_size=BATCH, shuffle=True)
    candidates = {
        "tensors (ours)": lambda: [ours.get(i) for i in range(ours.per_epoch)],
        "data loader, torchvision transforms": lambda: list(loader),
    }
    return _compared(candidates, "an augmented epoch of 1,024 images")


def layouts():
    """A training step of 50 images and an evaluation of 200, 16 x 16 pixels: images channels first and last.

    A network's own weights stay channels first: its activations follow the layout of its images.
    """
    first = torch.rand(200, 1, 16, 16, generator=torch.Generator().manual_seed(0))
    y = torch.arange(200) % 10
    data = tasks.from_tensors(first, y, first, y, name="noise", device="cpu")
    last = first.to(memory_format=torch.channels_last)
    return pd.DataFrame([_layouts_of(name, models.create(name, data, seed=0), first, last, y) for name in FAMILIES])


def _layouts_of(family, network, first, last, y):
    def step(images):
        network.train().zero_grad()
        F.cross_entropy(network(images[:50]), y[:50]).backward()

    def evaluate(images, mode=torch.no_grad):
        with mode():
            network.eval()(images)

    times = seconds({
        "step, first": lambda: step(first), "step, last": lambda: step(last),
        "evaluation, first": lambda: evaluate(first), "evaluation, last": lambda: evaluate(last),
        "evaluation, last, inference mode": lambda: evaluate(last, torch.inference_mode),
    })  # fmt: skip
    return {
        "family": family,
        "step: ms": times["step, last"].median() * 1e3,
        "step: over channels first": ratio(times["step, last"], times["step, first"]),
        "evaluation: ms": times["evaluation, last"].median() * 1e3,
        "evaluation: over channels first": ratio(times["evaluation, last"], times["evaluation, first"]),
        "inference mode: over no_grad": ratio(times["evaluation, last, inference mode"], times["evaluation, last"]),
    }


def precisions():
    """A training step of 32 images as the options of a task have it: float32, bfloat16, compiled."""
    members = (
        ("lenet5", "paper", (1, 28, 28)),
        ("resnet18", "laptop", (3, 32, 32)),
        ("resnet18", "paper", (3, 32, 32)),
    )
    return pd.DataFrame([_precisions_of(*member) for member in members])


def _precisions_of(family, size, shape):
    options = {"float32": {}, "bfloat16": {"precision": "bfloat16"}, "compiled": {"compiled": True}}
    x, y = torch.rand(32, *shape, generator=torch.Generator().manual_seed(0)), torch.arange(32) % 10
    walkers = {}
    for name, option in options.items():
        data = tasks.from_tensors(x, y, x, y, name="noise", device="cpu", **option)
        model = models.create(family, data, size=size, seed=0)
        walkers[name] = Walker(model, data, batch=32, lr=0.01, seed=0, judge_images=1)
    times = seconds({name: lambda walker=walker: walker.train(3) for name, walker in walkers.items()}, rounds=5) / 3
    return {
        "model": f"{family}, {size}",
        "float32: ms": times["float32"].median() * 1e3,
        "bfloat16 over float32": ratio(times["bfloat16"], times["float32"]),
        "compiled over float32": ratio(times["compiled"], times["float32"]),
    }


def _compared(candidates, what):
    times = seconds(candidates)
    ours = times.iloc[:, 0]
    return pd.DataFrame(
        [{what: name, "ms": times[name].median() * 1e3, "times the first": ratio(times[name], ours)} for name in times]
    )


_TRAIN = """
import sys, torch
torch.set_num_threads(int(sys.argv[1]))
from lib import models, tasks, training
data = tasks.load("digits")
for seed in range(int(sys.argv[2])):
    training.train_mode(models.create("lenet5", data, seed=seed), data, training.Recipe(epochs=6), seed=seed)
"""


def threads():
    """Wall time of four trainings of LeNet5 on two cores: two workers of one thread, one worker of two."""
    arrangements = {"two workers of one thread": (2, 1), "one worker of two threads": (1, 2)}
    wall = pd.DataFrame([{name: _wall(*how) for name, how in arrangements.items()} for _ in range(3)])
    first = wall.iloc[:, 0]
    return pd.DataFrame(
        [
            {"4 trainings of LeNet5": n, "seconds": wall[n].median(), "times the first": ratio(wall[n], first)}
            for n in wall
        ]
    )


def _wall(workers, threads):
    environment = {**os.environ, "OMP_NUM_THREADS": str(threads), "PYTHONPATH": str(folders.ROOT)}
    begin = time.monotonic()
    command = [sys.executable, "-c", _TRAIN, str(threads), str(4 // workers)]
    started = [subprocess.Popen(command, env=environment) for _ in range(workers)]
    for process in started:
        process.wait()
    return time.monotonic() - begin
