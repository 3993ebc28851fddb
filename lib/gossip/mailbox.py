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
    for place, node in enumerate(nodes.tolist()):
        matrix[node] = rows[place] if torch.is_tensor(rows) else rows


class Mailbox:
    """Sums of received rows of all N nodes.

    Parameters
    ----------
    count, size, layers : int
        Nodes N, numbers D in a row, and layers whose variance is summed beside.

    Attributes
    ----------
    total : tensor (N, D)
        Share-weighted sum of the received rows; what a message does not hold counts as 0.
    held : tensor (N, D) or None
        Sum of the shares that each weight was held with; None as long as every message was whole.
    shares : tensor (N,)
        Sum of the shares.
    variance : tensor (N, layers)
        Share-weighted sum of the received variances.
    """

    def __init__(self, count, size, layers, *, device, dtype):
        like = {"device": device, "dtype": dtype}
        self.total = torch.zeros(count, size, **like)
        self.held = None
        self.shares = torch.zeros(count, **like)
        self.variance = torch.zeros(count, layers, **like)

    def put(self, edges, rows, shares, *, variance=None, mask=None):
        """Add rows (k, D) of senders along edges (position, receiver) with shares (e,), both on the CPU.

        As a product with the small matrix of shares (receivers, k): that reads each sender's row once for
        all of its receivers. With few senders at a time its size does not grow with the network.
        """
        position, receiver = edges
        receivers, place = receiver.unique(return_inverse=True)  # on the CPU, where edges live: no synchronisation
        matrix = torch.zeros(len(receivers), len(rows), dtype=shares.dtype)
        matrix.index_put_((place, position), shares, accumulate=True)
        matrix, receivers = matrix.to(rows), receivers.to(rows.device)
        self.shares.index_add_(0, receivers, matrix.sum(1))
        if variance is not None:
            self.variance.index_add_(0, receivers, matrix @ variance)
        if mask is not None:
            if self.held is None:
                self.held = torch.zeros_like(self.total)
            rows = rows * mask
            self.held.index_add_(0, receivers, matrix @ mask.to(rows.dtype))
        self.total.index_add_(0, receivers, matrix @ rows)

    def take(self, nodes, own, kept=None):
        """Empty the mailboxes of nodes (k,); means of rows (k, D) and of variances (k, layers).

        A weight that some messages did not hold is completed with the own one, from ``own`` (k, D). The own row
        counts in the mean of rows with weight ``kept`` (k, 1), where given, beside the weights of the messages.
        """
        shares = self.shares[nodes, None]
        mean = self.total.index_select(0, nodes).mul_(1 / shares)
        if self.held is not None:
            mean.addcmul_(own, 1 - self.held.index_select(0, nodes).mul_(1 / shares))
            write_rows(self.held, nodes, 0)
        if kept is not None:
            mean.lerp_(own, kept / (kept + shares))
        variance = self.variance[nodes] / shares
        write_rows(self.total, nodes, 0)
        self.variance[nodes] = 0
        self.shares[nodes] = 0
        return mean, variance

    def state(self):
        """The sums, as a dict of tensors."""
        sums = {"total": self.total, "shares": self.shares, "variance": self.variance}
        return sums if self.held is None else sums | {"held": self.held}

    def load(self, state):
        """Take over the sums of a state."""
        for name in ("total", "shares", "variance"):
            getattr(self, name).copy_(state[name])
        self.held = state["held"].to(self.total) if "held" in state else None
