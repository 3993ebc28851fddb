"""Graphs: who sends models to whom, and with which weight (paper 2, arXiv 2404.04616, topologies).

Any networkx graph will do, directed or not; its nodes may have any names, and rows of matrices are in the order of
:func:`nodes_of`. The functions here make the families that the paper's simulations use, with seeds and nodes 0..N-1,
and check that they are what they claim to be. A graph that is not connected is legal (the facebook network has 13
components) but its parts never agree: that gives a warning.
"""

import collections
import math
import numbers
import warnings
from collections.abc import Callable
from dataclasses import dataclass

import networkx as nx
import numpy as np
import torch
from scipy.optimize import linear_sum_assignment

from lib import seeds
from lib.errors import InputError
from lib.gossip.edge_files import from_file, to_csv  # noqa: F401 (a graph's other ways in and out)

MIXINGS = ("uniform", "metropolis")


def random_regular(num_nodes, degree, *, seed):
    """Random graph in which every node has ``degree`` neighbours; redrawn until it is connected.

    Raises
    ------
    InputError
        If ``num_nodes * degree`` is odd, or the degree does not lie in 1..num_nodes-1.
    """
    return _in_order(_random_regular(num_nodes, degree, seed))


def _random_regular(num_nodes, degree, seed):
    _check_degree(num_nodes, degree)
    if num_nodes * degree % 2:
        raise InputError(f"degree={degree} with num_nodes={num_nodes}: their product must be even")
    return _connected(lambda k: nx.random_regular_graph(degree, num_nodes, seed=seeds.derive(seed, "regular", k)))


def ring(num_nodes):
    """Cycle: every node has two neighbours."""
    _at_least(3, num_nodes=num_nodes)
    return nx.cycle_graph(num_nodes)


def complete(num_nodes):
    """Everybody sends to everybody."""
    _at_least(2, num_nodes=num_nodes)
    return nx.complete_graph(num_nodes)


def star(num_nodes):
    """One hub, ``nodes - 1`` leaves."""
    _at_least(2, num_nodes=num_nodes)
    return nx.star_graph(num_nodes - 1)


def star_regular(num_nodes, degree, *, seed):
    """Random regular graph of which node 0 knows everybody else as well."""
    graph = random_regular(num_nodes, degree, seed=seed)
    graph.add_edges_from((0, node) for node in range(1, num_nodes))
    return graph


def watts_strogatz(num_nodes, degree, *, rewiring=0.1, seed):
    """Small world: a ring of ``degree`` nearest neighbours, edges rewired with probability ``rewiring``.

    Raises
    ------
    InputError
        If the degree is odd or does not lie in 2..nodes-1.
    """
    _check_degree(num_nodes, degree)
    if degree % 2:
        raise InputError(f"degree={degree}: must be even, as many neighbours on either side of the ring")
    _fraction(rewiring=rewiring)
    return _connected(
        lambda k: nx.watts_strogatz_graph(num_nodes, degree, rewiring, seed=seeds.derive(seed, "small world", k))
    )


def scale_free(num_nodes, *, exponent=3.0, smallest=3, seed):
    """Simple graph whose degrees follow ``k ** -exponent`` from ``smallest`` on (configuration model).

    Loops and double edges of the pairing are dropped, so that a few nodes fall below ``smallest``.
    """
    _at_least(2, num_nodes=num_nodes)
    _positive(smallest=smallest)
    if not exponent > 2:
        raise InputError(f"exponent={exponent}: must be larger than 2, for a finite mean degree")

    def draw(attempt):
        uniform = seeds.numpy(seed, "scale free", attempt).random(num_nodes)
        degrees = np.floor((smallest - 0.5) * (1 - uniform) ** (-1 / (exponent - 1)) + 0.5).astype(int)
        degrees = np.minimum(degrees, max(smallest, int(math.sqrt(num_nodes * smallest))))
        degrees[0] += degrees.sum() % 2
        graph = nx.Graph(nx.configuration_model(degrees, seed=seeds.derive(seed, "pairing", attempt)))
        graph.remove_edges_from(list(nx.selfloop_edges(graph)))
        return graph

    return _connected(draw)


def stochastic_block(sizes, *, inside, between, seed):
    """Communities of the given sizes, edges with probability ``inside`` and ``between`` them."""
    _positive(**{f"sizes[{i}]": size for i, size in enumerate(sizes)})
    if sum(sizes) < 2:
        raise InputError(f"sizes={list(sizes)}: needs at least two nodes")
    _fraction(inside=inside, between=between)
    matrix = np.full((len(sizes), len(sizes)), between) + np.eye(len(sizes)) * (inside - between)

    def draw(attempt):
        own_seed = seeds.derive(seed, "blocks", attempt)
        return _in_order(nx.stochastic_block_model(list(sizes), matrix, seed=own_seed))

    return _connected(draw)


def two_communities(num_nodes, degree, *, bridges=2, seed):
    """Two random regular graphs of ``num_nodes / 2``, joined by ``bridges`` edges."""
    _positive(num_nodes=num_nodes, degree=degree, bridges=bridges)
    if num_nodes % 2:
        raise InputError(f"num_nodes={num_nodes}: two communities of one size need an even number")
    _check_degree(num_nodes // 2, degree, of="num_nodes / 2")
    halves = [_random_regular(num_nodes // 2, degree, seeds.derive(seed, "half", k)) for k in range(2)]
    graph = nx.disjoint_union(*halves)
    graph.add_edges_from((k, num_nodes // 2 + k) for k in range(min(bridges, num_nodes // 2)))
    return graph


def hyperbolic(num_nodes, degree, *, exponent=3.0, seed):
    """Random hyperbolic graph: points in a disc of curvature -1, joined when closer than the disc's radius.

    The radius follows from the mean degree (Krioukov et al., Phys. Rev. E 82, 036106, equation 22); what is
    not in the largest component is joined to it by one edge.
    """
    _check_degree(num_nodes, degree)
    if not exponent > 2:
        raise InputError(f"exponent={exponent}: must be larger than 2, for a finite mean degree")
    alpha = (exponent - 1) / 2
    xi = alpha / (alpha - 0.5)
    radius = 2 * math.log(2 * num_nodes * xi**2 / (math.pi * degree))
    draw = seeds.numpy(seed, "hyperbolic")
    r = np.arccosh(1 + (np.cosh(alpha * radius) - 1) * draw.random(num_nodes)) / alpha
    angle = 2 * math.pi * draw.random(num_nodes)
    between = math.pi - np.abs(math.pi - np.abs(angle[:, None] - angle))
    ch, sh = np.cosh(r), np.sinh(r)
    distance = np.arccosh(np.maximum(1, ch[:, None] * ch - sh[:, None] * sh * np.cos(between)))
    graph = nx.from_numpy_array(np.triu(distance < radius, 1))
    parts = sorted(nx.connected_components(graph), key=len, reverse=True)
    hub = max(parts[0], key=graph.degree)
    graph.add_edges_from((hub, min(part)) for part in parts[1:])
    return _in_order(graph)


def directed_regular(num_nodes, degree, *, seed):
    """Every node sends to ``degree`` nodes and receives from as many: a union of random cycles.

    A cycle that shares an edge with an earlier one is drawn again. In a dense graph no random cycle may fit any more;
    then each node gets one more receiver by a random assignment, which always exists (the edges that are left form a
    regular bipartite graph).
    """
    _check_degree(num_nodes, degree)
    graph = nx.DiGraph()
    graph.add_nodes_from(range(num_nodes))
    for attempt in range(1000):
        if graph.number_of_edges() == num_nodes * degree:
            return graph
        cycle = seeds.numpy(seed, "cycle", attempt).permutation(num_nodes)
        edges = list(zip(cycle, np.roll(cycle, 1), strict=True))
        if not any(graph.has_edge(*edge) for edge in edges):
            graph.add_edges_from((int(a), int(b)) for a, b in edges)
    for missing in range(graph.number_of_edges() // num_nodes, degree):
        cost = seeds.numpy(seed, "assignment", missing).random((num_nodes, num_nodes))
        cost[nx.to_numpy_array(graph, nodelist=range(num_nodes)) > 0] = num_nodes + 1
        np.fill_diagonal(cost, num_nodes + 1)
        graph.add_edges_from(enumerate(linear_sum_assignment(cost)[1].tolist()))
    return graph


def karate_club():
    """Zachary's karate club: 34 people, 78 friendships, the small real network that networkx ships."""
    return _in_order(nx.karate_club_graph())


def from_edges(edges, *, nodes=()):
    """Graph of the given edges, pairs of nodes or triples with a weight.

    Parameters
    ----------
    edges : list of tuple
    nodes : list, optional
        The order of the nodes, and nodes without edges; others come behind as the edges name them.
    """
    if not edges or not all(len(edge) in (2, 3) for edge in edges):
        raise InputError(f"edges={edges}: needs at least one pair of nodes, or triple with a weight")
    graph = nx.empty_graph(nodes)
    graph.add_edges_from(edge for edge in edges if len(edge) == 2)
    graph.add_weighted_edges_from(edge for edge in edges if len(edge) == 3)
    return graph


@dataclass(frozen=True)
class Rewired:
    """A graph that changes: ``make(k)`` is the graph of ticks ``k * every`` to ``(k + 1) * every - 1``.

    All draws have the same nodes.
    """

    make: Callable
    every: int

    def __post_init__(self):
        _positive(every=self.every)

    def at(self, tick, nodes=None):
        """The graph of a tick.

        Raises
        ------
        InputError
            If ``make`` gives no graph, or its nodes are not ``nodes`` where these are given.
        """
        graph = self.make(tick // self.every)
        nodes_of(graph)
        if nodes is not None and (odd := set(nodes) ^ set(graph)):
            raise InputError(f"graph: the draw of tick {tick} and the first differ in node {min(odd, key=repr)!r}")
        return graph


def nodes_of(graph):
    """The names of a graph's nodes in its own order (of a view: the order of the graph behind it), a tuple.

    Raises
    ------
    InputError
        If it is not a networkx graph, or has no nodes.
    """
    if not isinstance(graph, nx.Graph):
        raise InputError(f"graph: needs a networkx graph or topology.Rewired, got {type(graph).__name__}")
    if len(graph) == 0:
        raise InputError("graph: has no nodes")
    behind = graph
    while hasattr(behind, "_graph"):  # a view lists its nodes as a set does: strings in another order in each process
        behind = behind._graph
    return tuple(node for node in behind if node in graph)


def content(graph):
    """What tells a graph from others, nested lists; of one that is rewired, how often it is and its first draw."""
    if isinstance(graph, Rewired):
        return [graph.every, content(graph.at(0))]
    edges = [[a, b, weight] for a, b, weight in graph.edges(data="weight")]
    return [graph.is_directed(), list(nodes_of(graph)), sorted(edges, key=repr)]


def check(graph, *, allow_parts=True):
    """Return the graph; warn, or raise, where it is not connected.

    Raises
    ------
    InputError
        If it is not a graph, has no edge between two nodes, has parallel edges or weights that are not numbers above
        0, or is not connected and ``allow_parts`` is False.
    """
    nodes_of(graph)
    if graph.number_of_edges() == nx.number_of_selfloops(graph):
        raise InputError("graph: has no edges")
    _has_weights(graph)
    parts = components(graph)
    if parts > 1:
        message = f"graph: not connected, its {parts} components can never agree"
        if not allow_parts:
            raise InputError(message)
        warnings.warn(message, stacklevel=2)
    return graph


def components(graph):
    """Number of parts that hear nobody outside: if there is more than one they never agree.

    Of an undirected graph these are its connected components.
    """
    if graph.is_directed():
        return nx.number_attracting_components(graph.reverse(copy=False))
    return nx.number_connected_components(graph)


def _has_weights(graph):
    """Whether edges have weights that differ; refuses weights that are none, and parallel edges."""
    count = collections.Counter(edge if graph.is_directed() else frozenset(edge) for edge in graph.edges())
    pair, most = max(count.items(), key=lambda item: item[1], default=((), 0))
    if most > 1:
        raise InputError(
            f"graph: {most} parallel edges between {' and '.join(map(repr, pair))}; "
            "networkx.Graph(graph) or DiGraph(graph) keeps one, its attribute weight may stand for more"
        )
    edges = list(graph.edges(data="weight"))
    given = [weight for *_, weight in edges if weight is not None]
    for a, b, weight in edges if given else ():
        if not (isinstance(weight, numbers.Real) and 0 < weight < math.inf):
            allowed = "where others have one" if weight is None else "must be a finite number above 0"
            raise InputError(f"graph: edge {a!r}, {b!r} has weight={weight!r}, {allowed}")
    return len(set(given)) > 1


def mixing_matrix(graph, kind="uniform", *, nodes=None):
    """Row-stochastic matrix of a graph: row i says how node i weighs the models it receives.

    Parameters
    ----------
    graph : networkx.Graph or DiGraph
        An edge (a, b) of a directed graph lets b hear a. A self loop makes a node one more neighbour of its own. A
        node that hears nobody keeps what it has: its row is 1 on the diagonal.
    kind : {"uniform", "metropolis"}
        uniform: 1/degree for each neighbour; where edges have the attribute ``weight``, in proportion to that.
        metropolis: 1/(1 + the larger degree of both), the rest stays with the node itself (Metropolis-Hastings;
        symmetric, hence the plain mean is what nodes agree on). The part that stays comes on top of beta: a node
        then averages ``beta w + (1 - beta) (matrix row) w``.
    nodes : sequence, optional
        The order of rows and columns, default :func:`nodes_of`.

    Returns
    -------
    tensor (N, N), float64, sparse

    Raises
    ------
    InputError
        If the kind is unknown, the graph has parallel edges or weights that are not numbers above 0, or metropolis is
        asked for a directed graph or one whose weights differ.

    Examples
    --------
    >>> graph = nx.Graph([("Ann", "Bob"), ("Bob", "Cy"), ("Bob", "Bob")])
    >>> mixing_matrix(graph).to_dense()[1]
    tensor([0.3333, 0.3333, 0.3333], dtype=torch.float64)
    """
    if kind not in MIXINGS:
        raise InputError(f"mixing='{kind}': choose one of {', '.join(MIXINGS)}")
    if kind == "metropolis" and graph.is_directed():
        raise InputError("mixing='metropolis': needs an undirected graph")
    nodes = nodes_of(graph) if nodes is None else nodes
    weighted = _has_weights(graph)
    if weighted and kind == "metropolis":
        raise InputError("mixing='metropolis': has no use for the weights of edges, nx.Graph(graph.edges) is without")
    n, weight = len(nodes), "weight" if weighted else None
    # From rows to single entries: of the other format networkx lists a self loop three times.
    adjacency = nx.to_scipy_sparse_array(graph, nodelist=nodes, weight=weight, format="csr", dtype=float).tocoo()
    sender, receiver = (torch.as_tensor(part.astype(np.int64)) for part in adjacency.coords)
    share = torch.as_tensor(adjacency.data)
    degree = torch.zeros(n, dtype=torch.float64).index_add_(0, receiver, share)
    larger = torch.maximum(degree[sender], degree[receiver])
    share = share / degree[receiver] if kind == "uniform" else 1 / (1 + larger)
    own = 1 - torch.zeros(n, dtype=torch.float64).index_add_(0, receiver, share)
    own = own.where(own > 1e-12, 0.0)
    node = torch.arange(n)
    index = torch.stack([torch.cat([receiver, node]), torch.cat([sender, node])])
    value = torch.cat([share, own])
    keep = value > 0
    return torch.sparse_coo_tensor(index[:, keep], value[keep], (n, n), check_invariants=True).coalesce()


def spectral_gap(graph, kind="metropolis"):
    """One minus the second largest modulus of the mixing matrix's eigenvalues: how fast nodes agree."""
    _at_least(2, **{"graph: number of nodes": len(graph)})
    values = np.linalg.eigvals(mixing_matrix(graph, kind).to_dense().numpy())
    return float(1 - np.sort(np.abs(values))[-2])


def steady_gain(graph, kind="uniform"):
    """Gain of the initial weights that undoes averaging: 1/||v|| of the mixing matrix's steady state v.

    Badie-Modiri et al., arXiv 2403.15855: sqrt(N) for a regular graph.

    Raises
    ------
    InputError
        If the graph is not connected: then there is no single steady state.
    """
    if components(graph) > 1:
        raise InputError(f"graph: its {components(graph)} components have no common steady state")
    values, vectors = np.linalg.eig(mixing_matrix(graph, kind).to_dense().numpy().T)
    steady = np.real(vectors[:, np.argmin(np.abs(values - 1))])
    return float(1 / np.linalg.norm(steady / steady.sum()))


def _in_order(graph):
    """A graph of the same edges, without attributes, whose nodes stand in the order 0, 1, ..."""
    ordered = nx.empty_graph(len(graph))
    ordered.add_edges_from(graph.edges)
    return ordered


def _connected(draw, attempts=100):
    for attempt in range(attempts):
        graph = draw(attempt)
        if components(graph) == 1:
            return graph
    raise InputError(f"graph: none of {attempts} draws was connected, raise the degree")


def _positive(**values):
    _at_least(1, **values)


def _at_least(least, **values):
    for name, value in values.items():
        if value < least:
            raise InputError(f"{name}={value}: must be at least {least}")


def _check_degree(num_nodes, degree, of="num_nodes"):
    _positive(**{of: num_nodes, "degree": degree})
    if degree >= num_nodes:
        raise InputError(f"degree={degree}: must be smaller than {of}={num_nodes}")


def _fraction(**values):
    for name, value in values.items():
        if not 0 <= value <= 1:
            raise InputError(f"{name}={value}: must be in [0, 1]")
