"""Who trains when, who sends to whom, who averages: where the learning systems differ in the tick loop.

All of this is bookkeeping with a few integers per node; it lives on the CPU, so that the simulation never
waits for the device that holds the models. Every draw comes from a generator named by the tick.
"""

import torch

from lib import seeds
from lib.errors import InputError
from lib.gossip import topology
from lib.gossip.averaging import Average, Federated, Isolated, TransferLike


def exchange_of(averaging, graph, names, nodes, settings, seed):
    """The exchange of a learning system between nodes of these names."""
    kinds = ((Federated, FederatedExchange), (Isolated, IsolatedExchange), (Average, GossipExchange))
    for system, kind in kinds:
        if isinstance(averaging, system):
            return kind(averaging, graph, names, nodes, settings, seed)
    raise InputError(f"averaging: not a learning system: {averaging!r}")


class IsolatedExchange:
    """Every node trains at its own ticks; nobody sends."""

    interval = (10, 10)
    local_steps = 1

    def __init__(self, averaging, graph, names, nodes, settings, seed):
        self.averaging, self.nodes, self.settings, self.seed = averaging, nodes, settings, seed
        self.next = torch.zeros(len(names), dtype=torch.int64)
        self.low, self.high = settings.interval or self.interval

    def due(self, tick):
        """Nodes (k,) that train in this tick; draws when they train next."""
        due = ((self.next <= tick) & self.present(tick)).nonzero()[:, 0]
        generator = seeds.generator(self.seed, "interval", tick)
        self.next[due] = tick + torch.randint(self.low, self.high + 1, (len(due),), generator=generator)
        return due

    def present(self, tick):
        """Which nodes (N,) are not away in this tick."""
        if self.settings.absent == 0:
            return torch.ones(len(self.next), dtype=torch.bool)
        generator = seeds.generator(self.seed, "absence", tick // self.settings.absence)
        return torch.rand(len(self.next), generator=generator) >= self.settings.absent

    def send(self, tick, senders, change):
        """Nothing is sent."""

    def average(self, tick):
        """Nothing is averaged."""

    def state(self):
        """What changes, as a dict of tensors."""
        return {"next": self.next}

    def load(self, state):
        """Take over a state."""
        for name, value in state.items():
            setattr(self, name, value)


class FederatedExchange(IsolatedExchange):
    """Clients report to a server, which averages 5 ticks after each round of training."""

    def __init__(self, averaging, graph, names, nodes, settings, seed):
        super().__init__(averaging, graph, names, nodes, settings, seed)
        self.local_steps = averaging.local_steps
        self.round = self.low

    def due(self, tick):
        """The clients of the round that starts in this tick."""
        return self._clients(tick // self.round, tick) if tick % self.round == 0 else torch.zeros(0).long()

    def average(self, tick):
        """The server's step, in the middle of a round."""
        if tick % self.round == self.round // 2:
            reported = self._clients(tick // self.round, tick - self.round // 2)
            if len(reported):
                self.nodes.replace(reported.to(self.nodes.weights.device), corrected=self.averaging.corrected)

    def _clients(self, number, tick):
        present = self.present(tick).nonzero()[:, 0]
        take = max(1, round(self.averaging.fraction * len(self.next)))
        order = torch.randperm(len(present), generator=seeds.generator(self.seed, "clients", number))
        return present[order[:take]].sort().values


class GossipExchange(IsolatedExchange):
    """Nodes send to their neighbours after training and average what they received."""

    interval = (8, 12)

    def __init__(self, averaging, graph, names, nodes, settings, seed):
        super().__init__(averaging, graph, names, nodes, settings, seed)
        self.graph, self.names, count = graph, names, len(names)
        self.count = torch.zeros(count, dtype=torch.int64)
        self.sent = torch.zeros(count, dtype=torch.int64)
        self.asleep = torch.zeros(count, dtype=torch.bool)
        if isinstance(averaging, TransferLike):
            if averaging.source >= count:
                raise InputError(f"source={averaging.source}: the graph has {count} nodes")
            self.asleep[:] = True
            self.asleep[averaging.source] = False
        self.wired = None

    def present(self, tick):
        """Which nodes (N,) are not away, nor still without a model."""
        return super().present(tick) & ~self.asleep

    def send(self, tick, senders, change):
        """Send the models of nodes (k,) that just trained, ``change`` (k, D) being what training added."""
        if tick < getattr(self.averaging, "alone", 0):
            return
        self._wire(tick)
        position, receiver, share = self.links.of(senders)
        keep = super().present(tick)[receiver]
        if self.settings.message_loss:
            keep &= self._not_lost(tick, senders)
        position, receiver, share = position[keep], receiver[keep], share[keep]
        mask = self.averaging.message.mask(
            change, self.sent[senders], self.nodes.layout,
            seeds=[seeds.derive(self.seed, "message", tick, sender) for sender in senders.tolist()],
        )  # fmt: skip
        self.nodes.send(senders.to(change.device), (position, receiver), share, mask)
        self.sent[senders] += 1
        self.count.index_add_(0, receiver, torch.ones_like(receiver))

    def _not_lost(self, tick, senders):
        """Which of the messages arrive; drawn sender by sender, so that it does not matter who sends together."""
        draws = [
            torch.rand(int(self.links.outdegree[sender]), generator=seeds.generator(self.seed, "loss", tick, sender))
            for sender in senders.tolist()
        ]
        return torch.cat(draws) >= self.settings.message_loss

    def average(self, tick):
        """Let every node with enough models average."""
        self._wire(tick)
        least = torch.where(self.asleep, 1, self.least)
        ready = ((self.count >= least) & super().present(tick)).nonzero()[:, 0]
        if len(ready) == 0:
            return
        beta = torch.where(self.asleep[ready], 0.0, self.averaging.beta).double()[:, None]
        weights = self.nodes.weights
        kept = None if self.links.kept is None else self.links.kept[ready, None].to(weights)
        self.nodes.average(ready.to(weights.device), self.averaging, beta.to(weights), kept)
        self._wake(ready[self.asleep[ready]], tick)
        self.count[ready] = 0

    def _wake(self, woken, tick):
        generator = seeds.generator(self.seed, "waking", tick)
        self.next[woken] = tick + torch.randint(self.low, self.high + 1, (len(woken),), generator=generator)
        self.asleep[woken] = False

    def _wire(self, tick):
        """Look up the links of the tick's graph."""
        rewired = isinstance(self.graph, topology.Rewired)
        period = tick // self.graph.every if rewired else 0
        if self.wired != period:
            graph = topology.check(self.graph.at(tick, self.names) if rewired else self.graph)
            self.links, self.wired = Links(graph, self.settings.mixing, self.names), period
            self.least = (self.settings.min_received * self.links.indegree).ceil().long().clamp_(min=1)

    def state(self):
        """What changes, as a dict of tensors."""
        return super().state() | {"count": self.count, "sent": self.sent, "asleep": self.asleep}


class Links:
    """The links of a graph, by sender.

    Parameters
    ----------
    graph : networkx.Graph or DiGraph
    mixing : {"uniform", "metropolis"}
    nodes : sequence, optional
        The order in which the nodes are numbered, as of :func:`lib.gossip.topology.mixing_matrix`.
    """

    def __init__(self, graph, mixing, nodes=None):
        matrix = topology.mixing_matrix(graph, mixing, nodes=nodes)
        receiver, sender = matrix.indices()
        other = receiver != sender
        order = torch.argsort(sender[other], stable=True)
        self.receiver = receiver[other][order]
        self.share = matrix.values()[other][order]
        n = len(graph)
        # The mean is taken over what came, and over the own model where the matrix keeps a part of it (Metropolis,
        # self loops): no message, so it cannot be lost, and R does not count it.
        kept = torch.zeros(n, dtype=matrix.dtype).index_put_((receiver[~other],), matrix.values()[~other])
        self.kept = kept if (kept > 0).any() else None
        self.outdegree = torch.bincount(sender[other], minlength=n)
        self.indegree = torch.bincount(receiver[other], minlength=n)
        self.first = self.outdegree.cumsum(0) - self.outdegree

    def of(self, senders):
        """Position in ``senders`` (k,), receiver and share of each message they send."""
        degree = self.outdegree[senders]
        position = torch.repeat_interleave(torch.arange(len(senders)), degree)
        offset = torch.arange(len(position)) - (degree.cumsum(0) - degree)[position]
        link = self.first[senders][position] + offset
        return position, self.receiver[link], self.share[link]
