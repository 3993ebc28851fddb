"""Networks of nodes: who sends models to whom, and with which weight (paper 2, arXiv 2404.04616, topologies).

Any networkx graph will do, directed or not; the functions here make the families that the paper's simulations
use, with seeds, and check that they are what they claim to be. Nodes are always 0..N-1. A graph that is not
connected is legal (the facebook network has 13 components) but its parts never agree: that gives a warning.
"""

import csv
import math
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import networkx as nx
import numpy as np
import torch
from scipy.optimize import linear_sum_assignment

from lib import seeds
from lib.errors import InputError

MIXINGS = ("uniform", "metropolis")


def random_regular(num_nodes, degree, *, seed):
    """Random graph in which every node has ``degree`` neighbours; redrawn until it is connected.

    Raises
    ------
    InputError
        If ``num_nodes * degree`` is odd, or the degree does not lie in 1..num_nodes-1.
    """
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
        return nx.Graph(nx.stochastic_block_model(list(sizes), matrix, seed=own_seed))

    return _connected(draw)


def two_communities(num_nodes, degree, *, bridges=2, seed):
    """Two random regular graphs of ``num_nodes / 2``, joined by ``bridges`` edges."""
    _positive(num_nodes=num_nodes, degree=degree, bridges=bridges)
    if num_nodes % 2:
        raise InputError(f"num_nodes={num_nodes}: two communities of one size need an even number")
    _check_degree(num_nodes // 2, degree, of="num_nodes / 2")
    halves = [random_regular(num_nodes // 2, degree, seed=seeds.derive(seed, "half", k)) for k in range(2)]
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
    return nx.Graph(graph.edges)


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
    return nx.Graph(nx.karate_club_graph().edges)


def from_file(path):
    """Read a network from an edge list, such as ca-netscience or facebook.

    One edge a line, the first two fields are its nodes, separated by spaces, tabs or commas; lines that
    start with % or # are comments, further fields are ignored, ``.mtx`` files are read as such (their first
    line that is no comment holds sizes). Names are numbered in sorted order, loops are dropped.

    Raises
    ------
    InputError
        If the file does not exist or a line has fewer than two fields.
    """
    path = Path(path)
    if not path.is_file():
        raise InputError(f"path='{path}': no such edge file")
    rows = [line.replace(",", " ").split() for line in path.read_text().splitlines()]
    rows = [row for row in rows if row and row[0][0] not in "%#"]
    rows = rows[1:] if path.suffix == ".mtx" else rows
    short = next((number for number, row in enumerate(rows, 1) if len(row) < 2), None)
    if short or not rows:
        raise InputError(f"path='{path}': edge {short or 1} needs two nodes")
    names = sorted({name for row in rows for name in row[:2]}, key=lambda name: (len(name), name))
    number = {name: i for i, name in enumerate(names)}
    return check(from_edges([(number[row[0]], number[row[1]]) for row in rows if row[0] != row[1]]))


def from_edges(edges):
    """Network of the given edges, a list of pairs of nodes 0, 1, ..., each named at least once."""
    if not edges or min(min(edge) for edge in edges) < 0:
        raise InputError(f"edges={edges}: needs at least one pair of nodes 0, 1, ...")
    graph = nx.empty_graph(1 + max(max(edge) for edge in edges))
    graph.add_edges_from(edges)
    return graph


@dataclass(frozen=True)
class Rewired:
    """A network that changes: ``make(k)`` is the graph of ticks ``k * every`` to ``(k + 1) * every - 1``."""

    make: Callable
    every: int

    def __post_init__(self):
        _positive(every=self.every)

    def at(self, tick):
        """The graph of a tick."""
        return self.make(tick // self.every)


def check(graph, *, allow_parts=True):
    """Return the graph with nodes 0..N-1; warn, or raise, where it is not connected.

    Raises
    ------
    InputError
        If the graph has no edge, or is not connected and ``allow_parts`` is False.
    """
    if graph.number_of_edges() == 0:
        raise InputError("graph: has no edges")
    if set(graph) != set(range(len(graph))):
        graph = nx.convert_node_labels_to_integers(graph, ordering="sorted")
    parts = components(graph)
    if parts > 1:
        message = f"graph: not connected, its {parts} components can never agree"
        if not allow_parts:
            raise InputError(message)
        warnings.warn(message, stacklevel=2)
    return graph


def components(graph):
    """Number of (weakly) connected components."""
    weak = nx.number_weakly_connected_components if graph.is_directed() else nx.number_connected_components
    return weak(graph)


def mixing_matrix(graph, kind="uniform"):
    """Row-stochastic matrix of a graph: row i says how node i weighs the models it receives.

    Parameters
    ----------
    graph : networkx.Graph or DiGraph
    kind : {"uniform", "metropolis"}
        uniform: 1/degree for each neighbour. metropolis: 1/(1 + the larger degree of both), the rest stays
        with the node itself (Metropolis-Hastings; symmetric, hence the plain mean is what nodes agree on). The
        part that stays comes on top of beta: a node then averages ``beta w + (1 - beta) (matrix row) w``.

    Returns
    -------
    tensor (N, N), float64, sparse

    Raises
    ------
    InputError
        If the kind is unknown, or metropolis is asked for a directed graph.
    """
    if kind not in MIXINGS:
        raise InputError(f"mixing='{kind}': choose one of {', '.join(MIXINGS)}")
    if kind == "metropolis" and graph.is_directed():
        raise InputError("mixing='metropolis': needs an undirected graph")
    n = len(graph)
    adjacency = nx.to_scipy_sparse_array(graph, nodelist=range(n), weight=None, format="coo", dtype=float)
    sender, receiver = (torch.as_tensor(part.astype(np.int64)) for part in adjacency.coords)
    degree = torch.zeros(n, dtype=torch.float64).index_add_(0, receiver, torch.ones(len(receiver)).double())
    larger = torch.maximum(degree[sender], degree[receiver])
    share = 1 / degree[receiver] if kind == "uniform" else 1 / (1 + larger)
    own = 1 - torch.zeros(n, dtype=torch.float64).index_add_(0, receiver, share)
    own = own.where(own > 1e-12, 0.0)
    node = torch.arange(n)
    index = torch.stack([torch.cat([receiver, node]), torch.cat([sender, node])])
    value = torch.cat([share, own])
    keep = value > 0
    return torch.sparse_coo_tensor(index[:, keep], value[keep], (n, n), check_invariants=True).coalesce()


def spectral_gap(graph, kind="metropolis"):
    """One minus the second largest modulus of the mixing matrix's eigenvalues: how fast nodes agree."""
    values = np.linalg.eigvals(mixing_matrix(graph, kind).to_dense().numpy())
    return float(1 - np.sort(np.abs(values))[-2])


def steady_gain(graph, kind="uniform"):
    """Gain of the initial weights that undoes averaging: 1/||v|| of the mixing matrix's steady state v.

    Badie-Modiri et al., arXiv 2403.15855: sqrt(N) for a regular graph.
    """
    values, vectors = np.linalg.eig(mixing_matrix(graph, kind).to_dense().numpy().T)
    steady = np.real(vectors[:, np.argmin(np.abs(values - 1))])
    return float(1 / np.linalg.norm(steady / steady.sum()))


def to_csv(graph, path):
    """Write a graph as an edge list that :func:`from_file` reads."""
    with open(path, "w", newline="") as file:
        csv.writer(file).writerows(sorted(graph.edges))


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
