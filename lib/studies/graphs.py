"""The graphs of paper 2's sweep over topologies, at any size."""

import math

from lib.gossip import topology
from lib.studies.gossip import GraphConfig, regular


def topologies(num_nodes, degree, *, rewired_every=50):
    """Config of every family of graphs by its name in figures; ``degree`` where the family has one.

    Parameters
    ----------
    num_nodes : int
        Even; the karate club has 34 whatever this says.
    degree : int
        Even, and smaller than ``num_nodes / 2``.
    rewired_every : int
        Ticks after which the graph that changes is drawn anew.
    """
    some = {"num_nodes": num_nodes}
    sized = {"num_nodes": num_nodes, "degree": degree}
    quarter = [num_nodes // 4] * 3 + [num_nodes - 3 * (num_nodes // 4)]
    inside = min(1.0, 3 * degree / num_nodes)
    blocks = {"sizes": quarter, "inside": inside, "between": inside / 10}
    return {
        "random regular": regular(num_nodes, degree),
        "scale-free": GraphConfig("scale_free", {**some, "exponent": 3.0, "smallest": 3}),
        "star + regular": GraphConfig("star_regular", sized),
        "stochastic blocks": GraphConfig("stochastic_block", blocks),
        "two communities": GraphConfig("two_communities", sized),
        "hyperbolic": GraphConfig("hyperbolic", sized),
        "ring": GraphConfig("ring", some),
        "small world": GraphConfig("watts_strogatz", {**sized, "rewiring": 0.1}),
        "complete": GraphConfig("complete", some),
        "karate club": GraphConfig("karate_club", {}),
        "directed regular": GraphConfig("directed_regular", sized),
        "rewired regular": regular(num_nodes, degree, rewired_every=rewired_every),
    }


def from_file(path):
    """Config of the graph of an edge file (:func:`lib.gossip.topology.from_file`).

    It holds nodes and edges themselves: runs follow what is in the file, and workers need not reach it.
    """
    graph = topology.from_file(path)
    place = {node: number for number, node in enumerate(graph)}
    edges = [
        [*sorted((a, b), key=place.get), *([] if weight is None else [weight])]
        for a, b, weight in graph.edges(data="weight")
    ]
    edges.sort(key=lambda edge: [place[node] for node in edge[:2]])
    return GraphConfig("from_edges", {"nodes": list(graph), "edges": edges})


def describe(config, seed):
    """What a table says of a graph, as it is drawn with a seed (one that is rewired: at first).

    Returns
    -------
    dict
        ``num_nodes``; ``mean degree``: senders that a node hears; ``spectral gap``: of Metropolis-Hastings weights,
        of uniform ones where links are directed, nan for more than 1000 nodes.
    """
    graph = config.make(seed)
    graph = graph.at(0) if config.rewired_every else graph
    mixing = "uniform" if graph.is_directed() else "metropolis"
    return {
        "nodes": len(graph),
        "mean degree": graph.to_directed().number_of_edges() / len(graph),
        "spectral gap": topology.spectral_gap(graph, mixing) if len(graph) <= 1000 else math.nan,
    }
