"""The networks of paper 2's sweep over topologies, at any size."""

import math

from lib.experiments.gossip import Network, regular
from lib.gossip import topology


def topologies(nodes, degree, *, rewired_every=50):
    """Config of every family of networks by its name in figures; ``degree`` where the family has one.

    Parameters
    ----------
    nodes : int
        Even; the karate club has 34 whatever this says.
    degree : int
        Even, and smaller than ``nodes / 2``.
    rewired_every : int
        Ticks after which the network that changes is drawn anew.
    """
    some = {"nodes": nodes}
    sized = {"nodes": nodes, "degree": degree}
    quarter = [nodes // 4] * 3 + [nodes - 3 * (nodes // 4)]
    inside = min(1.0, 3 * degree / nodes)
    blocks = {"sizes": quarter, "inside": inside, "between": inside / 10}
    return {
        "random regular": regular(nodes, degree),
        "scale-free": Network("scale_free", {**some, "exponent": 3.0, "smallest": 3}),
        "star + regular": Network("star_regular", sized),
        "stochastic blocks": Network("stochastic_block", blocks),
        "two communities": Network("two_communities", sized),
        "hyperbolic": Network("hyperbolic", sized),
        "ring": Network("ring", some),
        "small world": Network("watts_strogatz", {**sized, "rewiring": 0.1}),
        "complete": Network("complete", some),
        "karate club": Network("karate_club", {}),
        "directed regular": Network("directed_regular", sized),
        "rewired regular": regular(nodes, degree, rewired_every=rewired_every),
    }


def from_file(path):
    """Config of the network of an edge file (:func:`lib.gossip.topology.from_file`).

    It holds the edges themselves: runs follow what is in the file, and workers need not reach it.
    """
    return Network("from_edges", {"edges": sorted(sorted(edge) for edge in topology.from_file(path).edges)})


def describe(network, seed):
    """What a table says of a network, as it is drawn with a seed (a network that is rewired: at first).

    Returns
    -------
    dict
        ``nodes``; ``mean degree``: senders that a node hears; ``spectral gap``: of Metropolis-Hastings weights,
        of uniform ones where links are directed, nan for more than 1000 nodes.
    """
    graph = network.make(seed)
    graph = graph.at(0) if network.rewired_every else graph
    mixing = "uniform" if graph.is_directed() else "metropolis"
    return {
        "nodes": len(graph),
        "mean degree": graph.to_directed().number_of_edges() / len(graph),
        "spectral gap": topology.spectral_gap(graph, mixing) if len(graph) <= 1000 else math.nan,
    }
