"""Graphs and edge files as people have them: names, loops, weights, directions, many ways to write an edge."""

import codecs
import gzip
import itertools
import warnings

import networkx as nx
import numpy as np
import pytest
import scipy.io
import torch
from hypothesis import given
from hypothesis import strategies as st

from lib import gossip, tasks
from lib.errors import InputError
from lib.gossip import topology
from lib.gossip.topology import mixing_matrix
from lib.studies.graphs import from_file as config_of


@pytest.fixture(scope="module")
def small():
    return tasks.load("digits", size=8, device="cpu").subset(100, 20)


def net(seed):
    return torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 10))


def simulate(task, graph, *, backend="stacked", **settings):
    settings = {"ticks": 25, "seed": 0, "batch": 4, "record_every": 5, **settings}
    return gossip.simulate(task, net, graph, backend=backend, **settings)


def rows(graph, kind="uniform"):
    return mixing_matrix(graph, kind).to_dense()


NAMED = {
    "strings": nx.Graph([("Ann", "Bob"), ("Bob", "Cy"), ("Cy", "Ann")]),
    "mixed": nx.Graph([("a", 1), (1, (2, 3)), ((2, 3), "a")]),
    "gaps": nx.Graph([(10, 3), (3, 7), (7, 10)]),
    "negative": nx.Graph([(-1, 5), (5, 0), (0, -1)]),
    "grid": nx.grid_2d_graph(1, 3),
    "numbers out of order": nx.Graph([(2, 0), (0, 1), (1, 2)]),
    "directed": nx.DiGraph([("b", "a"), ("a", "c"), ("c", "b")]),
    "multigraph without parallel edges": nx.MultiGraph([("b", "a"), ("a", "c"), ("c", "b")]),
}


@pytest.mark.parametrize("name", NAMED)
def test_nodes_keep_their_names_and_the_order_of_the_graph(small, name):
    graph = NAMED[name]
    result = simulate(small, graph, ticks=6)
    assert result.nodes == tuple(graph)
    assert result.history.node.tolist() == 2 * list(graph)
    for number, node in enumerate(graph):
        assert torch.equal(result.state(node)["1.weight"].flatten(), result.weights[number, :640])
    numbered = simulate(small, nx.convert_node_labels_to_integers(graph), ticks=6)
    assert torch.equal(result.weights, numbered.weights)
    with pytest.raises(InputError, match="node='nobody': no such node in the graph"):
        result.state("nobody")


def test_the_graph_of_the_caller_stays_as_it_was(small):
    graph = nx.Graph([("a", "b", {"weight": 2}), ("b", "c", {"weight": 1})])
    graph.add_edge("c", "c", weight=3)
    before = list(graph.nodes(data=True)), list(graph.edges(data=True))
    for each in (graph, nx.freeze(graph.copy()), graph.subgraph(["b", "c"])):
        simulate(small, each, ticks=2)
        mixing_matrix(each)
    assert (list(graph.nodes(data=True)), list(graph.edges(data=True))) == before


def test_the_nodes_of_a_view_stand_in_the_order_of_the_graph_behind_it():
    view = nx.path_graph([9, 2, 8, 1, 5, 3, 6, 7, 4]).subgraph([8, 4, 2])
    assert set(view) == {2, 8, 4} and tuple(view) != (2, 8, 4), "the order of a set: strings change it in each process"
    assert topology.nodes_of(view) == topology.nodes_of(nx.freeze(view).to_directed(as_view=True)) == (2, 8, 4)


@given(st.sets(st.tuples(st.integers(0, 6), st.integers(0, 6)), min_size=1), st.booleans())
def test_mixing_matrix_is_what_its_docstring_says(edges, directed):
    graph = (nx.DiGraph if directed else nx.Graph)(list(edges))
    nodes, matrix = list(graph), rows(graph)
    for i, node in enumerate(nodes):
        heard = set(graph.predecessors(node) if directed else graph[node])
        wanted = [float(other in heard) / len(heard) if heard else float(other == node) for other in nodes]
        torch.testing.assert_close(matrix[i], torch.tensor(wanted, dtype=torch.float64))
    if not directed:
        metropolis = rows(graph, "metropolis")
        torch.testing.assert_close(metropolis, metropolis.T)
        torch.testing.assert_close(metropolis.sum(1), torch.ones(len(nodes), dtype=torch.float64))
        for i, j in itertools.permutations(range(len(nodes)), 2):
            degrees = [len(graph[nodes[k]]) for k in (i, j)]
            wanted = 1 / (1 + max(degrees)) if graph.has_edge(nodes[i], nodes[j]) else 0.0
            assert float(metropolis[i, j]) == pytest.approx(wanted)


def test_a_self_loop_is_one_more_neighbour_in_the_matrix_and_in_both_engines(small):
    graph = nx.path_graph(3)
    graph.add_edge(1, 1)
    assert rows(graph)[1].tolist() == pytest.approx([1 / 3] * 3)
    assert rows(graph)[0].tolist() == [0, 1, 0]
    runs = [simulate(small, graph, backend=backend, interval=(5, 5), lr=1e-9, averaging=gossip.Average(beta=0.0))
            for backend in ("stacked", "loop")]  # fmt: skip
    torch.testing.assert_close(runs[0].weights, runs[1].weights)
    one = simulate(small, graph, ticks=1, interval=(5, 5), lr=1e-9, averaging=gossip.Average(beta=0.0)).weights
    start = simulate(small, graph, ticks=1, lr=1e-9, averaging=gossip.Isolated()).weights
    torch.testing.assert_close(one, (rows(graph).float() @ start), atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("make", [nx.Graph, nx.DiGraph])
def test_weights_of_edges_count_as_written(small, make):
    edges = [("a", "b", 3), ("c", "b", 1.0), ("b", "a", 3), ("b", "c", 1.0), ("d", "b", np.float32(4)), ("b", "d", 4)]
    graph = make((a, b, {"weight": weight}) for a, b, weight in edges)
    assert rows(graph)[1].tolist() == pytest.approx([3 / 8, 0, 1 / 8, 4 / 8])
    settings = {"ticks": 1, "interval": (5, 5), "lr": 1e-9}
    one = simulate(small, graph, averaging=gossip.Average(beta=0.0), **settings).weights
    start = simulate(small, graph, averaging=gossip.Isolated(), **settings).weights
    torch.testing.assert_close(one, rows(graph).float() @ start, atol=1e-6, rtol=1e-5)
    equal = nx.Graph((a, b, {"weight": 7}) for a, b in graph.edges)
    assert torch.equal(rows(equal, "metropolis"), rows(nx.Graph(graph.edges), "metropolis")), "as without weights"


def test_nodes_that_hear_nobody_train_alone_and_are_heard(small):
    graph = nx.DiGraph([("boss", "a"), ("boss", "b"), ("a", "b"), ("b", "a")])
    assert rows(graph)[0].tolist() == [1, 0, 0]
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # one that nobody tells anything: all may come to agree with it
        result = simulate(small, graph)
    alone = simulate(small, graph, averaging=gossip.Isolated(), interval=(8, 12))
    assert torch.equal(result.state("boss")["1.weight"], alone.state("boss")["1.weight"])
    assert not torch.equal(result.state("a")["1.weight"], alone.state("a")["1.weight"])
    graph.add_edge("chief", "a")
    with pytest.warns(UserWarning, match="2 components can never agree"):
        simulate(small, graph, ticks=2)


def test_a_node_without_edges_trains_alone(small):
    graph = nx.Graph([("a", "b"), ("b", "c")])
    graph.add_node("hermit")
    with pytest.warns(UserWarning, match="2 components can never agree"):
        result = simulate(small, graph)
    alone = simulate(small, graph, averaging=gossip.Isolated(), interval=(8, 12))
    assert torch.equal(result.state("hermit")["1.weight"], alone.state("hermit")["1.weight"])
    assert torch.isfinite(result.weights).all()


def test_a_graph_that_is_rewired_keeps_who_is_who_whatever_the_order_of_its_draws(small):
    ring, names = nx.cycle_graph(5), ["e", "b", "a", "c", "d"]
    ring = nx.relabel_nodes(ring, dict(enumerate(names)))

    def shuffled(k):
        made = nx.Graph()
        made.add_nodes_from(names[k % 5 :] + names[: k % 5])
        made.add_edges_from(ring.edges)
        return made

    fixed, rewired = simulate(small, shuffled(0)), simulate(small, topology.Rewired(shuffled, 3))
    assert fixed.nodes == rewired.nodes == tuple(names)
    assert torch.equal(fixed.weights, rewired.weights)


def parallel(kind=nx.MultiGraph):
    return kind([("a", "b"), ("b", "c"), ("a", "b")])


def weighted(weight):
    return nx.Graph([("a", "b", {"weight": 1}), ("b", "c", {} if weight is None else {"weight": weight})])


def with_loops_only():
    return nx.Graph([(0, 0), (1, 1)])


REFUSED = {
    "no nodes": (nx.Graph(), "graph: has no nodes"),
    "no edges": (nx.empty_graph(3), "graph: has no edges"),
    "self loops only": (with_loops_only(), "graph: has no edges"),
    "a list": ([(0, 1)], r"graph: needs a networkx graph or topology\.Rewired, got list"),
    "a matrix": (np.eye(3), r"graph: needs a networkx graph or topology\.Rewired, got ndarray"),
    "the class": (nx.Graph, r"graph: needs a networkx graph or topology\.Rewired, got type"),
    "parallel edges": (parallel(), "graph: 2 parallel edges between '.' and '.'; networkx.Graph"),
    "parallel arcs": (parallel(nx.MultiDiGraph), "graph: 2 parallel edges between 'a' and 'b'"),
    "negative weight": (weighted(-1), "graph: edge 'b', 'c' has weight=-1, must be a finite number above 0"),
    "weight of zero": (weighted(0), "graph: edge 'b', 'c' has weight=0, must be a finite number above 0"),
    "weight that is no number": (weighted(float("nan")), "graph: edge 'b', 'c' has weight=nan, must be"),
    "infinite weight": (weighted(float("inf")), "graph: edge 'b', 'c' has weight=inf, must be"),
    "weight in words": (weighted("much"), "graph: edge 'b', 'c' has weight='much', must be"),
    "a weight for some": (weighted(None), "graph: edge 'b', 'c' has weight=None, where others have one"),
    "draw with other nodes": (
        topology.Rewired(lambda k: nx.path_graph(3 + k), 2),
        "graph: the draw of tick 2 and the first differ in node 3",
    ),
    "draw that loses a node": (
        topology.Rewired(lambda k: nx.path_graph("abc"[k:]), 2),
        "graph: the draw of tick 2 and the first differ in node 'a'",
    ),
    "draw that is no graph": (topology.Rewired(lambda k: k, 2), r"graph: needs a networkx graph .* got int"),
    "draw without edges": (topology.Rewired(lambda k: nx.empty_graph(3), 2), "graph: has no edges"),
    "draw with parallel edges": (topology.Rewired(lambda k: parallel(), 2), "graph: 2 parallel edges"),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_graphs_that_cannot_be_are_refused_in_one_line(small, name):
    graph, message = REFUSED[name]
    with pytest.raises(InputError, match=message) as caught:
        simulate(small, graph, ticks=25)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("call", [
    lambda: mixing_matrix(nx.Graph()),
    lambda: mixing_matrix(parallel()),
    lambda: mixing_matrix(weighted(-1)),
    lambda: mixing_matrix(weighted(2), "metropolis"),
    lambda: topology.spectral_gap(nx.empty_graph(1)),
    lambda: topology.steady_gain(nx.disjoint_union(nx.path_graph(2), nx.path_graph(2))),
    lambda: topology.steady_gain(nx.DiGraph([(0, 1), (2, 1)])),
])  # fmt: skip
def test_what_has_no_matrix_or_no_steady_state_is_refused(call):
    with pytest.raises(InputError) as caught:
        call()
    assert "\n" not in str(caught.value)


def test_isolated_and_federated_learning_use_the_nodes_only(small):
    for averaging in (gossip.Isolated(), gossip.Federated()):
        assert len(simulate(small, nx.empty_graph(["a", "b"]), averaging=averaging, ticks=2).nodes) == 2
        with pytest.raises(InputError, match="graph: has no nodes"):
            simulate(small, nx.Graph(), averaging=averaging)


# What the files below hold, in the many ways in which people write it.
PATH = (["a", "b", "c"], [("a", "b", None), ("b", "c", None)])
NUMBERS = ([1, 2, 3], [(1, 2, None), (2, 3, None)])
NAMES = (["Ann Lee", "Bob", "Ray, C"], [("Ann Lee", "Bob", None), ("Bob", "Ray, C", None)])
WEIGHTED = (["a", "b", "c"], [("a", "b", 0.5), ("b", "c", 2.0)])
READ = {
    "blanks": ("a b\nb c", PATH), "runs of blanks": ("  a   b \n b c\n", PATH), "tabs": ("a\tb\nb\tc\n", PATH),
    "tabs and blanks": ("a\tb\nb c\n", PATH), "commas": ("a,b\nb,c\n", PATH),
    "commas and blanks": ("a, b\nb, c\n", PATH),
    "semicolons": ("a;b\nb;c\n", PATH), "Windows": ("a,b\r\nb,c\r\n", PATH), "old Mac": ("a,b\rb,c\r", PATH),
    "comments": ("% KONECT\n# SNAP\na b\n\n#\nb c\n", PATH), "both directions": ("a b\nb a\nb c\nc b\n", PATH),
    "one line twice": ("a b\nb c\na b\n", PATH), "quotes": ('"a","b"\n"b","c"\n', PATH),
    "attributes of networkx": ("a b {}\nb c {}\n", PATH), "a text in the third field": ("a b friend\nb c foe\n", PATH),
    "headings": ("source,target\na,b\nb,c\n", PATH), "headings of Gephi": ("Id;Source;Target\n1;a;b\n2;b;c\n", PATH),
    "capital headings": ("From\tTo\na\tb\nb\tc\n", PATH),
    "headings of SNAP": ("node_1,node_2\n1,2\n2,3\n", NUMBERS),
    "headings above numbers": ("x y\n1 2\n2 3\n", NUMBERS), "numbers": ("2 3\n1 2\n", NUMBERS),
    "quoted names": ('"Ann Lee",Bob\nBob,"Ray, C"\n', NAMES), "names with blanks": ("Ann Lee;Bob\nBob;Ray, C\n", NAMES),
    "names in tabs": ("Ann Lee\tBob\nBob\tRay, C\n", NAMES),
    "quotes and blanks": ('"Ann Lee" Bob\nBob "Ray, C"\n', NAMES),
    "weights": ("a b 0.5\nb c 2\n", WEIGHTED), "decimal commas": ("a;b;0,5\nb;c;2\n", WEIGHTED),
    "headed weights": ("source,target,time,weight\na,b,7,.5\nb,c,8,2e0\n", WEIGHTED),
    "headings that the third field tells": ("who,whom,weight\na,b,0.5\nb,c,2\n", WEIGHTED),
    "weights of networkx": ("a b {'weight': 0.5}\nb c {'weight': 2.0}\n", WEIGHTED),
    "weights and times": ("a b 0.5 1082040961\nb c 2 1082040999\n", WEIGHTED),
    "a node without edges": ("a,b\nb,c\nd,\n", (["a", "b", "c", "d"], PATH[1])),
    "leading zeros are names": ("007 7\n7 8\n", (["007", "7", "8"], [("007", "7", None), ("7", "8", None)])),
    "a loop": ("1 1\n1 2\n", ([1, 2], [(1, 1, None), (1, 2, None)])),
    "one edge": ("Bob Ann\n", (["Ann", "Bob"], [("Ann", "Bob", None)])),
}  # fmt: skip


def content(graph):
    return list(graph), [(*sorted(edge[:2]), edge[2]) for edge in sorted(graph.edges(data="weight"), key=str)]


@pytest.mark.parametrize("how", ["plain", "gzip", "marked", "UTF-16"])
@pytest.mark.parametrize("name", READ)
def test_edge_files(tmp_path, name, how):
    text, (nodes, edges) = READ[name]
    ways = {"plain": text.encode(), "gzip": gzip.compress(text.encode()), "marked": codecs.BOM_UTF8 + text.encode(),
            "UTF-16": text.encode("utf-16")}  # fmt: skip
    file = tmp_path / ("edges.csv.gz" if how == "gzip" else "edges.csv")
    file.write_bytes(ways[how])
    read = topology.from_file(file)
    assert list(read) == nodes
    assert sorted(map(repr, content(read)[1])) == sorted(map(repr, edges))


MATRIX = np.array([[0, 1, 0, 0], [1, 0, 2, 0], [0, 2, 0, 0], [0, 0, 0, 0.0]])


@pytest.mark.parametrize("form", ["pattern", "symmetric", "general", "array", "CRLF"])
def test_matrix_market_files(tmp_path, form):
    file, sparse = tmp_path / "net.mtx", scipy.sparse.coo_array(MATRIX)
    field = "pattern" if form == "pattern" else None
    scipy.io.mmwrite(file, MATRIX if form == "array" else sparse, field=field,
                     symmetry="symmetric" if form == "symmetric" else "general")  # fmt: skip
    data = file.read_bytes()
    for written in (data.replace(b"\n", b"\r\n") if form == "CRLF" else data, gzip.compress(data)):
        (tmp_path / "edges").write_bytes(written)  # known by its first line
        for name in (file, tmp_path / "edges"):
            read = topology.from_file(name)
            assert list(read) == [1, 2, 3, 4], "isolated rows too"
            weights = (None, None) if form == "pattern" else (1.0, 2.0)
            assert list(read.edges(data="weight")) == [(1, 2, weights[0]), (2, 3, weights[1])]


def test_the_direction_and_the_weight_of_a_file_are_the_callers_word(tmp_path):
    file = tmp_path / "net.mtx"
    scipy.io.mmwrite(file, scipy.sparse.coo_array(np.array([[0, 1, 0], [0, 0, 2], [3, 0, 0]])))
    assert set(topology.from_file(file, directed=True).edges(data="weight")) == {(1, 2, 1), (2, 3, 2), (3, 1, 3)}
    assert topology.from_file(file).number_of_edges() == 3
    file = tmp_path / "times"
    file.write_text("a b 3\nb a 4\n")
    assert set(topology.from_file(file, directed=True).edges(data="weight")) == {("a", "b", 3), ("b", "a", 4)}
    assert list(topology.from_file(file, weights=False).edges(data=True)) == [("a", "b", {})]


BAD = {
    "nothing": ("", "holds no edges"),
    "comments only": ("# a b\n", "holds no edges"),
    "headings only": ("source,target\n", "holds no edges"),
    "nodes only": ("a,\nb,\n", "holds no edges"),
    "one field": ("a b\nb\n", "line 2: needs two nodes"),
    "no first node": ("a,b\n,b\n", "line 2: needs two nodes"),
    "half an edge": ("a,b\nb,\n", "line 2: its second node is missing"),
    "ragged neighbours": ("0 1 2 3\n1 4 5\n2 6\n", "line 3: weight='' is not a number"),
    "weight in words": ("source,target,weight\na,b,much\n", "line 2: weight='much' is not a number"),
    "two weights of an edge": ("a b 1\nb a 2\n", "line 2: the edge 'b', 'a' was there before with another weight"),
    "two separators": ("1 2 0,5\n2 3 1,5\n", "line 1: '1 2 0' is several numbers"),
    "headings or an edge": ("person,friend\na,b\nb,c\n", "line 1: 'person' and 'friend' occur nowhere else"),
    "dense matrix": ("0 1 0 1\n1 0 1 0\n0 1 0 1\n1 0 1 0\n", "is an adjacency matrix"),
    "dense matrix with names": (",a,b,c\na,0,1,0\nb,1,0,1\nc,0,1,0\n", "is an adjacency matrix"),
    "JSON": ('{"nodes": [1]}', "is JSON or XML"),
    "XML": ("<graphml>\n<graph id='G'/>\n", "is JSON or XML"),
    "no text": (b"\xff\xd8\xff\xe0", "is not text in UTF-8"),
    "half a gzip file": (gzip.compress(b"a b\n")[:-9], "Compressed file ended"),
    "no gzip file": (b"\x1f\x8bxxxxxxxx", r"edges\.\w+': .+"),
    "open quote": ('"a b\nb c\n', "line 1: needs two nodes"),
    "Matrix Market without its first line.mtx": ("4 4 1\n1 2\n", "Missing banner"),
    "rectangular.mtx": ("%%MatrixMarket matrix coordinate real general\n3 2 1\n1 2 1\n", "3 rows and 2 columns is no"),
    "short.mtx": ("%%MatrixMarket matrix coordinate real general\n3 3 2\n1 2 1\n", "Truncated file"),
    "one-sided.mtx": ("%%MatrixMarket matrix coordinate real general\n2 2 2\n1 2 1\n2 1 3\n", "with another weight"),
    "empty.mtx": ("%%MatrixMarket matrix coordinate real general\n3 3 0\n", "holds no edges"),
}


@pytest.mark.parametrize("name", BAD)
def test_files_that_are_no_graph_are_refused_in_one_line(tmp_path, name):
    text, message = BAD[name]
    file = tmp_path / ("edges.mtx" if name.endswith("mtx") else "edges.txt")
    file.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(InputError, match=f"path='.*{message}") as caught:
        topology.from_file(file)
    assert "\n" not in str(caught.value)


def test_a_folder_is_no_edge_file(tmp_path):
    with pytest.raises(InputError, match="no such edge file"):
        topology.from_file(tmp_path)


names = st.text(st.characters(codec="utf-8", exclude_categories=["C", "Z"]), min_size=1, max_size=4)


@given(st.lists(st.tuples(names, names, st.floats(0.1, 9)), min_size=1, max_size=6), st.booleans(), st.booleans())
def test_what_is_written_comes_back(tmp_path_factory, edges, weighted, directed):
    graph = nx.DiGraph() if directed else nx.Graph()
    graph.add_edges_from((f"{a} n", f"{b} n", {"weight": w} if weighted else {}) for a, b, w in edges)
    graph.add_node("al,one")
    file = tmp_path_factory.mktemp("graph") / "edges.csv"
    topology.to_csv(graph, file)
    read = topology.from_file(file, directed=directed)
    assert set(read) == set(graph)
    assert nx.utils.edges_equal(read.edges(data=True), graph.edges(data=True), directed=directed)


def test_the_karate_club_comes_back_from_a_file(tmp_path):
    club = topology.karate_club()
    topology.to_csv(club, tmp_path / "club.csv")
    read = topology.from_file(tmp_path / "club.csv")
    assert list(read) == list(range(34)) and all(set(read[node]) == set(club[node]) for node in club)
    assert (len(club), club.number_of_edges()) == (34, 78)


def test_the_config_of_an_edge_file_holds_names_weights_and_nodes_without_edges(tmp_path):
    (tmp_path / "one.csv").write_text("source,target,weight\nb,a,2\na,c,1\nd,\n")
    (tmp_path / "other.csv").write_text("source,target,weight\nc,a,1\nd,\na,b,2\n")
    one, other = (config_of(tmp_path / f"{name}.csv") for name in ("one", "other"))
    assert one == other, "the order of the lines does not matter"
    with pytest.warns(UserWarning, match="2 components"):
        graph = one.make(0)
    assert list(graph) == ["a", "b", "c", "d"]
    assert list(graph.edges(data="weight")) == [("a", "b", 2), ("a", "c", 1)]
