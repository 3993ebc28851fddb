"""A run's config as JSON, after a look at its types: what a typing error says must not take hours to appear.

Configs check their ranges themselves when they are made; here the value of every field, nested configs
included, is held against the field's annotation, so that ``batch=1.5`` or ``lr=nan`` never starts a run. A config
that names data of the user's has a method ``fingerprint()``: other content under the same name is another config.
"""

import dataclasses
import json
import types
import typing

import numpy as np

from lib.errors import InputError


def canonical(config):
    """The JSON text of a frozen dataclass, the same for equal configs.

    Raises
    ------
    InputError
        If it is no frozen dataclass, a field does not fit its annotation, or a value has no place in JSON.
    """
    if not _is_config(config) or not config.__dataclass_params__.frozen:
        raise InputError(f"a config must be a frozen dataclass, got {config!r}")
    return json.dumps(_plain(config, "config"), sort_keys=True)


def _is_config(value):
    return dataclasses.is_dataclass(value) and not isinstance(value, type)


def _plain(value, place):
    """JSON values; dataclasses carry their type, for two types may have the same fields."""
    if _is_config(value):
        named = {"$type": f"{type(value).__module__}.{type(value).__qualname__}"}
        if hasattr(value, "fingerprint") and (content := value.fingerprint()):
            named["$data"] = content
        return {**named, **_fields(value, place)}
    if isinstance(value, dict) and all(isinstance(key, str) for key in value):
        return {key: _plain(item, f"{place}.{key}") for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item, f"{place}[{i}]") for i, item in enumerate(value)]
    if isinstance(value, np.generic):
        value = value.item()
    if value is None or isinstance(value, bool | int | float | str):
        return value
    raise InputError(
        f"{place}: a config holds numbers, strings, bools, None, tuples, dicts and frozen dataclasses, "
        f"got a {type(value).__name__}"
    )


def _fields(config, place):
    hints, found = typing.get_type_hints(type(config)), {}
    for field in dataclasses.fields(config):
        value, hint = getattr(config, field.name), hints[field.name]
        if not _fits(value, hint):
            expected = hint.__name__ if isinstance(hint, type) else hint
            raise InputError(f"{place}.{field.name}={value!r}: expected {expected}")
        found[field.name] = _plain(value, f"{place}.{field.name}")
    return found


def _fits(value, hint):
    """Whether a value fits an annotation, as far as that is plain: numbers, text, classes and unions."""
    origin = typing.get_origin(hint)
    if origin in (typing.Union, types.UnionType):
        return any(_fits(value, one) for one in typing.get_args(hint))
    if hint is bool or isinstance(value, bool | np.bool_):
        return hint in (bool, object) and isinstance(value, bool | np.bool_)
    if hint is int:
        return isinstance(value, int | np.integer)
    if hint is float:
        return isinstance(value, int | float | np.number) and value == value
    if origin in (tuple, list):
        return isinstance(value, tuple | list)
    return isinstance(value, origin or hint) if isinstance(origin or hint, type) else True
