"""Algorithms 1 to 3 of paper 2 (arXiv 2404.04616) as short loops over whole models: to read, and to test against.

The engine of :mod:`lib.gossip.simulation` gives the same numbers and is many times faster
(``tests/test_gossip_reference.py``).
"""

import torch
from torch.nn.functional import cross_entropy
from torch.optim import SGD

from lib.weights import is_weight


def federated(server, clients, batch, *, rounds, lr, momentum):
    """Algorithm 1, federated learning: clients start from the server's model and train, the server averages.

    Parameters
    ----------
    server : torch.nn.Module
    clients : list of torch.nn.Module
    batch : callable
        ``batch(round, client)``: inputs and classes of a mini-batch.
    rounds : int
    lr, momentum : float
        Of each client's SGD.
    """
    optimisers = [SGD(client.parameters(), lr, momentum) for client in clients]
    for round_index in range(rounds):
        for index, client in enumerate(clients):
            client.load_state_dict(server.state_dict())
            train(client, optimisers[index], *batch(round_index, index))
        mix(server, [weights(client) for client in clients], beta=0.0, corrected=False)


def gossip(models, graph, due, batch, *, ticks, lr, momentum, beta, corrected):
    """Algorithms 2 and 3, gossip learning: a node averages as soon as it has as many models as neighbours.

    Parameters
    ----------
    models : list of torch.nn.Module
        One a node.
    graph : networkx.Graph
        Nodes 0, 1, ...
    due : callable
        ``due(tick)``: the nodes that train in a tick.
    batch : callable
        ``batch(tick, node)``: inputs and classes of a mini-batch.
    ticks : int
    lr, momentum : float
    beta : float
        Weight of the own model in the average.
    corrected : bool
        Algorithm 3: correct the variance after averaging.

    Examples
    --------
    Two nodes that are told each other's model once:

    >>> import networkx, torch
    >>> _ = torch.manual_seed(0)
    >>> models = [torch.nn.Linear(1000, 10) for _ in range(2)]
    >>> before = models[0].weight.var().item()
    >>> batch = lambda tick, node: (torch.zeros(1, 1000), torch.zeros(1).long())
    >>> gossip(models, networkx.path_graph(2), lambda tick: [0, 1], batch,
    ...        ticks=1, lr=0.0, momentum=0.0, beta=0.5, corrected=False)
    >>> round(models[0].weight.var().item() / before, 1)  # half of the variance is gone
    0.5
    """
    optimisers = [SGD(model.parameters(), lr, momentum) for model in models]
    received = {node: [] for node in graph}
    for tick in range(ticks):
        training = list(due(tick))
        for node in training:
            train(models[node], optimisers[node], *batch(tick, node))
        for node in training:
            for neighbour in graph[node]:
                received[neighbour].append(weights(models[node]))
        for node, buffer in received.items():
            if len(buffer) >= len(graph[node]):
                mix(models[node], buffer, beta=beta, corrected=corrected)
                buffer.clear()


def train(model, optimiser, x, y):
    """One SGD step."""
    model.train()
    optimiser.zero_grad()
    cross_entropy(model(x), y).backward()
    optimiser.step()


def weights(model):
    """A copy of a model's parameters."""
    return [parameter.detach().clone() for parameter in model.parameters()]


@torch.no_grad()
def mix(model, received, *, beta, corrected):
    """``w <- beta w + (1 - beta) mean(received)``; then weight tensors get the mean variance of the received ones."""
    for own, *others in zip(model.parameters(), *received, strict=True):
        averaged = beta * own + (1 - beta) * sum(others) / len(others)
        if corrected and is_weight(own):
            variance = sum(other.var(correction=0) for other in others) / len(others)
            averaged = correct(averaged, variance)
        own.copy_(averaged)


def correct(weight, variance):
    """Variance correction: ``W <- m + sqrt(v / s2) (W - m)``, with m and s2 the mean and variance of W."""
    mean, own_variance = weight.mean(), weight.var(correction=0)
    return mean + (variance / own_variance).sqrt() * (weight - mean)
