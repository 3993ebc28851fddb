"""Run many networks of one architecture: grouped where possible, else by ``torch.func.vmap``, else one by one.

Each way is a callable ``(parameters, buffers, x, training) -> outputs (n, B, ...)`` like
:class:`lib.batched.grouped.GroupedNetwork`. None is trusted: before it is used it must compute, on two networks, what
the model itself computes. What is not the fastest way is said once, as a warning.
"""

import contextlib
import itertools
import warnings

import torch
from torch.func import functional_call
from torch.nn.modules.dropout import _DropoutNd

from lib import seeds
from lib.batched.grouped import GroupedNetwork, UnsupportedError, first_line, set_mode
from lib.batchnorm import batch_norms, from_batch
from lib.scopes import computation
from lib.weights import copy_of


class VmapNetwork:
    """All networks by ``torch.func.vmap``."""

    title = "by torch.func.vmap"

    def __init__(self, model, ndim=4):
        self.model, self.ndim = model, ndim

    def __call__(self, parameters, buffers, x, *, training):
        """Outputs (n, B, ...); see :class:`lib.batched.grouped.GroupedNetwork`."""
        set_mode(self.model, training)
        own = x.ndim > self.ndim
        x = contiguous(x.transpose(0, 1) if own else x)  # operators under vmap know no other memory format
        one = lambda state, inputs: functional_call(self.model, state, (inputs,))  # noqa: E731
        run = torch.func.vmap(one, in_dims=(0, 0 if own else None), randomness="different")
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "There is a performance drop")  # said once by `network`, for all of them
            return run(parameters | buffers, x)


def contiguous(x):
    """A batch with the strides of a contiguous tensor; ``x.contiguous()`` keeps those of a dimension of size 1."""
    return x.flatten(1).view(x.shape) if x.ndim > 1 else x


class SerialNetwork:
    """The networks one after another."""

    title = "one after another"

    def __init__(self, model, ndim=4):
        self.model, self.ndim = model, ndim
        self.hooks = [(n, hook) for n, p in model.named_parameters() for hook in (p._backward_hooks or {}).values()]

    def __call__(self, parameters, buffers, x, *, training):
        """Outputs (n, B, ...); see :class:`lib.batched.grouped.GroupedNetwork`."""
        set_mode(self.model, training)
        names, stacks = zip(*(parameters | buffers).items(), strict=True)
        outputs = []
        for i, own in enumerate(zip(*(stack.unbind() for stack in stacks), strict=True)):
            state, inputs = dict(zip(names, own, strict=True)), contiguous(x[:, i] if x.ndim > self.ndim else x)
            for name, hook in self.hooks:
                if state[name].requires_grad:
                    state[name].register_hook(hook)
            outputs.append(functional_call(self.model, state, (inputs,)))
            for name, before in zip(names, own, strict=True):
                if state[name] is not before:  # a buffer that the model replaced by another tensor
                    before.copy_(state[name].detach())
        return torch.stack(outputs)


WAYS = (GroupedNetwork, VmapNetwork, SerialNetwork)


def network(model, inputs, ways=WAYS):
    """The fastest way to run many networks of a model that computes what the model computes.

    Parameters
    ----------
    model : torch.nn.Module
        Stays as it is.
    inputs : tensor (b, ...)
        A few inputs, for the comparison; two are enough.
    ways : tuple
        Those that may be taken, the fastest first.

    Raises
    ------
    UnsupportedError
        If no way equals the model.

    Warns
    -----
    UserWarning
        If it is not the fastest way, why not.
    """
    name, reasons = type(model).__name__, []
    try:
        comparison = _Comparison(model, inputs)
    except Exception as error:  # the model's own code: anything may come out of it
        raise UnsupportedError(f"model {name} does not run on {len(inputs)} inputs: {first_line(error)}") from error
    for way in ways:
        try:
            found = comparison.checked(way)
        except Exception as error:  # each way may raise whatever the model's operations cannot do in it
            reasons.append(f"{way.title}: {first_line(error)}")
            continue
        if reasons:
            why = "; ".join(reasons)
            warnings.warn(f"networks {name} are run {way.title}, slower than grouped ({why})", stacklevel=2)
        return found
    raise UnsupportedError(f"networks {name} cannot be run as many, try backend='loop' ({'; '.join(reasons)})")


def own_buffers(model):
    """The buffers that each of many networks has of its own, by name: those of a floating-point type.

    A batch norm that averages over all batches (``momentum=None``) counts them; its count is one of them.
    """
    counts = {f"{name}.num_batches_tracked".lstrip(".") for name, module in model.named_modules()
              if getattr(module, "momentum", 0) is None}  # fmt: skip
    return {name: b for name, b in model.named_buffers() if b.is_floating_point() or name in counts}


def reestimated(network, parameters, buffers, x):
    """Copies of the networks' buffers, the running statistics of batch norm in them being those of inputs ``x``.

    What :func:`lib.batchnorm.reestimate` is for a single model, of one batch.

    Parameters
    ----------
    network : callable
        As of :func:`network`.
    parameters, buffers : dict of str to tensor (n, *shape)
    x : tensor (B, ...)
    """
    buffers = {name: buffer.clone() for name, buffer in buffers.items()}
    if norms := batch_norms(network.model):
        with torch.no_grad(), from_batch(network.model, norms, momentum=1.0):
            network(parameters, buffers, x, training=None)
    return buffers


class _Comparison:
    """What two networks compute in training and in eval mode, of inputs of their own and of inputs that they share.

    In double precision, where differences are no rounding, if the model can run in it.
    """

    WHAT = ("outputs", "gradients", "buffers")
    MODES = tuple(itertools.product((True, False), repeat=2))

    def __init__(self, model, inputs):
        self.model = model
        try:
            exact = inputs.double() if inputs.is_floating_point() else inputs
            self._run_models([copy_of(model).double() for _ in range(2)], exact, tolerance=1e-5)
        except Exception:  # code with a type of its own; what else is wrong comes again
            self._run_models([copy_of(model) for _ in range(2)], inputs, tolerance=1e-3)

    @computation()
    def _run_models(self, models, inputs, *, tolerance):
        _make_differ(models)
        models[0](inputs)  # who counts calls, outside of its buffers, counts for each network
        self.inputs, self.tolerance = inputs, tolerance
        self.parameters, self.buffers = torch.func.stack_module_state(models)

        def run(training, parts):
            outputs = torch.stack([model.train(training)(x) for model, x in zip(models, parts, strict=True)])
            gradients = [_gradient(outputs, [*model.parameters()]) for model in models]
            buffers = torch.func.stack_module_state(models)[1]
            return outputs, [torch.stack(pair) for pair in zip(*gradients, strict=True)], buffers

        with contextlib.ExitStack() as stack:
            for model in models:
                stack.enter_context(_without_dropout(model))
            self.wanted = self._record(run)
        if not all(map(torch.equal, self.parameters.values(), torch.func.stack_module_state(models)[0].values())):
            raise UnsupportedError("it changes its own weights when it is called")

    @computation()
    def checked(self, way):
        """A way to run the networks; an error if it does not compute what the models do, one after the other."""
        network, buffers = (
            way(copy_of(self.model).eval(), self.inputs.ndim),
            {n: b.clone() for n, b in self.buffers.items()},
        )

        def run(training, parts):
            x = parts[0] if parts[0] is parts[1] else torch.stack(parts, 1)
            outputs = network(self.parameters, buffers, x, training=training)
            return outputs, _gradient(outputs, [*self.parameters.values()]), buffers

        with _without_dropout(network.model):
            found = self._record(run)
        for (training, _), *both in zip(self.MODES, self.wanted, found, strict=True):
            for what, right, other in zip(self.WHAT, *both, strict=True):
                size = float(right.nan_to_num().abs().max()) if right.numel() else 0.0
                if not torch.allclose(other, right, rtol=0, atol=self.tolerance * size, equal_nan=True):
                    raise UnsupportedError(f"{what} in {'training' if training else 'eval'} mode are not the model's")
        return network

    def _record(self, run):
        """Outputs, gradients and the networks' own buffers, one vector each, in each mode."""
        recorded, others, own = [], self.inputs.flip(0), own_buffers(self.model)
        for training, shared in self.MODES:
            with seeds.scope(0, "comparison"):
                outputs, gradients, buffers = run(training, (self.inputs, self.inputs if shared else others))
            vectors = [outputs], gradients, [buffers[name] for name in own]
            recorded.append([torch.cat([torch.zeros(0), *(t.detach().flatten() for t in each)]) for each in vectors])
        return recorded


@torch.no_grad()
def _make_differ(models):
    """Give models weights of their own, none of them 0, and buffers of their own."""
    generator = torch.Generator().manual_seed(0)
    for model in models:
        model.eval()
        for parameter in model.parameters():
            noise = torch.randn(parameter.shape, generator=generator).to(parameter)
            parameter.add_(0.1 * (parameter.square().mean().sqrt() + 0.1) * noise).requires_grad_()
        for buffer in own_buffers(model).values():
            if buffer.is_floating_point():
                buffer.mul_(1 + 0.1 * torch.rand(buffer.shape, generator=generator).to(buffer))


@contextlib.contextmanager
def _without_dropout(model):
    """Nothing is dropped: no two ways draw the same, and to drop is an element-wise operation."""
    fractions = {module: module.p for module in model.modules() if isinstance(module, _DropoutNd)}
    for module in fractions:
        module.p = 0.0
    try:
        yield
    finally:
        for module, fraction in fractions.items():
            module.p = fraction


def _gradient(outputs, leaves):
    """Of a sum of the outputs in which each has a weight of its own."""
    if not outputs.requires_grad:
        return [torch.zeros_like(leaf) for leaf in leaves]
    weights = torch.randn(outputs.shape, generator=torch.Generator().manual_seed(1)).to(outputs)
    return torch.autograd.grad((outputs * weights).sum(), leaves, retain_graph=True, allow_unused=True,
                               materialize_grads=True)  # fmt: skip
