"""Both papers' methods beyond image classifiers: tables, texts, sequences, images to images, a vision transformer.

Every path ends exactly in the destination, and its training loss stays below twice the loss of the worse of its ends,
a bound that the straight line breaks. The search judges on the whole training split, so that the bound is one of it.
"""

import codecs
import contextlib
import dataclasses
import functools
import io
import itertools

import networkx as nx
import pytest
import torch
from sklearn.datasets import load_diabetes, load_digits
from torch import nn
from torch.nn import functional as F

from lib import connectivity, gossip, tasks, training

LENGTH, LETTERS = 16, 45


def table():
    """Regression: how diabetes goes on, from ten numbers of 442 patients."""
    x, y = load_diabetes(return_X_y=True)
    x, y = x * len(x) ** 0.5, (y[:, None] - y.mean()) / y.std()
    return tasks.from_tensors(x[:300], y[:300], x[300:], y[300:], name="diabetes", loss=F.mse_loss, metric=F.l1_loss,
                              device="cpu")  # fmt: skip


def text():
    """Language modelling: the next letter of the Zen of Python, at each of 16 places."""
    with contextlib.redirect_stdout(io.StringIO()):  # it prints itself when it is imported
        import this
    said = codecs.decode(this.s, "rot13")
    letters = sorted(set(said))
    rows = torch.tensor([letters.index(letter) for letter in said]).unfold(0, LENGTH + 1, 2)
    (x, y), (x_test, y_test) = ((part[:, :-1], part[:, 1:]) for part in (rows[:320], rows[320:]))
    return tasks.from_tensors(x, y, x_test, y_test, name="zen", device="cpu")


def noisy_images():
    """Denoising: a digit of 8 by 8 from one under noise."""
    clean = torch.tensor(load_digits().data / 16)[:500]
    noisy = clean + 0.3 * torch.randn(clean.shape, generator=torch.Generator().manual_seed(0))
    return tasks.from_tensors(noisy[:400], clean[:400], noisy[400:], clean[400:], name="noisy digits", loss=F.mse_loss,
                              device="cpu")  # fmt: skip


def rows_of_images():
    """Classes of sequences: a digit read row by row."""
    x, y = load_digits(return_X_y=True)
    x = x.reshape(-1, 8, 8) / 16
    return tasks.from_tensors(x[:400], y[:400], x[400:500], y[400:500], name="rows of digits", device="cpu")


def images():
    """Images, for a network that is not of the registry."""
    return tasks.load("digits", size=8, device="cpu").subset(400, 100)


def perceptron(*widths):
    """Linear layers, ReLU between them."""
    layers = [layer for pair in itertools.pairwise(widths) for layer in (nn.Linear(*pair), nn.ReLU())]
    return nn.Sequential(*layers[:-1])


class Transformer(nn.Module):
    """A decoder of letters: two blocks of causal attention."""

    def __init__(self, width=32):
        super().__init__()
        self.letter, self.place = nn.Embedding(LETTERS, width), nn.Parameter(torch.randn(LENGTH, width) * 0.1)
        block = nn.TransformerEncoderLayer(width, 2, 2 * width, dropout=0.0, batch_first=True, norm_first=True)
        self.blocks = nn.TransformerEncoder(block, 2, enable_nested_tensor=False)
        self.out = nn.Linear(width, LETTERS)
        self.register_buffer("mask", nn.Transformer.generate_square_subsequent_mask(LENGTH))

    def forward(self, x):
        return self.out(self.blocks(self.letter(x) + self.place, mask=self.mask, is_causal=True))


class Reader(nn.Module):
    """An LSTM over rows of eight numbers, and a class from its last output."""

    def __init__(self):
        super().__init__()
        self.lstm, self.out = nn.LSTM(8, 24, batch_first=True), nn.Linear(24, 10)

    def forward(self, x):
        return self.out(self.lstm(x)[0][:, -1])


def vision_transformer():
    """timm's, for digits of 8 by 8 in patches of 4."""
    from timm.models.vision_transformer import VisionTransformer

    return VisionTransformer(img_size=8, patch_size=4, in_chans=1, num_classes=10, embed_dim=32, depth=2, num_heads=2)


@dataclasses.dataclass(frozen=True)
class Case:
    """A task, a network for it, epochs and learning rate (AdamW) of its modes, learning rate along a path."""

    task: callable
    network: callable
    epochs: int
    lr: float
    path_lr: float

    def modes(self, task):
        """Two, trained independently."""
        recipe = training.Recipe(epochs=self.epochs, lr=self.lr, batch=32, optimiser="adamw")
        for seed in (1, 2):
            torch.manual_seed(seed)
            yield training.train_mode(self.network(), task, recipe, seed=seed)


CASES = {
    "regression on a table": Case(table, functools.partial(perceptron, 10, 16, 16, 1), 20, 0.01, 0.1),
    "character language model": Case(text, Transformer, 15, 0.005, 0.3),
    "denoising autoencoder": Case(noisy_images, functools.partial(perceptron, 64, 24, 64), 25, 0.005, 2.0),
    "LSTM": Case(rows_of_images, Reader, 15, 0.01, 0.3),
    "vision transformer of timm": Case(images, vision_transformer, 15, 0.003, 0.1),
}


@pytest.mark.parametrize("name", CASES)
def test_a_path_ends_in_the_destination_and_stays_low(name):
    case = CASES[name]
    task = case.task()
    a, b = case.modes(task)
    bound = 2 * max(training.evaluate(mode, task.train).loss for mode in (a, b))
    driver = connectivity.Adaptive(max_loss=bound, slack=0.75, first_images=512, max_sgd_steps=4000)
    path = connectivity.connect(a, b, task, connectivity.M2M(driver=driver, lr=case.path_lr))
    assert path.reached(b)
    assert path.max_loss(task, interior_points=1) <= bound < connectivity.Path.linear(a, b).max_loss(task)
    columns = path.evaluate(task).columns
    measured = {"regression on a table": ["l1_loss"], "denoising autoencoder": []}.get(name, ["accuracy"])
    assert [c for c in columns if c.startswith("test_")] == [f"test_{n}" for n in ("loss", *measured, "images")]


@pytest.mark.parametrize(
    ("name", "lr"), [("regression on a table", 0.05), ("character language model", 0.1), ("denoising autoencoder", 1.0)]
)
def test_gossip_with_correction_learns_and_equals_the_loop(name, lr):
    case = CASES[name]
    task = case.task()
    runs = [
        gossip.simulate(
            task, lambda seed: case.network(), nx.cycle_graph(4), averaging=gossip.VarianceCorrected(), ticks=61,
            seed=0,
            lr=lr, batch=32, interval=(1, 2), record_every=30, backend=backend,
        )
        for backend in ("stacked", "loop")
    ]  # fmt: skip
    losses, loop = (run.history.groupby("tick").loss.mean() for run in runs)
    assert losses.to_numpy() == pytest.approx(loop.to_numpy(), rel=1e-3)
    assert losses.iloc[-1] < 0.8 * losses.iloc[0]
    assert runs[0].labels.shape == (4, 1) and runs[0].settings["evaluated_on"].endswith("test inputs")
