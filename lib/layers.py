"""A model as layers in the order of its data flow, found by tracing: no hand-written layer lists.

LLPF (arXiv 2505.02604) activates layers "following the data flow" (FDF): from the input to the output,
parallel branches in any order, all of them before anything downstream. Here a model is run once on traced
tensors (``make_fx``); the recorded graph of tensor operations says which parameters meet the data where:

* an operation that contracts the data with parameters (convolution, matrix product) opens the next layer,
  one behind the deepest layer that its inputs passed. Branches of the same depth thus share a layer;
* parameters that meet the data in any other way (normalisation, a positional embedding, a class token, a
  layer scale) belong to the layer that made the data they meet.

What cannot be traced falls back to forward hooks: each module that owns parameters, in order of its call.
"""

from typing import NamedTuple

import networkx as nx
import torch
from torch.func import functional_call
from torch.fx.experimental.proxy_tensor import make_fx

from lib import scopes

_aten = torch.ops.aten
CONTRACTIONS = {
    _aten.convolution.default, _aten.mm.default, _aten.addmm.default, _aten.bmm.default,
    _aten.baddbmm.default, _aten.dot.default, _aten.mv.default, _aten.embedding.default,
    _aten.mkldnn_rnn_layer.default, _aten._cudnn_rnn.default, _aten._thnn_fused_lstm_cell.default,
}  # fmt: skip


class _Value(NamedTuple):
    """What an intermediate result depends on: the layer that made it (None without data), parameters not yet
    met by data, and the layers whose results it is made of with no layer in between (sums, concatenations)."""

    depth: int | None
    pending: frozenset
    made_of: frozenset = frozenset()


def data_flow(model, task=None, *, example=None):
    """Group the parameters of a model into layers, from the input to the output.

    Parameters
    ----------
    model : torch.nn.Module
        Any model of one input; it stays as it is.
    task : lib.tasks.Task, optional
        Gives the example input: its first two test images.
    example : tensor, optional
        An example input, instead of a task.

    Returns
    -------
    list of tuple of str
        Parameter names, a tuple for each layer; every parameter is in exactly one. Parameters that the
        output does not depend on are in the last. :func:`graph` has the same and how the layers are joined.

    Notes
    -----
    Paper 1, layer order "follow data flow" (arXiv 2505.02604). That a layer is one depth of the traced
    graph, and which layer a normalisation joins, is our definition.
    """
    parameters = graph(model, task, example=example).nodes(data="parameters")
    return [names for layer, names in parameters if layer > 0]


@scopes.computation()
def graph(model, task=None, *, example=None):
    """The layers of a model and how the data flows between them, for drawing.

    Parameters
    ----------
    model, task, example
        As of :func:`data_flow`.

    Returns
    -------
    networkx.DiGraph
        Nodes 1, 2, ... are the layers of :func:`data_flow`, with their names as ``parameters``; node 0 is the
        input. An edge says that a layer reads what another made, skip connections included.
    """
    example = task.test.x[:2] if example is None else example
    with scopes.evaluation(model):
        try:
            layer_of, edges = _trace(model, example)
        except Exception:  # whatever stops the tracer (control flow on data, custom operators), hooks still work
            layer_of, edges = _order_of_calls(model, example)
    joined = nx.DiGraph()
    joined.add_node(0, parameters=())
    for layer, names in enumerate(_group(model, layer_of), 1):
        joined.add_node(layer, parameters=names)
    joined.add_edges_from(edge for edge in edges if max(edge) < len(joined))
    return joined


def _trace(model, example):
    """Layer number of every parameter that the output depends on and edges between layers, from the graph of
    tensor operations."""
    names, parameters = zip(*((name, p.detach()) for name, p in model.named_parameters()), strict=True)

    def forward(parameters, x):
        return functional_call(model, dict(zip(names, parameters, strict=True)), (x,))

    with torch.no_grad():
        nodes = make_fx(forward)(list(parameters), example).graph.nodes
    *parameter_nodes, data = [node for node in nodes if node.op == "placeholder"]
    values = {node: _Value(None, frozenset([name])) for node, name in zip(parameter_nodes, names, strict=True)}
    values[data] = _Value(0, frozenset(), frozenset([0]))
    layer_of, edges = {}, set()
    for node in nodes:
        if node.op == "call_function":
            values[node] = _meet(node, [values[i] for i in node.all_input_nodes if i in values], layer_of, edges)
    return layer_of, edges


def _meet(node, inputs, layer_of, edges):
    """The value of an operation; parameters that it lets meet the data are entered in ``layer_of``."""
    depths = [value.depth for value in inputs if value.depth is not None]
    pending = frozenset().union(*(value.pending for value in inputs))
    if not depths:
        return _Value(None, pending)
    opens = bool(pending) and node.target in CONTRACTIONS
    depth = max(depths) + opens
    for name in pending:
        layer_of.setdefault(name, depth)
    made_of = frozenset().union(*(value.made_of for value in inputs))
    if opens:
        edges.update((source, depth) for source in made_of)
        made_of = frozenset([depth])
    return _Value(depth, frozenset(), made_of)


def _order_of_calls(model, example):
    """Layer number of every parameter, a layer for each module that owns parameters, as they are called; the
    layers are taken to be a chain."""
    layer_of, handles = {}, []

    def enter(names):
        depth = max(layer_of.values(), default=0) + 1
        layer_of.update((name, depth) for name in names if name not in layer_of)

    for prefix, module in model.named_modules():
        names = [f"{prefix}.{name}".lstrip(".") for name, _ in module.named_parameters(recurse=False)]
        if names:
            handles.append(module.register_forward_pre_hook(lambda *_, names=names: enter(names)))
    try:
        with torch.no_grad():
            model(example)
    finally:
        for handle in handles:
            handle.remove()
    depth = max(layer_of.values(), default=0)
    return layer_of, {(layer, layer + 1) for layer in range(depth)}


def _group(model, layer_of):
    """Parameter names by layer, in the order of the model within one; what nothing reached goes last."""
    last = max(layer_of.values(), default=1)
    layers = {}
    for name, _ in model.named_parameters():
        # What meets the data before the first weight (depth 0) belongs to the first layer.
        layers.setdefault(max(1, layer_of.get(name, last)), []).append(name)
    return [tuple(layers[depth]) for depth in sorted(layers)]
