"""Runs that the tests ask for: at the top level of a module, as `lib.runs` wants them."""

import os
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from lib import models, seeds, tasks, training


@dataclass(frozen=True)
class Inner:
    beta: float = 0.5


@dataclass(frozen=True)
class OtherInner:
    beta: float = 0.5


@dataclass(frozen=True)
class Hinted:
    sizes: tuple[int, ...] = (1, 2)
    some: float | None = None
    flag: bool = True
    either: Inner | OtherInner = Inner()


@dataclass(frozen=True)
class Config:
    seed: int = 0
    how: str = "well"  # well | badly | hungry
    inner: object = Inner()
    calls: str = ""  # a file that gets one line a call


@dataclass
class Thawed:
    seed: int = 0


def everything(config, checkpoint):
    """One value of each kind that a run may return."""
    if config.calls:
        with open(config.calls, "a") as file:
            file.write(f"{config.seed}\n")
    if config.how == "badly":
        raise FloatingPointError("training diverged at tick 3, layer conv1")
    if config.how == "hungry":
        hoard = [torch.ones(2**24) for _ in range(32)]
        time.sleep(60)
        return {"sum": float(sum(x.sum() for x in hoard))}
    matrix = torch.randn(120, 120, generator=seeds.generator(config.seed, "matrix"))
    numbers = seeds.numpy(config.seed, "numbers")
    table = pd.DataFrame(
        {
            "tick": np.arange(3),
            "loss": numbers.normal(size=3),
            "single": numbers.normal(size=3).astype("float32"),
            "layer": ["conv1", "fc", None],
            "done": [True, False, True],
        }
    )
    return {
        "product": matrix @ matrix,
        "state": {"a.weight": matrix[:2].bfloat16(), "step": torch.tensor(3)},
        "table": table,
        "third": 1 / 3,
        "many": 10**30,
        "name": "é",
        "flag": True,
        "nothing": None,
        "list": [1, 2.5, float("inf"), "x"],
        "threads": torch.get_num_threads(),
        "global": float(torch.rand(())),
    }


def nested(config, checkpoint):
    """A run that asks for runs of its own."""
    from lib import runs

    parts = runs.map(everything, [Config(seed=1), Config(seed=2)])
    return {"sum": sum(part["product"].sum() for part in parts)}


def no_dict(config, checkpoint):
    return 3


@dataclass(frozen=True)
class Training:
    """A small real training; ``slow`` seconds a call stretch it, ``started`` is a file that tells of it."""

    seed: int = 0
    epochs: int = 3
    started: str = ""
    slow: float = 0.0


class _Noted:
    """A checkpoint that takes its time and tells when the first state is on the disk."""

    def __init__(self, checkpoint, config):
        self._checkpoint, self._config = checkpoint, config

    def of(self, **arguments):
        return _Noted(self._checkpoint.of(**arguments), self._config)

    def due(self):
        time.sleep(self._config.slow)
        return self._checkpoint.due()

    def save(self, state):
        self._checkpoint.save(state)
        if self._config.started:
            with open(self._config.started, "a") as file:
                file.write(f"{os.getpid()} {self._config.seed} {state['step']}\n")

    def load(self):
        return self._checkpoint.load()


def train(config, checkpoint):
    """Train a LeNet5 on the digits."""
    digits = tasks.load("digits", device="cpu")
    model = models.create("lenet5", digits, seed=config.seed)
    recipe = training.Recipe(epochs=config.epochs, momentum=0.9)
    training.train_mode(model, digits, recipe, seed=config.seed, checkpoint=_Noted(checkpoint, config))
    score = training.evaluate(model, digits.test)
    return {"state": model.state_dict(), "loss": score.loss, "accuracy": score.accuracy}


def digest(outcome):
    """A fingerprint of an outcome that changes with any bit of it."""
    import hashlib

    from lib.runs import cache

    text, data = cache.pack(outcome)
    return hashlib.sha256(text.encode() + data).hexdigest()


if __name__ == "__main__":  # python run_functions.py FOLDER: the training of test_survival, to be killed
    from lib.checkpoint import Checkpoint

    folder = Path(os.sys.argv[1])
    torch.set_num_threads(1)
    done = train(
        Training(started=str(folder / "started"), slow=0.03), Checkpoint(folder / "checkpoint", every=0)
    )
    (folder / "digest").write_text(digest(done))
