"""Many networks as one: every kind of module computes what the model computes, or another way is taken and said."""

import dataclasses
import warnings

import networkx as nx
import numpy as np
import pytest
import torch
from module_kinds import GROUPED, KINDS, OTHERS, Function, dense, task
from torch import nn

from lib import batchnorm, gossip
from lib.batched.fallback import network, own_buffers, reestimated
from lib.batched.gradients import gradients
from lib.batched.grouped import UnsupportedError
from lib.weights import Layout

data = task()


def made(net, inputs=data.train.x[:2]):
    """Many networks of a model, and what was said."""
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        return network(net, inputs), [str(each.message) for each in said]


def simulated(net, backend, of=data, **options):
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        found = gossip.simulate(
            of,
            net,
            nx.cycle_graph(3),
            ticks=5,
            seed=1,
            batch=6,
            interval=(1, 2),
            record_every=5,
            backend=backend,
            **options,
        )
    return found, [str(each.message) for each in said if "networks" in str(each.message)]


@pytest.mark.parametrize("kind", KINDS)
def test_gossip_of_every_kind_equals_the_loop(kind):
    stacked, said = simulated(KINDS[kind], "stacked")
    loop, _ = simulated(KINDS[kind], "loop")
    torch.testing.assert_close(stacked.weights, loop.weights, rtol=1e-3, atol=1e-4)
    np.testing.assert_allclose(stacked.history.loss, loop.history.loss, rtol=1e-3, atol=1e-4)
    expected = [] if kind in GROUPED else ["slower than grouped"]
    assert [each in message for each, message in zip(expected, said, strict=True)] == [True] * len(expected), said


@pytest.mark.parametrize("kind", KINDS)
def test_gradients_and_buffers_are_those_of_each_model(kind):
    models = [KINDS[kind](seed).double() for seed in range(3)]
    run, _ = made(models[0], data.train.x[:2].double())
    x, y = data.train.x[:12].double().view(4, 3, 1, 8, 8), data.train.y[:12].view(4, 3)
    rows = torch.stack([nn.utils.parameters_to_vector(model.parameters()).detach() for model in models])
    buffers = {name: torch.stack([own_buffers(model)[name] for model in models]) for name in own_buffers(models[0])}
    found, loss = gradients(run, Layout.of(models[0]), rows, buffers, x, y)
    losses = [nn.functional.cross_entropy(model.train()(x[:, i]), y[:, i]) for i, model in enumerate(models)]
    torch.testing.assert_close(loss, sum(losses).detach())
    for i, model in enumerate(models):
        model.zero_grad()
        losses[i].backward()
        alone = [torch.zeros_like(p) if p.grad is None else p.grad for p in model.parameters()]
        torch.testing.assert_close(found[i], torch.cat([each.flatten() for each in alone]))
        for name, buffer in own_buffers(model).items():
            torch.testing.assert_close(buffers[name][i], buffer)
    outputs = run(Layout.of(models[0]).views(rows), buffers, x[:, 0], training=False)
    torch.testing.assert_close(outputs, torch.stack([model.eval()(x[:, 0]) for model in models]))


def rows_of_a_table(seed):
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(7, 9), nn.BatchNorm1d(9), nn.ReLU(), nn.Linear(9, 5))


def test_rows_of_a_table_are_grouped_and_token_ids_are_not():
    run, said = made(rows_of_a_table(0), torch.randn(2, 7))
    assert run.title == "grouped" and not said
    tokens = torch.randint(0, 9, (2, 6))
    run, said = made(nn.Sequential(nn.Embedding(9, 4), nn.Flatten(), nn.Linear(24, 5)), tokens)
    assert run.title == "by torch.func.vmap" and "module Embedding '0'" in said[0]
    sequences = torch.randn(2, 6, 3)
    run, said = made(nn.Sequential(nn.Linear(3, 4), nn.Flatten(), nn.Linear(24, 5)), sequences)
    assert run.title == "by torch.func.vmap" and "inputs of 3 dimensions" in said[0]


@pytest.mark.parametrize(
    ("net", "way", "why"),
    [
        (OTHERS["layer norm"](0), "by torch.func.vmap", "grouped: module LayerNorm '2'"),
        (OTHERS["forward hook"](0), "by torch.func.vmap", "grouped: outputs in training mode are not the model's"),
        (
            OTHERS["hook of a parameter"](0),
            "one after another",
            "grouped: gradients in training mode are not the model's",
        ),
        (OTHERS["LSTM"](0), "one after another", "by torch.func.vmap: "),
        (OTHERS["way by the data"](0), "one after another", "grouped: torch.fx cannot trace it"),
    ],
)
def test_a_warning_of_one_line_says_which_way_and_why(net, way, why):
    run, said = made(net)
    assert run.title == way and len(said) == 1
    assert said[0].startswith(f"networks {type(net).__name__} are run {way}, slower than grouped (grouped: ")
    assert why in said[0] and "\n" not in said[0]


@pytest.mark.parametrize(
    "kind", ["batch norm", "batch norm, momentum 0", "batch norm, momentum None", "batch norm of rows", "linear"]
)
def test_running_statistics_are_computed_anew_as_for_each_model(kind):
    models = [KINDS[kind](seed) for seed in range(3)]
    for model in models:
        model.append(nn.Dropout(0.5))  # which is still: this is no training
    run, _ = made(models[0])
    parameters = {
        name: torch.stack([m.get_parameter(name).detach() for m in models]) for name, _ in models[0].named_parameters()
    }
    buffers = {name: torch.stack([own_buffers(m)[name] for m in models]) for name in own_buffers(models[0])}
    found = reestimated(run, parameters, buffers, data.train.x)
    for number, model in enumerate(models):
        batchnorm.reestimate(model, data.train.x)
        for name, buffer in own_buffers(model).items():
            if "num_batches" not in name:
                torch.testing.assert_close(found[name][number], buffer)
    assert all(norm.momentum != 1 for norm in batchnorm.batch_norms(run.model).values())


class Counting(Function):
    """What it computes depends on how often it was called."""

    def __init__(self, seed):
        super().__init__(None, seed)
        self.calls = 0

    def forward(self, x):
        self.calls += 1
        return self.calls * self.b(self.a(x.flatten(1)))


def test_what_no_way_computes_is_refused_in_one_line():
    with pytest.raises(UnsupportedError, match="networks Counting cannot be run as many, try backend='loop'") as caught:
        made(Counting(0))
    assert "\n" not in str(caught.value)
    bounded = nn.Sequential(nn.Embedding(9, 4, max_norm=1.0), nn.Flatten(), nn.Linear(24, 5))
    with pytest.raises(UnsupportedError, match=r"model Sequential does not run .* it changes its own weights"):
        made(bounded, torch.randint(0, 9, (2, 6)))
    with pytest.raises(UnsupportedError, match="model Sequential does not run on 2 inputs"):
        made(nn.Sequential(nn.Linear(3, 3)))


@pytest.mark.parametrize("net", [dense(nn.ReLU, nn.Dropout), OTHERS["LSTM"]])
def test_the_comparison_leaves_the_model_and_the_random_state_alone(net):
    model = net(0)
    model[1].eval() if isinstance(model, nn.Sequential) else model.a.eval()
    flags, weights = [m.training for m in model.modules()], [p.clone() for p in model.parameters()]
    before = torch.get_rng_state()
    made(model)
    assert torch.equal(torch.get_rng_state(), before)
    assert [m.training for m in model.modules()] == flags
    assert all(torch.equal(*pair) and pair[0].requires_grad for pair in zip(model.parameters(), weights, strict=True))


def test_dropout_is_grouped_and_drops_of_each_network_on_its_own():
    run, said = made(dense(lambda: nn.Dropout(0.5), nn.ReLU)(0))
    assert run.title == "grouped" and not said
    model = dense(lambda: nn.Dropout(0.5), nn.ReLU)(0)
    parameters = {name: torch.stack([p.detach()] * 2) for name, p in model.named_parameters()}
    first, second = run(parameters, {}, data.train.x[:9], training=True)
    assert not torch.equal(first, second)
    same, alike = run(parameters, {}, data.train.x[:9], training=False)
    assert torch.equal(same, alike)


def test_the_memory_format_of_the_images_is_not_forced_on_a_model():
    """``view`` behind a convolution takes contiguous images only."""
    view = Function(
        lambda m, x: m.d(m.c(x).view(len(x), -1)), 0, c=lambda: nn.Conv2d(1, 4, 3), d=lambda: nn.Linear(144, 5)
    )
    images = data.train.x[:2].contiguous(memory_format=torch.channels_last)
    parameters = {name: torch.stack([p.detach()] * 2) for name, p in view.named_parameters()}
    outputs = made(view, images.clone(memory_format=torch.contiguous_format).view(2, 1, 8, 8))[0](
        parameters, {}, images, training=False
    )
    torch.testing.assert_close(outputs[1], view.c(images).flatten(1) @ view.d.weight.T + view.d.bias)


def test_nothing_to_train_has_gradient_zero():
    model = dense(nn.ReLU)(0).requires_grad_(False)
    rows = torch.stack([nn.utils.parameters_to_vector(model.parameters())] * 2)
    found, loss = gradients(made(model)[0], Layout.of(model), rows, {}, data.train.x[:8].view(4, 2, 1, 8, 8),
                            data.train.y[:8].view(4, 2))  # fmt: skip
    assert not found.any() and loss > 0


def test_double_precision_is_kept():
    split = lambda s: dataclasses.replace(s, x=s.x.double())  # noqa: E731
    exact = dataclasses.replace(data, train=split(data.train), test=split(data.test))
    net = lambda seed: KINDS["layer norm"](seed).double()  # noqa: E731
    stacked, loop = (simulated(net, backend, exact)[0].weights for backend in ("stacked", "loop"))
    torch.testing.assert_close(stacked, loop, rtol=0, atol=1e-10)
