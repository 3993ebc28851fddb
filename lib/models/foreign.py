"""Models that were made elsewhere: by timm, by torchvision, or by a function of yours."""

import difflib
import importlib
from functools import partial
from operator import attrgetter

import torch

from lib import seeds
from lib.errors import InputError, one_line
from lib.torchvision_operators import define_missing


def create(spec, task, *, arguments=None, seed=0):
    """Make a model that is not of the registry.

    Parameters
    ----------
    spec : str
        "timm:NAME", "torchvision:NAME", or "package.module:function" for a function, or class, of yours.
    task : lib.tasks.Task
        The model must take its images. timm and torchvision get its number of classes, timm also that of its channels,
        unless they are among the arguments.
    arguments : dict, optional
        Keyword arguments of the model.
    seed : int
        Of the initial weights.

    Returns
    -------
    torch.nn.Module
        On the task's device, in eval mode.

    Raises
    ------
    InputError
        If there is no such model, it cannot be made, or it does not take the task's images.

    Examples
    --------
    >>> from lib import tasks
    >>> digits = tasks.load("digits", size=32, device="cpu")
    >>> create("timm:resnet10t", digits, arguments={"drop_rate": 0.1}).fc
    Linear(in_features=512, out_features=10, bias=True)
    """
    make, defaults = _maker(spec, task)
    arguments = defaults | dict(arguments or {})
    try:
        with seeds.scope(seed, "initial weights"):
            model = make(**arguments)
    except Exception as error:  # whatever somebody else's code may raise
        raise InputError(f"model='{spec}': stopped with the arguments {arguments}: {one_line(error)}") from error
    if not isinstance(model, torch.nn.Module):
        raise InputError(f"model='{spec}': returns a {type(model).__name__}, needs a torch.nn.Module")
    model, x = model.to(task.device).eval(), task.test.x[:2]
    try:
        with torch.no_grad():
            model(x)
    except Exception as error:
        shape = tuple(x.shape[1:])
        raise InputError(f"model='{spec}': does not take images of shape {shape}: {one_line(error)}") from error
    return model


def _maker(spec, task):
    """The function that makes a model, and the arguments that follow from the task."""
    package, _, name = spec.partition(":")
    if not (package and name):
        raise InputError(f"model='{spec}': expected timm:NAME, torchvision:NAME or package.module:function")
    if package not in ("timm", "torchvision"):
        return _function(spec, package, name), {}
    define_missing()
    if package == "timm":
        import timm

        known, make, defaults = timm.list_models(), timm.create_model, {"in_chans": task.image_shape[0]}
        there = timm.is_model(name.partition(".")[0])  # resnet18.a1_in1k: a tag behind the name
    else:
        from torchvision import models

        known, make, defaults = models.list_models(), models.get_model, {}
        there = name in known
    if not there:
        close = ", ".join(difflib.get_close_matches(name, known, n=3))
        raise InputError(f"model='{spec}': {package} has no such model{close and f'; did you mean {close}?'}")
    return partial(make, name), {"num_classes": task.classes, **defaults}


def _function(spec, module, name):
    try:
        return attrgetter(name)(importlib.import_module(module))
    except ModuleNotFoundError as error:
        where = "in the folder where Python was started, nor on PYTHONPATH"
        raise InputError(f"model='{spec}': there is no module '{error.name}' {where}") from None
    except AttributeError:
        raise InputError(f"model='{spec}': the module {module} has no '{name}'") from None
    except Exception as error:
        raise InputError(f"model='{spec}': importing {module} stopped: {one_line(error)}") from error
