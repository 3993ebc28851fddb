"""Whether a model fits a task: it is looked at, and called once on a few inputs, before anything long runs."""

import contextlib
import math
import numbers
import warnings
from dataclasses import replace

import torch
from torch import nn

from lib import batchnorm, scopes, scores, weights
from lib.errors import InputError

TOLERANCE = 1e-3


@scopes.computation()
def check(model, data, name="model"):
    """Raise :class:`InputError` unless a model can be trained and evaluated on a task.

    Parameters
    ----------
    model : torch.nn.Module
        It is called in eval mode, without gradients, and stays as it is.
    data : lib.tasks.Task or lib.tasks.Split
    name : str
        How the caller called the model.

    Returns
    -------
    lib.tasks.Task or lib.tasks.Split
        The data to use: with images channels first in memory where the model (by a ``view``) takes them only so.
    """
    if hasattr(data, "train") and hasattr(data, "test"):
        train = check(model, data.train, name)
        if not data.train.x.dtype.is_floating_point:  # token ids of either split may be too large
            check(model, data.test, name)
        return data if train is data.train else replace(data, train=train, test=_channels_first(data.test))
    check_task(data, parts=("x", "y", "loss", "metric"))
    check_module(model, name)
    _check_placement(model, data.x, name)
    rows = _rows(data)
    outputs, data = _call(model, data, rows, name)
    _check_outputs(outputs, data.x[rows], next(model.parameters()).dtype, name)
    _warn_of_mixing(model, outputs, data.x[rows[-1:] * len(rows)], name)
    _check_classes(outputs, data, name)
    for what, function in (("loss", data.loss), ("metric", data.metric)):
        if function is not None:
            _check_function(what, function, outputs, data.y[rows])
    return data


def check_ends(a, b, task):
    """Raise :class:`InputError` unless two models are of one kind and fit a task, as the ends of a path must.

    Returns
    -------
    lib.tasks.Task
        The task to use, as of :func:`check`.
    """
    check_module(a, "a")
    check_module(b, "b")
    weights.check_ends(a, b)
    task = check(a, task, "a")
    check(b, task, "b")
    try:
        copied = weights.copy_of(a)
        copied.load_state_dict(b.state_dict())
    except RuntimeError as error:
        raise InputError(f"modes: a cannot be copied and take the state of b ({_one_line(error)})") from None
    if (apart := difference(b, copied, task.train.x[:2])) > TOLERANCE:
        raise InputError(f"modes of different kinds: with the state of b, a computes something else (by {apart:.2g})")
    return task


def difference(wanted, found, x):
    """How far the outputs of two models are apart in eval mode: the largest difference, over the outputs' size."""
    wanted, found = (_outputs(model, x) for model in (wanted, found))
    return float((found - wanted).abs().max() / wanted.abs().max().clamp_min(1.0))


def check_task(task, parts=("train", "test", "loss", "metric")):
    """Raise :class:`InputError` unless this is a task, or has the parts of one."""
    if not all(hasattr(task, part) for part in parts):
        raise InputError(f"task: needs a task, as of tasks.load or tasks.from_tensors, got {type(task).__name__}")


def check_module(model, name):
    """Raise :class:`InputError` unless this is a module with weights that can be taken apart."""
    if not isinstance(model, nn.Module):
        kind = f"the class {model.__name__}" if isinstance(model, type) else type(model).__name__
        hint = ": call it, and give what it returns" if callable(model) else ""
        raise InputError(f"{name}: needs a torch.nn.Module, got {kind}{hint}")
    if isinstance(model, torch.jit.ScriptModule):
        raise InputError(f"{name}: a scripted module cannot be taken apart, give the module that it was made from")
    for which, tensor in [*model.named_parameters(), *model.named_buffers()]:
        if nn.parameter.is_lazy(tensor):
            raise InputError(f"{name}: '{which}' is not initialised yet, call the module once on a batch first")
    if next(model.parameters(), None) is None:
        raise InputError(f"{name}: {type(model).__name__} has no parameters")


def _check_placement(model, x, name):
    wanted = x.dtype if x.dtype.is_floating_point else next(model.parameters()).dtype
    wanted = wanted if wanted in (torch.float32, torch.float64) else torch.float32
    for which, parameter in model.named_parameters():
        if parameter.device != x.device:
            places = f"on the device {parameter.device}, the data are on {x.device}"
            raise InputError(f"{name}: '{which}' is {places}: call model.to(task.device)")
        if parameter.dtype != wanted:
            raise InputError(f"{name}: '{which}' is {parameter.dtype}, needs {wanted}: call model.to({wanted})")


def _rows(split):
    """A few inputs that a model must take, two or more: with the largest and smallest token ids and classes."""
    rows = [0, len(split) - 1]
    for values in (split.x, split.y):
        if not values.dtype.is_floating_point:
            flat = values.reshape(len(split), -1)
            rows += [int(flat.amax(1).argmax()), int(flat.amin(1).argmin())]
    return sorted(set(rows)) if len(split) > 1 else [0, 0]


def _call(model, split, rows, name):
    """Outputs for some inputs of a split, and the split with its images as the model takes them."""
    x = split.x[rows]
    try:
        return _outputs(model, x), split
    except Exception as error:  # whatever a user's code may raise
        stopped = error
    if x.ndim == 4:
        with contextlib.suppress(Exception):
            return _outputs(model, x.clone(memory_format=torch.contiguous_format)), _channels_first(split)
    hint = "" if x.is_floating_point() else " (integers are token ids; give the numbers of a table as floats)"
    raise InputError(
        f"{name}: stopped on {len(x)} inputs of the task, {tuple(x.shape)} {x.dtype}{hint}: "
        f"{type(stopped).__name__}, {_one_line(stopped)}"
    ) from stopped


def _outputs(model, x):
    with scopes.computation(), torch.no_grad(), scopes.evaluation(model):
        return model(x)


def _channels_first(split):
    return replace(split, x=split.x.clone(memory_format=torch.contiguous_format))


def _check_outputs(outputs, x, dtype, name):
    if not torch.is_tensor(outputs):
        kind = type(outputs).__name__ + (f" of {', '.join(map(str, outputs))}" if hasattr(outputs, "keys") else "")
        raise InputError(f"{name}: returns a {kind}, needs one tensor: wrap it in a module that returns that part")
    if outputs.ndim == 0 or len(outputs) != len(x):
        shape = f"shape {tuple(outputs.shape)} for {len(x)} inputs"
        raise InputError(f"{name}: returns {shape}, needs ({len(x)}, ...): the first dimension counts the inputs")
    if outputs.dtype != dtype:
        raise InputError(f"{name}: returns {outputs.dtype}, needs {dtype}")
    if outputs.device != x.device:
        raise InputError(f"{name}: returns a tensor on the device {outputs.device}, the data are on {x.device}")
    if not torch.isfinite(outputs).all():
        raise InputError(f"{name}: returns values that are not finite")


def _warn_of_mixing(model, outputs, others, name):
    """Warn where what a model makes of an input, here the last one, depends on the other inputs of the batch."""
    if not batchnorm.depends_on_batch(model):
        apart = (_outputs(model, others)[-1] - outputs[-1]).abs().max()
        if apart > TOLERANCE * outputs[-1].abs().max().clamp_min(1.0):
            advice = "is the first dimension the batch (batch_first=True)?"
            warnings.warn(f"{name}: its output for an input depends on the others of a batch: {advice}", stacklevel=4)


def _check_classes(outputs, split, name):
    """With the default loss there is an output for each class."""
    if split.loss is scores.cross_entropy:
        shape, classes = tuple(outputs.shape), int(split.y.max()) + 1
        if split.y.ndim == 1 and len(shape) != 2:
            raise InputError(f"{name}: returns shape {shape} for {shape[0]} inputs, needs one number a class")
        found = scores.by_class(outputs, split.y[: len(outputs)]).shape[1]
        if found < classes:
            wanted = f"the task has {classes} classes, 0 to {classes - 1}"
            wanted += "; for numbers to be predicted give the task a loss=" if found == 1 else ""
            raise InputError(f"{name}: returns {found} numbers for each input, {wanted}")


def _check_function(what, function, outputs, y):
    """Try a loss or a metric."""
    shapes = f"outputs {tuple(outputs.shape)} and targets {tuple(y.shape)}"
    try:
        with scopes.computation():  # clones, as what was made in inference mode knows no gradients
            found = function(outputs.clone().requires_grad_(what == "loss"), y.clone())
    except Exception as error:
        if what == "metric" and isinstance(error, ValueError):
            return  # it may need more than a few inputs, such as every class
        raise InputError(f"{what}: stopped on {shapes}: {type(error).__name__}, {_one_line(error)}") from error
    if not (isinstance(found, numbers.Number) or (torch.is_tensor(found) and found.numel() == 1)):
        shape = f"shape {tuple(found.shape)}" if hasattr(found, "shape") else type(found).__name__
        raise InputError(f"{what}: gives {shape} for {shapes}, needs one number, such as the mean")
    if what == "loss" and not (torch.is_tensor(found) and found.requires_grad):
        raise InputError("loss: cannot be differentiated by the outputs (argmax, numpy or detach cut it off)")
    if what == "loss" and not math.isfinite(found.detach()):
        raise InputError(f"loss: {float(found.detach())} for {shapes}")
    if problem := _no_mean(function, outputs.detach(), y) or _broadcast(function, outputs.detach(), y):
        raise InputError(f"{what}: {problem}")


def _no_mean(function, outputs, y):
    """What is wrong with a sum over the batch; None where it is no sum."""
    with contextlib.suppress(Exception), scopes.computation():
        once, twice = (float(function(outputs[[0] * n], y[[0] * n])) for n in (1, 2))
        if once and abs(twice / once - 2) < TOLERANCE:
            return f"grows with the batch, {once:.3g} for an input, {twice:.3g} for the same input twice: needs a mean"
    return None


def _broadcast(function, outputs, y):
    """What is wrong where (n, 1) and (n,) are broadcast to (n, n); None where they are not."""
    if outputs.shape != y.shape and outputs.numel() == y.numel():
        with contextlib.suppress(Exception), scopes.computation():
            found, right = (float(function(each, y)) for each in (outputs, outputs.view(y.shape)))
            if abs(found - right) > TOLERANCE * abs(right):
                shapes = f"outputs {tuple(outputs.shape)} and targets {tuple(y.shape)}"
                return f"{shapes} are broadcast to each other: give targets of the outputs' shape, such as y[:, None]"
    return None


def _one_line(error):
    return " ".join(str(error).split())[:200]
