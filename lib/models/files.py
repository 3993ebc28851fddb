"""Files of weights that were saved elsewhere: plain, or inside what a training program keeps.

No file is trusted: safetensors hold nothing but tensors, and ``torch.load(weights_only=True)``, which reads the others,
runs no code that a file brings.
"""

import argparse
import copy
import re
from pathlib import Path

import safetensors.torch
import torch

from lib.errors import InputError, one_line

# What wrappers (DataParallel, compile, FSDP, activation checkpoints) put into the names of parameters.
WRAPPERS = {"module", "_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module"}
COUNTER = "n_averaged"  # of torch's AveragedModel, beside the weights
SHOWN = 3  # names in a message


def load(model, file, *, name="file"):
    """A copy of a model with the weights of a file.

    Parameters
    ----------
    model : torch.nn.Module
        Stays as it is.
    file : path
        ``.safetensors``, or what ``torch.save`` has written. Weights may lie inside a dict of more ("state_dict",
        "model", "ema", ...) and under names that a wrapper has changed ("module.", "_orig_mod.", or one prefix before
        all of them): those are taken that fit the model, averaged ones ("ema") where there are both.
    name : str
        How the caller calls the file, for messages.

    Returns
    -------
    torch.nn.Module
        In eval mode, on the device and with the number types of ``model``.
    str
        Where in the file the weights were found, in words.

    Raises
    ------
    InputError
        If the file is not there, holds more than weights, or does not fit the model; the message names what is missing.

    Examples
    --------
    >>> import tempfile
    >>> model, folder = torch.nn.Linear(2, 1), tempfile.mkdtemp()
    >>> wrapped = {f"module.{key}": value for key, value in model.state_dict().items()}
    >>> torch.save({"epoch": 3, "model": wrapped}, f"{folder}/last.pt")
    >>> loaded, where = load(torch.nn.Linear(2, 1), f"{folder}/last.pt")
    >>> torch.equal(loaded.weight, model.weight), where
    (True, "in 'model', without 'module.'")
    """
    place = f"{name}='{file}'"
    content, loaded = _read(Path(file).expanduser(), place), copy.deepcopy(model)
    wanted = loaded.state_dict(keep_vars=True)
    where, removed, state = _best(content, wanted, place)
    _check(state, wanted, place)
    loaded.load_state_dict(state, strict=False)
    words = [f"in '{where}'"] * bool(where) + [f"without '{each}'" for each in removed]
    return loaded.eval(), ", ".join(words) or "a plain state dict"


def _read(file, place):
    """What a file holds."""
    if not file.is_file():
        raise InputError(f"{place}: no such file in {file.absolute().parent}")
    try:
        if file.suffix == ".safetensors":
            return safetensors.torch.load_file(file)
        with torch.serialization.safe_globals([argparse.Namespace]):  # timm keeps its command line: values, no code
            return torch.load(file, map_location="cpu", weights_only=True)
    except Exception as error:  # whatever a damaged file makes a reader do
        if refused := re.search(r"(?:GLOBAL|unrecognized function) (\S+)", str(error)):
            advice = "which could run code: save model.state_dict() alone"
            raise InputError(f"{place}: holds Python objects ({refused[1]}) beside tensors, {advice}") from None
        raise InputError(f"{place}: not readable as weights: {one_line(error)}") from None


def _best(content, wanted, place):
    """Of all that a file holds what fits a model best: where it lies, what was removed from its names, the tensors."""
    found = [(where, *version) for where, state in _states(content) for version in _unwrapped(state)]
    if not found:
        what = f"a dict of {_some(content)}" if isinstance(content, dict) else f"a {type(content).__name__}"
        raise InputError(f"{place}: holds {what}, needs tensors by name")

    def fit(version):
        known = len(version[-1].keys() & wanted.keys())
        return known, -len(version[-1]) if known else len(version[-1])

    best = max(map(fit, found))
    fitting = {version[0]: version for version in reversed(found) if fit(version) == best}
    averaged = [where for where in fitting if "ema" in where]
    if best[0] and len(fitting) > 1 and len(averaged) != 1:
        raise InputError(f"{place}: {_some(sorted(fitting))} fit the model: save one of them alone")
    return fitting[averaged[0]] if averaged else next(version for version in found if fit(version) == best)


def _states(content, where=""):
    """All dicts of tensors by name inside nested dicts, and where they lie."""
    if isinstance(content, dict):
        names = [key for key, each in content.items() if torch.is_tensor(each) and isinstance(key, str)]
        if tensors := {key: content[key] for key in names if key != COUNTER}:
            yield where, tensors
        for key, part in content.items():
            yield from _states(part, f"{where}.{key}".lstrip("."))


def _unwrapped(state):
    """The names that weights may have had before they were wrapped: pairs of what was removed and the state."""
    versions = [([], state)]
    plain = {".".join(part for part in key.split(".") if part not in WRAPPERS): each for key, each in state.items()}
    if len(plain) == len(state):
        parts = {part for key in state for part in key.split(".")}
        versions.append(([f"{each}." for each in sorted(parts & WRAPPERS)], plain))
    for removed, names in list(versions):
        first = {key.partition(".")[0] for key in names}
        if len(first) == 1 and all("." in key for key in names):  # such as the attribute of a Lightning module
            shorter = {key.partition(".")[2]: each for key, each in names.items()}
            versions.append(([*removed, f"{first.pop()}."], shorter))
    return versions


def _check(state, wanted, place):
    """Raise :class:`InputError` unless tensors fit those of a model, name by name and shape by shape."""
    tied = {id(wanted[key]) for key in state.keys() & wanted.keys()}  # safetensors keep tied weights once
    missing = [
        key for key, each in wanted.items()
        if key not in state and id(each) not in tied and not key.endswith(".num_batches_tracked")
    ]  # fmt: skip
    extra = [key for key in state if key not in wanted]
    if missing or extra:
        words = [f"lacks {_some(missing)}"] * bool(missing) + [f"has {_some(extra)} too many"] * bool(extra)
        raise InputError(f"{place}: does not fit the model, it {' and '.join(words)}")
    for key, each in state.items():
        if each.shape != wanted[key].shape:
            shapes = f"{tuple(each.shape)} in the file and {tuple(wanted[key].shape)} in the model"
            raise InputError(f"{place}: '{key}' is {shapes}")
        if each.is_floating_point() != wanted[key].is_floating_point():
            raise InputError(f"{place}: '{key}' is {each.dtype} in the file and {wanted[key].dtype} in the model")


def _some(names):
    names = [f"'{name}'" for name in names]
    return ", ".join(names[:SHOWN]) + (f" and {len(names) - SHOWN} more" if len(names) > SHOWN else "")
