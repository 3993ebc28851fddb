"""The networks of paper 2's sweep over topologies, at any size."""

from lib.experiments.gossip import Network, regular


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
