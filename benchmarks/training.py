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
from lib import models, paths, task
from lib.task import AUGMENTATIONS

BATCH, IMAGES = 64, 1024


def batches():
    """An augmented epoch of 1,024 images of 28 x 28: tensors in one go, and an image at a time by a data loader."""
    x = torch.rand(IMAGES, 1, 28, 28, generator=torch.Generator().manual_seed(0))
    y = torch.arange(IMAGES) % 10
    data = task.from_tensors(x, y, x, y, name="noise", device="cpu", augmentation=AUGMENTATIONS["mnist"])
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
    """A training step of the laptop ResNet with channels first and last; an evaluation with and without autograd."""
    x = torch.rand(BATCH, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    y = torch.arange(BATCH) % 10
    data = task.from_tensors(x, y, x, y, name="noise", device="cpu")
    first, last = (models.create("resnet18", data, seed=0) for _ in range(2))
    last = last.to(memory_format=torch.channels_last)
    x_last = x.contiguous(memory_format=torch.channels_last)

    def step(network, images):
        network.zero_grad()
        F.cross_entropy(network(images), y).backward()

    def evaluate(mode):
        with mode():
            first(x)

    candidates = {
        "training step, channels first": lambda: step(first, x),
        "training step, channels last": lambda: step(last, x_last),
        "evaluation, inference mode": lambda: evaluate(torch.inference_mode),
        "evaluation, no_grad": lambda: evaluate(torch.no_grad),
    }
    return _compared(candidates, "64 images, laptop resnet18")


def _compared(candidates, what):
    times = seconds(candidates)
    ours = times.iloc[:, 0]
    return pd.DataFrame(
        [{what: name, "ms": times[name].median() * 1e3, "times the first": ratio(times[name], ours)} for name in times]
    )


_TRAIN = """
import sys, torch
torch.set_num_threads(int(sys.argv[1]))
from lib import models, task, training
data = task.load("digits")
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
    environment = {**os.environ, "OMP_NUM_THREADS": str(threads), "PYTHONPATH": str(paths.ROOT)}
    begin = time.monotonic()
    command = [sys.executable, "-c", _TRAIN, str(threads), str(4 // workers)]
    started = [subprocess.Popen(command, env=environment) for _ in range(workers)]
    for process in started:
        process.wait()
    return time.monotonic() - begin
