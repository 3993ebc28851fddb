"""What nodes received since they averaged last, as running sums: memory for one model a node, not eight."""

import torch


def write_rows(matrix, nodes, rows):
    """``matrix[nodes] = rows``, for long rows (k, D) or a number.

    On a CPU row by row, each a plain copy: torch writes indexed rows number by number, which is slower
    (``make bench ONLY=averaging``). A GPU gets one kernel.
    """
    if matrix.is_cuda:
        matrix[nodes] = rows
        return
    for index, node in enumerate(nodes.tolist()):
        matrix[node] = rows[index] if torch.is_tensor(rows) else rows


class Mailbox:
    """Sums of received rows of all N nodes.

    Parameters
    ----------
    num_nodes, size, layers : int
        Nodes N, numbers D in a row, and layers whose variance is summed beside.

    Attributes
    ----------
    total : tensor (N, D)
        Weighted sum of the received rows; what a message does not hold counts as 0.
    held : tensor (N, D) or None
        Sum of the weights of the messages that held each number; None as long as every message was whole.
    weight : tensor (N,)
        Sum of the weights.
    variance : tensor (N, layers)
        Weighted sum of the received variances.
    """

    def __init__(self, num_nodes, size, layers, *, device, dtype):
        like = {"device": device, "dtype": dtype}
        self.total = torch.zeros(num_nodes, size, **like)
        self.held = None
        self.weight = torch.zeros(num_nodes, **like)
        self.variance = torch.zeros(num_nodes, layers, **like)

    def put(self, messages, rows, variance, mask=None):
        """Add rows (k, D) and variances (k, layers) of senders.

        ``messages`` are the sender's position in ``rows``, the receiver and the weight of each (e,), on the CPU;
        ``mask`` (k, D) says which numbers they hold, default all.

        As a product with the small matrix of weights (receivers, k): that reads each sender's row once for
        all of its receivers. With few senders at a time its size does not grow with the network.
        """
        position, receiver, weight = messages
        receivers, index = receiver.unique(return_inverse=True)  # on the CPU, where messages live: no synchronisation
        matrix = torch.zeros(len(receivers), len(rows), dtype=weight.dtype)
        matrix.index_put_((index, position), weight, accumulate=True)
        matrix, receivers = matrix.to(rows), receivers.to(rows.device)
        if mask is not None and self.held is None:
            self.held = self.weight[:, None].repeat(1, self.total.shape[1])  # what came before was whole
        if self.held is not None:
            held = torch.ones_like(rows) if mask is None else mask.to(rows.dtype)
            rows = rows * held
            self.held.index_add_(0, receivers, matrix @ held)
        self.weight.index_add_(0, receivers, matrix.sum(1))
        self.variance.index_add_(0, receivers, matrix @ variance)
        self.total.index_add_(0, receivers, matrix @ rows)

    def take(self, nodes, own, kept=None):
        """Empty the mailboxes of nodes (k,); means of rows (k, D) and of variances (k, layers).

        A number that some messages did not hold is completed with the own one, from ``own`` (k, D). The own row
        counts in the mean of rows with weight ``kept`` (k, 1), where given, beside the weights of the messages.
        """
        weight = self.weight[nodes, None]
        mean = self.total.index_select(0, nodes).mul_(1 / weight)
        if self.held is not None:
            mean.addcmul_(own, 1 - self.held.index_select(0, nodes).mul_(1 / weight))
            write_rows(self.held, nodes, 0)
        if kept is not None:
            mean.lerp_(own, kept / (kept + weight))
        variance = self.variance[nodes] / weight
        write_rows(self.total, nodes, 0)
        self.variance[nodes] = 0
        self.weight[nodes] = 0
        return mean, variance

    def state(self):
        """The sums, as a dict of tensors."""
        sums = {"total": self.total, "weight": self.weight, "variance": self.variance}
        return sums if self.held is None else sums | {"held": self.held}

    def load(self, state):
        """Restore the sums of a state."""
        for name in ("total", "weight", "variance"):
            getattr(self, name).copy_(state[name])
        self.held = state["held"].to(self.total) if "held" in state else None
