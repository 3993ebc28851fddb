"""Data as users have them, read as tensors and checked before anything else is done with them."""

import numpy as np
import torch

from lib.errors import InputError


def read(x, y, x_test, y_test, *, as_classes):
    """Inputs and targets of two splits, as they are meant.

    Parameters
    ----------
    x, y, x_test, y_test : tensor or array (n, ...)
        As of :func:`lib.tasks.from_tensors`.
    as_classes : bool
        Whether targets must be classes.

    Returns
    -------
    tuple
        The inputs, float32, uint8 (images) or int64 (token ids), the targets, float32 or int64, in the order of the
        arguments, and the number of classes, or None.
    """
    given = {"x": x, "y": y, "x_test": x_test, "y_test": y_test}
    x, y, x_test, y_test = (_tensor(part, value) for part, value in given.items())
    _check_shapes(x, y, x_test, y_test)
    y, y_test = (each.float() if each.is_floating_point() else each.long() for each in (y, y_test))
    if as_classes:
        one_hot = _one_hot(y) and _one_hot(y_test)
        y, y_test = (_classes(part, each, one_hot) for part, each in (("y", y), ("y_test", y_test)))
    return _inputs(x), y, _inputs(x_test), y_test, _count_classes(y, y_test, as_classes)


def stacked(part, dataset):
    """Inputs and targets of all items of a data set, by an index from 0 to its length."""
    if not (hasattr(dataset, "__getitem__") and hasattr(dataset, "__len__")):
        raise InputError(f"{part}: needs a data set with a length and an index, got {type(dataset).__name__}")
    kept = {"input": [], "target": []}
    for number in range(len(dataset)):
        item = dataset[number]
        if not (isinstance(item, tuple | list) and len(item) == 2):
            raise InputError(f"{part}[{number}]: needs a pair (input, target), got {type(item).__name__}")
        for (which, values), value in zip(kept.items(), item, strict=True):
            values.append(_as_tensor(f"{part}[{number}]", _from_pil(value)))
            if values[-1].shape != values[0].shape:
                sizes = f"{tuple(values[-1].shape)}, that of {part}[0] {tuple(values[0].shape)}"
                raise InputError(f"{part}[{number}]: the shape of its {which} is {sizes}: all must be of one size")
    return [torch.stack(values) if values else torch.empty(0) for values in kept.values()]


def _tensor(part, value):
    """A tensor (n, ...) of finite numbers, n > 0."""
    value = _as_tensor(part, value)
    if value.ndim == 0 or not len(value):
        raise InputError(f"{part}: shape {tuple(value.shape)}, holds nothing")
    if value.is_complex() or value.layout != torch.strided:
        raise InputError(f"{part}: {value.dtype}, {value.layout}: needs real numbers in a dense tensor")
    if value.is_floating_point() and not torch.isfinite(value).all():
        raise InputError(f"{part}: holds values that are not finite")
    return value.detach()


def _as_tensor(part, value):
    if torch.is_tensor(value):
        return value
    try:
        array = np.asarray(value)
        array = np.require(array, array.dtype.newbyteorder("="), "W")
        return torch.as_tensor(array if min(array.strides, default=0) >= 0 else array.copy())
    except (TypeError, ValueError, RuntimeError) as error:
        kind, reason = type(value).__name__, (str(error).splitlines() or [""])[0]
        raise InputError(f"{part}: {kind} cannot be read as an array of numbers ({reason})") from None


def _from_pil(value):
    """A PIL image as (C, H, W); anything else as it is."""
    if not hasattr(value, "getbands"):
        return value
    image = np.array(value.convert("RGB") if value.mode == "P" else value)
    return image[None] if image.ndim == 2 else image.transpose(2, 0, 1)


def _check_shapes(x, y, x_test, y_test):
    for part, inputs, targets in (("", x, y), ("_test", x_test, y_test)):
        if len(inputs) != len(targets):
            raise InputError(f"y{part}: {len(targets)} targets for the {len(inputs)} inputs of x{part}")
    for part, first, second in (("x", x, x_test), ("y", y, y_test)):
        if first.shape[1:] != second.shape[1:]:
            sizes = f"{tuple(second.shape)}, {part} has {tuple(first.shape)}"
            raise InputError(f"{part}_test: shape {sizes}: all but the number must be equal")
    if x.dtype != x_test.dtype and not (x.is_floating_point() and x_test.is_floating_point()):
        raise InputError(f"x_test: {x_test.dtype}, x is {x.dtype}: give both in one type, on one scale")
    if x.dtype == torch.uint8 and x.ndim == 3:
        raise InputError(f"x: bytes of shape {tuple(x.shape)}: images need their channel, x[:, None]")
    if x.ndim == 4 and x.shape[3] in (1, 3, 4) and x.shape[1] == x.shape[2] > 4:
        remedy = "x.transpose(0, 3, 1, 2) (numpy) or x.permute(0, 3, 1, 2) (torch)"
        raise InputError(f"x: shape {tuple(x.shape)}: images need their channels first, {remedy}")


def _inputs(x):
    """Images as bytes or floats, token ids as int64, all else as floats."""
    if x.ndim == 4 and x.dtype == torch.uint8:
        return x
    tokens = x.ndim != 4 and not x.is_floating_point() and x.dtype not in (torch.uint8, torch.bool)
    return x.long() if tokens else x.float()


def _one_hot(y):
    return y.ndim == 2 and y.shape[1] > 1 and bool(((y == 0) | (y == 1)).all() and (y.sum(1) == 1).all())


def _classes(part, y, one_hot):
    """Classes, int64, of (n,) inputs or of their tokens (n, ...); from a column (n, 1) or one-hot rows, too."""
    if one_hot:
        return y.long().argmax(1)
    y = y[:, 0] if y.ndim == 2 and y.shape[1] == 1 else y
    if y.is_floating_point() and (other := y[y != y.round()]).numel():
        remedy = "for numbers to be predicted give loss=, such as torch.nn.functional.mse_loss"
        raise InputError(f"{part}: {float(other[0]):g} is not a class; {remedy}")
    if y.min() < 0:
        remedy = "numpy.unique(y, return_inverse=True)[1] numbers them so"
        raise InputError(f"{part}: class {int(y.min())}, classes are numbered 0, 1, ...: {remedy}")
    return y.long()


def _count_classes(y, y_test, as_classes):
    """Number of classes, where each input has one; None where targets are something else."""
    if y.ndim > 1 or y.is_floating_point() or y.min() < 0:
        return None
    found, classes = y.unique(), int(y.max()) + 1
    lacking = y_test[~torch.isin(y_test, found)]
    if as_classes and len(lacking):
        raise InputError(f"y_test: class {int(lacking[0])} has no input in the training split")
    return classes if as_classes or (len(found) == classes and not len(lacking)) else None
