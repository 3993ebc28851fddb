"""Layers in data-flow order: every family, models from outside the registry, branches, what cannot be traced."""

import networkx as nx
import pytest
import torch
from torch import nn

from lib import layers, models, tasks
from lib.weights import Layout

digits = tasks.load("digits", size=16, device="cpu").subset(20, 10)


def test_lenet5_layers_in_data_flow_order():
    flow = layers.data_flow(models.create("lenet5", digits, seed=0), digits)
    assert flow == [(f"{n}.weight", f"{n}.bias") for n in ("conv1", "conv2", "fc1", "fc2", "fc3")]


class TwoBranches(nn.Module):
    """A token, two branches of unequal length, a normalisation, and a layer that nothing uses."""

    def __init__(self):
        super().__init__()
        self.head = nn.Linear(4, 2)
        self.left, self.right = nn.Linear(6, 4), nn.Sequential(nn.Linear(6, 5), nn.LayerNorm(5), nn.Linear(5, 4))
        self.token, self.unused = nn.Parameter(torch.zeros(1, 6)), nn.Linear(3, 3)

    def forward(self, x):
        x = x.flatten(1) + self.token
        return self.head(torch.relu(self.left(x) + self.right(x)))


def test_parallel_branches_share_a_stage_and_norms_join_their_layer():
    flow = layers.data_flow(TwoBranches(), example=torch.zeros(2, 6))
    first = {"token", "left.weight", "left.bias", "right.0.weight", "right.0.bias", "right.1.weight", "right.1.bias"}
    assert set(flow[0]) == first
    assert flow[1] == ("right.2.weight", "right.2.bias")
    assert set(flow[2]) == {"head.weight", "head.bias", "unused.weight", "unused.bias"}


class Branching(nn.Module):
    """Its path through the layers depends on the data, which no trace can follow."""

    def __init__(self):
        super().__init__()
        self.second, self.first = nn.Linear(3, 2), nn.Linear(3, 3)

    def forward(self, x):
        x = self.first(x)
        return self.second(x if x.sum() > 0 else -x)


def test_untraceable_models_are_ordered_by_their_calls():
    flow = layers.data_flow(Branching(), example=torch.ones(2, 3))
    assert flow == [("first.weight", "first.bias"), ("second.weight", "second.bias")]


def outside(name):
    """A model that the registry does not hold."""
    import timm

    return timm.create_model(name, num_classes=10, in_chans=1, **OUTSIDE[name])


OUTSIDE = {
    "convnext_atto": {"depths": (1, 1, 1, 1), "dims": (8, 8, 16, 16), "patch_size": 2},
    "vit_tiny_patch16_224": {"img_size": 32, "patch_size": 8, "depth": 2, "embed_dim": 24, "num_heads": 2},
}


def images(name):
    return torch.zeros(2, 1, 32, 32) if name in OUTSIDE else digits.test.x[:2]


@pytest.mark.parametrize("name", [*models.FAMILIES, *OUTSIDE])
def test_every_parameter_is_in_one_layer_from_the_input_to_the_head(name):
    model = outside(name) if name in OUTSIDE else models.create(name, digits, seed=0)
    flow = layers.data_flow(model, example=images(name))
    named = [parameter for layer in flow for parameter in layer]
    everything = [parameter for parameter, _ in model.named_parameters()]
    assert sorted(named) == sorted(everything)
    assert Layout.of(model).layers[0] in flow[0]
    assert {everything[-1], everything[-2]} <= set(flow[-1])
    assert all(any(model.get_parameter(p).ndim > 1 for p in layer) for layer in flow)


@pytest.mark.parametrize("name", ["vit_tiny_patch16_224", "cct7"])
def test_positions_and_tokens_belong_to_the_first_layers(name):
    model = outside(name) if name in OUTSIDE else models.create(name, digits, seed=0)
    flow = layers.data_flow(model, example=images(name))
    bare = {"pos_embed", "cls_token"} if name in OUTSIDE else {"positions"}
    tokenizer = 1 if name in OUTSIDE else 2
    assert bare <= {parameter for layer in flow[:tokenizer] for parameter in layer}


@pytest.mark.parametrize("name", ["resnet18", "dla", "densenet", "cct7"])
def test_edges_run_downstream_and_reach_every_layer(name):
    graph = layers.graph(models.create(name, digits, seed=0), digits)
    assert all(before < after for before, after in graph.edges)
    last = max(graph.nodes)
    assert nx.descendants(graph, 0) == set(range(1, last + 1))
    assert nx.ancestors(graph, last) == set(range(last))
    assert any(after - before > 1 for before, after in graph.edges), "skip connections are edges"


def test_edges_of_two_branches():
    graph = layers.graph(TwoBranches(), example=torch.zeros(2, 6))
    assert set(graph.edges) == {(0, 1), (1, 2), (1, 3), (2, 3)}
