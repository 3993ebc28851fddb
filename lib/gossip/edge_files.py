"""Graphs in files as people have them: edge lists of many forms, and Matrix Market files."""

import codecs
import csv
import gzip
import io
import re
import zlib
from pathlib import Path

import networkx as nx
from scipy.io import mminfo, mmread
from scipy.sparse import coo_array

from lib.errors import InputError

_HEADINGS = (("source", "target"), ("from", "to"), ("src", "dst"), ("sender", "receiver"), ("node1", "node2"),
             ("id1", "id2"))  # fmt: skip
_NUMBER = re.compile(r"[-+]?(\d+([.,]\d*)?|[.,]\d+)([eE][-+]?\d+)?")


def from_file(path, *, directed=False, weights=True):
    """Read a graph from an edge list or a Matrix Market file, such as ca-netscience or facebook.

    An edge list has an edge a line: its two nodes, separated by a tab, semicolon, comma or blanks; a name that holds
    the separator stands in double quotes. Lines that start with % or # are comments. The first line counts as headings
    where it says "source,target", "from;to" or the like, where all other nodes are numbers, or where it alone has no
    number in its third field. A line "name," is a node without edges. A file ``.mtx`` is an adjacency matrix: entry
    (i, j) is the edge from i to j, and its nodes are 1, 2, ... Files may be compressed by gzip, and may start with a
    byte-order mark. Self loops stay (:func:`lib.gossip.topology.mixing_matrix` says what they mean).

    Parameters
    ----------
    path : path
    directed : bool
        Whether an edge goes from its first node to its second only.
    weights : bool
        Whether the column headed "weight", or without headings the third one where it holds numbers, is the weight of
        an edge. Give False where it is something else, such as a time. Other columns are ignored.

    Returns
    -------
    networkx.Graph or networkx.DiGraph
        Its nodes are the names in the file, sorted; integers where all of them are.

    Raises
    ------
    InputError
        If there is no such file, it is not text, a line is not an edge, an edge has two weights, a weight is not a
        number, the first line may be headings or an edge, or the file looks like a dense matrix.

    Examples
    --------
    >>> import pathlib, tempfile
    >>> file = pathlib.Path(tempfile.mkdtemp(), "friends.csv")
    >>> _ = file.write_text('source,target,weight\\n"Lee, Ann",Bob,2\\nBob,Cy Young,1\\n')
    >>> list(from_file(file).edges(data="weight"))
    [('Bob', 'Lee, Ann', 2.0), ('Bob', 'Cy Young', 1.0)]
    """
    path = Path(path)
    if not path.is_file():
        raise InputError(f"path='{path}': no such edge file")
    try:
        data = path.read_bytes()
        data = gzip.decompress(data) if data.startswith(b"\x1f\x8b") else data
        data = data.removeprefix(codecs.BOM_UTF8)
        is_matrix = ".mtx" in path.suffixes or data.startswith(b"%%MatrixMarket")
        return _graph(*(_of_matrix(data) if is_matrix else _of_lines(_text(data), weights)), directed, weights)
    except (OSError, EOFError, zlib.error, csv.Error, ValueError) as error:
        raise InputError(f"path='{path}': {str(error).splitlines()[0]}") from None


def to_csv(graph, path):
    """Write a graph, with weights and nodes without edges, as an edge list that :func:`from_file` reads."""
    columns = 2 + any("weight" in data for _, _, data in graph.edges(data=True))
    with open(path, "w", newline="", encoding="utf-8") as file:
        rows = csv.writer(file, quoting=csv.QUOTE_NONNUMERIC)  # a quoted name may start like a comment
        rows.writerow(["source", "target", "weight"][:columns])
        rows.writerows(edge[:columns] for edge in graph.edges(data="weight"))
        rows.writerows([node, ""] for node in nx.isolates(graph))


def _graph(nodes, edges, directed, weights):
    """The graph of nodes, which may be without edges, and of edges (place in the file, node, node, weight or None)."""
    names = {*nodes, *(name for edge in edges for name in edge[1:3])}
    kind = int if all(re.fullmatch("-?[1-9][0-9]*|0", str(name)) for name in names) else str
    graph = nx.DiGraph() if directed else nx.Graph()
    graph.add_nodes_from(sorted(map(kind, names)))
    for place, a, b, weight in edges:
        a, b = kind(a), kind(b)
        own = {"weight": weight} if weights and weight is not None else {}
        if graph.has_edge(a, b) and graph[a][b] != own:
            raise ValueError(f"{place}: the edge {a!r}, {b!r} was there before with another weight")
        graph.add_edge(a, b, **own)
    if not edges:
        raise ValueError("holds no edges")
    return graph


def _of_matrix(data):
    matrix = coo_array(mmread(io.BytesIO(data)))
    rows, columns = matrix.shape
    if rows != columns:
        raise ValueError(f"a matrix of {rows} rows and {columns} columns is no graph")
    has_values = mminfo(io.BytesIO(data))[4] != "pattern"
    matrix.sum_duplicates()
    matrix.eliminate_zeros()
    entries = zip(*(part.tolist() for part in (*matrix.coords, matrix.data)), strict=True)
    edges = [(f"entry {i + 1}, {j + 1}", i + 1, j + 1, value if has_values else None) for i, j, value in entries]
    return range(1, rows + 1), edges


def _text(data):
    wide = data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
    try:
        return data.decode("utf-16" if wide else "utf-8")
    except UnicodeDecodeError:
        raise ValueError("is not text in UTF-8") from None


def _of_lines(text, weights):
    numbered = enumerate((line.strip(" ") for line in text.splitlines()), 1)
    lines = {f"line {number}": line for number, line in numbered if line.strip() and line[0] not in "%#"}
    if text.lstrip()[:1] in ("{", "[", "<"):
        raise ValueError("is JSON or XML, not an edge a line; networkx has readers for many formats")
    if lines and all(re.fullmatch(r"\S+ \S+ \{.*\}", line) for line in lines.values()):  # by networkx.write_edgelist
        read = nx.parse_edgelist(lines.values(), create_using=nx.MultiDiGraph)
        return [], [(f"edge {number}", *edge) for number, edge in enumerate(read.edges(data="weight"), 1)]
    rows = dict(zip(lines, _fields(lines.values()), strict=True))
    _refuse_dense_matrix(list(rows.values()))
    start, a, b, weight = _columns(rows)
    alone, edges = {}, []
    for place, row in list(rows.items())[start:]:
        if len(row) <= max(a, b) or not row[a]:
            raise ValueError(f"{place}: needs two nodes, with a tab, semicolon, comma or blank between them")
        if " " in row[a] and all(map(_is_number, row[a].split())):
            raise ValueError(f"{place}: {row[a]!r} is several numbers: use one separator only, and points in numbers")
        if not row[b]:
            alone[row[a]] = place
        else:
            edges.append((place, row[a], row[b], _weight(place, row, weight) if weights else None))
    lonely = alone.keys() & {name for edge in edges for name in edge[1:3]}
    if lonely:
        raise ValueError(f"{alone[min(lonely)]}: its second node is missing")
    return alone, edges


def _fields(lines):
    """The fields of each line, at the separator that most lines have outside quotes."""
    bare = [re.sub('"[^"]*"', "", line) for line in lines]
    separator = max("\t;, ", key=lambda each: sum(each in line for line in bare))
    if separator == "\t" and not all("\t" in line for line in bare):
        separator = " "
    for line in lines:
        line = line.replace("\t", " ") if separator == " " else line
        row = [field.strip() for field in next(csv.reader([line], delimiter=separator, skipinitialspace=True))]
        yield [field for field in row if field] if separator == " " else row


def _refuse_dense_matrix(rows):
    numbers = [[_is_number(field) for field in row] for row in rows]
    square = len(rows) > 3 and all(len(row) == len(rows) for row in rows)
    if square and all(map(all, numbers)):
        raise ValueError("is an adjacency matrix, not an edge a line: networkx.from_numpy_array takes that")
    if square and rows[0][1:] == [row[0] for row in rows[1:]]:
        raise ValueError("is an adjacency matrix, not an edge a line: networkx.from_pandas_adjacency takes that")


def _columns(rows):
    """How many lines of headings there are, 0 or 1, and the columns of both nodes and of the weight (None without)."""
    (place, head), *rest = rows.items() or [("line 1", [])]
    rest = [row for _, row in rest]
    words = [re.sub("[^a-z0-9]", "", word.casefold()) for word in head]
    weight = words.index("weight") if "weight" in words else None
    pair = next((pair for pair in _HEADINGS if set(pair) <= set(words)), None)
    a, b = map(words.index, pair) if pair else (0, 1)
    used = {row[column] for row in rest for column in (a, b) if column < len(row)}
    if (rest or pair) and len(head) > 1 and not _is_number(head[a]) and used.isdisjoint({head[a], head[b]}):
        third = len(head) > 2 and not _is_number(head[2]) and all(len(row) > 2 and _is_number(row[2]) for row in rest)
        if pair or third or all(map(_is_number, used - {""})):
            return 1, a, b, weight
        raise ValueError(
            f"{place}: {head[0]!r} and {head[1]!r} occur nowhere else: start the line with # if it is headings, "
            "or put a line 'source,target' above if it is an edge"
        )
    return 0, 0, 1, 2 if any(len(row) > 2 and _is_number(row[2]) for row in rows.values()) else None


def _is_number(field):
    return bool(_NUMBER.fullmatch(field))


def _weight(place, row, column):
    if column is None:
        return None
    field = row[column] if column < len(row) else ""
    if not _is_number(field):
        raise ValueError(f"{place}: weight={field!r} is not a number (weights=False leaves that column out)")
    return float(field.replace(",", "."))
