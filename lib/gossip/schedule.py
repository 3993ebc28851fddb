"""When nodes train, who is online, who sends to whom: a few integers a node, the same for every learning system.

All of this lives on the CPU, so that a simulation never waits for the device that holds the models. Every draw comes
from a generator named by its purpose and the tick, so that it does not depend on what was drawn before.
"""

import torch

from lib import seeds
from lib.errors import InputError
from lib.gossip import topology

NEVER = 2**62
POLICIES = ("constant", "inv")


class Schedule:
    """The bookkeeping of a simulation.

    Parameters
    ----------
    graph : networkx.Graph, networkx.DiGraph or lib.gossip.topology.Rewired
    names : sequence
        Of the nodes, in their order.
    interval : (int, int)
        Smallest and largest number of ticks from one training of a node to its next.
    settings : lib.gossip.Settings
    seed : int

    Attributes
    ----------
    next : tensor (N,)
        The tick in which each node trains next; NEVER for nodes that sleep.
    trained : tensor (N,), bool
        Who has trained since the last averaging of a server.
    received, sent, steps : tensor (N,)
        Models that each node holds, messages that it has sent, and SGD steps that it has made.
    """

    def __init__(self, graph, names, interval, settings, seed):
        self.graph, self.names, self.interval, self.settings, self.seed = graph, names, interval, settings, seed
        self.next, self.received, self.sent, self.steps = torch.zeros(4, len(names), dtype=torch.int64)
        self.trained = torch.zeros(len(names), dtype=torch.bool)
        self._links = None, None

    def online(self, tick):
        """Which nodes (N,) are online in this tick."""
        if self.settings.absent == 0:
            return torch.ones(len(self.next), dtype=torch.bool)
        generator = seeds.generator(self.seed, "absence", tick // self.settings.absence)
        return torch.rand(len(self.next), generator=generator) >= self.settings.absent

    def due(self, tick):
        """Nodes (k,) whose time to train has come and that are online."""
        return ((self.next <= tick) & self.online(tick)).nonzero()[:, 0]

    def nodes(self, chosen):
        """What a learning system chose as nodes (k,), checked: a tensor or a list."""
        nodes = torch.as_tensor(chosen)
        if nodes.numel() and (nodes.dtype not in (torch.int64, torch.int32) or nodes.ndim != 1):
            raise InputError(f"nodes: needs a list of them, got {chosen}")
        if len(nodes.unique()) < len(nodes) or ((nodes < 0) | (nodes >= len(self.next))).any():
            raise InputError(f"nodes: needs each once and all in 0..{len(self.next) - 1}, got {nodes.tolist()}")
        return nodes.long()

    def plan(self, nodes, tick, purpose="interval"):
        """Draw when nodes (k,) train next."""
        low, high = self.interval
        generator = seeds.generator(self.seed, purpose, tick)
        self.next[nodes] = tick + torch.randint(low, high + 1, (len(nodes),), generator=generator)

    def learning_rates(self, nodes):
        """Learning rate (k,) of the next SGD step of nodes (k,)."""
        rates = torch.full((len(nodes),), self.settings.lr, dtype=torch.float64)
        if self.settings.lr_policy == "inv":  # the solver of Caffe, with its gamma of 1e-4 and power of .75
            rates *= (1 + 1e-4 * self.steps[nodes]) ** -0.75
        return rates

    def links(self, tick):
        """The :class:`Links` of the tick's graph."""
        rewired = isinstance(self.graph, topology.Rewired)
        period = tick // self.graph.every if rewired else 0
        if self._links[0] != period:
            graph = topology.check(self.graph.at(tick, self.names) if rewired else self.graph)
            self._links = period, Links(graph, self.settings.mixing, self.names)
        return self._links[1]

    def messages(self, tick, senders):
        """Let nodes (k,) send to their neighbours: position in ``senders``, receiver, weight of what arrives."""
        links = self.links(tick)
        position, receiver, weight = links.of(senders)
        arrives = self.online(tick)[receiver]
        if self.settings.message_loss:  # drawn sender by sender: it does not matter who sends together
            draws = [
                torch.rand(int(links.outdegree[sender]), generator=seeds.generator(self.seed, "loss", tick, sender))
                for sender in senders.tolist()
            ]
            arrives &= torch.cat(draws) >= self.settings.message_loss
        position, receiver, weight = position[arrives], receiver[arrives], weight[arrives]
        self.sent[senders] += 1
        self.received.index_add_(0, receiver, torch.ones_like(receiver))
        return position, receiver, weight

    def ready(self, tick):
        """Nodes (k,) that are online and hold at least R times as many models as senders (R: ``min_received``)."""
        enough = (self.settings.min_received * self.links(tick).indegree).ceil().long().clamp_(min=1)
        return ((self.received >= enough) & self.online(tick)).nonzero()[:, 0]

    def state(self):
        """What changes, as a dict of tensors."""
        return {name: getattr(self, name) for name in ("next", "trained", "received", "sent", "steps")}

    def load(self, state):
        """Restore a state."""
        for name, value in state.items():
            setattr(self, name, value)


class Links:
    """The links of a graph, by sender.

    Parameters
    ----------
    graph : networkx.Graph or DiGraph
    mixing : {"uniform", "metropolis"}
    nodes : sequence, optional
        The order in which the nodes are numbered, as of :func:`lib.gossip.topology.mixing_matrix`.

    Attributes
    ----------
    receiver, weight : tensor (E,)
        Of each link; those of sender i are ``first[i]`` to ``first[i] + outdegree[i] - 1``.
    kept : tensor (N,) or None
        Weight of the own model in the mean of the received ones, where the mixing matrix has a diagonal (Metropolis,
        self loops): no message, so it cannot be lost, and R does not count it.
    """

    def __init__(self, graph, mixing, nodes=None):
        matrix = topology.mixing_matrix(graph, mixing, nodes=nodes)
        (receiver, sender), weight, num_nodes = matrix.indices(), matrix.values(), len(graph)
        own = receiver == sender
        order = torch.argsort(sender[~own], stable=True)
        self.receiver, self.weight = receiver[~own][order], weight[~own][order]
        self.kept = torch.zeros(num_nodes, dtype=weight.dtype).index_put_((receiver[own],), weight[own])
        self.kept = self.kept if own.any() else None
        self.outdegree = torch.bincount(sender[~own], minlength=num_nodes)
        self.indegree = torch.bincount(receiver[~own], minlength=num_nodes)
        self.first = self.outdegree.cumsum(0) - self.outdegree

    def of(self, senders):
        """Position in ``senders`` (k,), receiver and weight of each message they send."""
        degree = self.outdegree[senders]
        position = torch.repeat_interleave(torch.arange(len(senders)), degree)
        offset = torch.arange(len(position)) - (degree.cumsum(0) - degree)[position]
        link = self.first[senders][position] + offset
        return position, self.receiver[link], self.weight[link]
