"""A tick of gossip against the plain loop, ``torch.func`` and the arithmetic; averaging; growth with the network."""

import operator

import networkx as nx
import pandas as pd
import torch
from torch.func import functional_call, grad, stack_module_state, vmap
from torch.nn import functional as F

from benchmarks.measure import bound, flops, in_fresh_process, product, ratio, seconds
from lib import gossip, models, tasks
from lib.gossip.mailbox import write_rows
from lib.gossip.nodes import StackedNodes
from lib.gossip.schedule import Links

NODES, DEGREE, BATCH = 50, 8, 64
SYSTEMS = {"plain": gossip.Average(), "corrected": gossip.VarianceCorrected()}


def tick():
    """Seconds and ratios of a tick of 50 LeNet5, 5 of which train in it."""
    data = tasks.load("digits")
    network = models.create("lenet5", data, seed=0)
    x, y = data.train.x[: NODES // 10 * BATCH], data.train.y[: NODES // 10 * BATCH]

    def plain_network():
        network.zero_grad()
        F.cross_entropy(network(x), y).backward()

    candidates = {"product": product(), "plain network": plain_network}
    for name, averaging in SYSTEMS.items():
        candidates |= {f"{name} start": _simulation(data, averaging, 1), name: _simulation(data, averaging, 51)}
    candidates |= {
        "loop start": _simulation(data, SYSTEMS["corrected"], 1, "loop"),
        "loop": _simulation(data, SYSTEMS["corrected"], 51, "loop"),
    }
    times = seconds(candidates, rounds=5)
    ticks = {name: (times[name] - times[f"{name} start"]) / 50 for name in (*SYSTEMS, "loop")}
    ticks = {"one plain network, as many images": times["plain network"], **ticks}
    least = bound(times, flops(plain_network))
    ticks["bound: the arithmetic at the product's speed"] = least
    labels = {"plain": "gossip", "corrected": "corrected gossip", "loop": "corrected gossip, plain loop"}
    return pd.DataFrame(
        {
            "tick of 50 LeNet5": labels.get(name, name),
            "ms": spent.median() * 1e3,
            "times the bound": ratio(spent, least),
            "times plain gossip": ratio(spent, ticks["plain"]),
        }
        for name, spent in ticks.items()
    )


def _simulation(data, averaging, ticks, backend="stacked"):
    graph = nx.random_regular_graph(DEGREE, NODES, seed=0)
    return lambda: gossip.simulate(
        data, "lenet5", graph, averaging=averaging, ticks=ticks, seed=0, backend=backend, batch=BATCH,
        record_every=ticks, eval_images=10,
    )  # fmt: skip


def local_step():
    """One SGD step of 50 LeNet5: one grouped network, ``torch.func``, one model after another."""
    data = tasks.load("digits")
    made = [models.create("lenet5", data, seed=i) for i in range(NODES)]
    nodes = StackedNodes(made, NODES, data)
    x, y = data.train.x[: BATCH * 20].view(BATCH, 20, 1, 28, 28), data.train.y[: BATCH * 20].view(BATCH, 20)
    chosen = torch.arange(NODES) % 20
    x, y = x[:, chosen], y[:, chosen]
    parameters, buffers = stack_module_state(made)

    def loss(weights, held, images, labels):
        return F.cross_entropy(functional_call(made[0], (weights, held), images), labels)

    gradient = vmap(grad(loss), in_dims=(0, 0, 1, 1))

    def one_by_one():
        for i, model in enumerate(made):
            model.zero_grad()
            F.cross_entropy(model(x[:, i]), y[:, i]).backward()

    def grouped():
        for part in torch.arange(NODES).split(nodes.chunk):
            nodes.train(part, x[:, part], y[:, part], lr=torch.full((len(part),), 0.01), momentum=0.9)

    candidates = {
        "grouped network (ours)": grouped,
        "torch.func.vmap(grad)": lambda: gradient(parameters, buffers, x, y),
        "one model after another": one_by_one,
    }
    times = seconds(candidates, rounds=5)
    ours = times["grouped network (ours)"]
    return pd.DataFrame(
        [
            {"SGD step of 50 LeNet5": n, "ms": times[n].median() * 1e3, "times ours": ratio(times[n], ours)}
            for n in times
        ]
    )


def averaging():
    """All 50 nodes average what 8 neighbours sent, with and without correction."""
    data = tasks.load("digits")
    nodes = StackedNodes((models.create("lenet5", data, seed=i) for i in range(NODES)), NODES, data)
    links = Links(nx.random_regular_graph(DEGREE, NODES, seed=0), "uniform")
    everybody = torch.arange(NODES)
    messages = links.of(everybody)

    def average(system):
        nodes.boxes["weights"].weight.fill_(1.0)  # as if all had been received: taking empties the mailboxes
        nodes.average(everybody, system)

    rows = nodes.weights[: nodes.chunk].clone()

    def write(way):
        for part in everybody.split(nodes.chunk):
            way(nodes.weights, part, rows[: len(part)])

    candidates = {
        "product": product(),
        "write rows, one by one (ours)": lambda: write(write_rows),
        "write rows, by index": lambda: write(operator.setitem),
        "send 400 models": lambda: nodes.send(everybody, messages),
        **{f"average, {name}": lambda system=system: average(system) for name, system in SYSTEMS.items()},
    }
    times = seconds(candidates, rounds=31)
    unit = times["product"]
    return pd.DataFrame(
        [{"50 LeNet5": n, "ms": times[n].median() * 1e3, "in 1024^3 products": ratio(times[n], unit)} for n in times]
    )


def growth(sizes=(50, 200, 1000, 5000)):
    """Time of a tick and peak memory against the number of nodes."""
    rows = [{"nodes": nodes, **in_fresh_process(network_of, nodes)} for nodes in sizes]
    table = pd.DataFrame(rows)
    table["times the cost of 50"] = table["products a tick"] / table["products a tick"].iloc[0]
    return table


def network_of(nodes):
    """Corrected gossip of so many LeNet5: cost of a tick (10 ticks, in which every node trains once) and memory."""
    data = tasks.load("digits")
    graph = nx.random_regular_graph(DEGREE, nodes, seed=0)

    def run(ticks):
        gossip.simulate(
            data, "lenet5", graph, averaging=SYSTEMS["corrected"], ticks=ticks, seed=0, batch=BATCH,
            record_every=100, eval_images=10,
        )  # fmt: skip

    repeats = max(1, 400 // nodes)
    times = seconds({"product": product(), "start": lambda: run(1), "whole": lambda: run(11)}, rounds=repeats)
    spent = (times["whole"] - times["start"]) / 10
    return {"ms a tick": spent.median() * 1e3, "products a tick": ratio(spent, times["product"])}
