"""A tick of LLPF without its training: move, correct, correct, record, on one thread; SGD steps of both drivers."""

import pandas as pd
import torch

from benchmarks.measure import product, ratio, seconds
from lib import folders, models, tasks
from lib.connectivity import M2M, Fixed, connect, connect_abreast
from lib.connectivity.walker import Connection

TICKS = 10  # in one measurement
MODELS = (("lenet5", (1, 28, 28)), ("resnet18", (3, 32, 32)))


def tick():
    """Milliseconds of the moves, corrections and bookkeeping of a tick, beside one SGD round."""
    return pd.DataFrame([tick_of(name, shape) for name, shape in MODELS])


def tick_of(name, shape):
    """The costs of one model, a dict; the images are noise, for only their number and size count."""
    images = torch.randn(128, *shape, generator=torch.Generator().manual_seed(0))
    classes = torch.arange(128) % 10
    data = tasks.from_tensors(images, classes, images, classes, name="noise", device="cpu")
    start, end = (models.create(name, data, size="paper", seed=seed) for seed in (0, 1))
    walk = Connection(
        start, end, data, order="all", moving_spheres=True, seed=0, batch=64, lr=0.01, judge_images=64
    )  # fmt: skip
    names = walk.layers[0]
    anchors = []

    def bookkeeping():
        walk.set_progress(0, 0.5)
        walk.move_fraction(names, min(1.0, 0.01 / walk.distance_left(0)))
        walk.correct()
        walk.correct()
        anchors[:] = [walk.vector.clone()]

    def one_pass():
        walk.vector.add_(walk.destination, alpha=1e-9)

    candidates = {"product": product(), "tick": lambda: [bookkeeping() for _ in range(TICKS)]}
    candidates |= {"SGD round": lambda: walk.train(1), "pass": lambda: [one_pass() for _ in range(TICKS)]}
    times = seconds(candidates, rounds=9)
    times[["tick", "pass"]] /= TICKS
    return {
        "model": name,
        "weights": walk.vector.numel(),
        "tick without training, ms": times["tick"].median() * 1e3,
        "in passes over the weights": ratio(times["tick"], times["pass"]),
        "in SGD steps of batch 64": ratio(times["tick"], times["SGD round"]),
        "in 1024^3 products": ratio(times["tick"], times["product"]),
    }


def abreast():
    """Paths by the fixed schedule between 8 pairs of modes, 2 ticks of 5 SGD steps, abreast and one after another."""
    return pd.DataFrame(
        [_abreast_of(family, shape) for family, shape in (("lenet5", (1, 28, 28)), ("resnet18", (3, 16, 16)))]
    )


def _abreast_of(family, shape):
    images = torch.randn(128, *shape, generator=torch.Generator().manual_seed(0))
    classes = torch.arange(128) % 10
    data = tasks.from_tensors(images, classes, images, classes, name="noise", device="cpu")
    pairs = [tuple(models.create(family, data, seed=2 * pair + end) for end in (0, 1)) for pair in range(8)]
    config = M2M(order="all", moving_spheres=False, driver=Fixed(ticks=2))
    candidates = {
        "abreast": lambda: connect_abreast(pairs, data, config, seeds=list(range(8))),
        "one after another": lambda: [connect(*pair, data, config, seed=seed) for seed, pair in enumerate(pairs)],
    }
    times = seconds(candidates, rounds=5)
    return {
        "model": f"{family}, laptop",
        "8 paths abreast: ms": times["abreast"].median() * 1e3,
        "one after another, times that": ratio(times["one after another"], times["abreast"]),
    }


def drivers():
    """SGD steps to a certified path, from the committed results of the laptop profile."""
    table = pd.read_csv(folders.RESULTS / "laptop" / "tables" / "m2m-lenet5.csv")
    return table[["driver", "pair", "SGD steps", "max_loss"]]
