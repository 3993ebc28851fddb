"""Exact storage without pickles: nested values as JSON, tensors and numeric table columns as safetensors.

One codec serves checkpoints and the cache of runs. ``encode`` splits a nested dict into a JSON text and a
flat dict of tensors; ``decode`` puts it together again, bit by bit the same: floats through their shortest
exact decimal form, tensors and numeric columns through their bytes. Files appear whole or not at all: they
are written to a temporary name, flushed to the disk and then renamed.
"""

import contextlib
import json
import os
import uuid
from pathlib import Path

import numpy as np
import pandas as pd
import torch

_TENSOR, _TABLE = "$tensor", "$table"


def encode(tree):
    """Split nested values into a JSON text and named tensors.

    Parameters
    ----------
    tree : dict
        String keys; values are numbers, strings, bools, None, lists, dicts, ``torch.Tensor`` or
        ``pandas.DataFrame`` (columns numeric, boolean or of JSON values).

    Returns
    -------
    text : str
    tensors : dict of str to torch.Tensor
        Contiguous CPU copies that share no storage.

    Raises
    ------
    TypeError
        For any other type, with the place where it stands.
    """
    tensors = {}
    return json.dumps(_encode(tree, "", tensors)), tensors


def decode(text, tensors):
    """The nested values that ``encode`` took apart; tensors are fresh copies on the CPU."""
    return _decode(json.loads(text), tensors)


def _encode(value, place, tensors):
    if isinstance(value, torch.Tensor):
        name = f"{len(tensors)} {place}"  # the number makes it the only one, the place is for the reader
        tensors[name] = value.detach().clone(memory_format=torch.contiguous_format).cpu()
        return {_TENSOR: name}
    if isinstance(value, pd.DataFrame):
        return {_TABLE: _encode_table(value, place, tensors)}
    if isinstance(value, dict):
        for key in value:
            if not isinstance(key, str) or key.startswith("$"):
                raise TypeError(f"{place or 'state'}: keys must be strings without a leading $, got {key!r}")
        prefix = f"{place}." if place else ""
        return {key: _encode(item, prefix + key, tensors) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_encode(item, f"{place}[{i}]", tensors) for i, item in enumerate(value)]
    if isinstance(value, np.generic):
        value = value.item()
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    raise TypeError(
        f"{place or 'state'}: cannot store a {type(value).__name__}; allowed are numbers, "
        "strings, bools, None, lists, dicts, tensors and DataFrames"
    )


def _decode(value, tensors):
    if isinstance(value, list):
        return [_decode(item, tensors) for item in value]
    if not isinstance(value, dict):
        return value
    if _TENSOR in value:
        return tensors[value[_TENSOR]].clone()  # aligned like any new tensor: products round the same way
    if _TABLE in value:
        return _decode_table(value[_TABLE], tensors)
    return {key: _decode(item, tensors) for key, item in value.items()}


def _encode_table(frame, place, tensors):
    if isinstance(frame.index, pd.MultiIndex) or isinstance(frame.columns, pd.MultiIndex):
        raise TypeError(f"{place}: a table with a MultiIndex cannot be stored; call reset_index() first")
    if not all(isinstance(name, str) for name in frame.columns) or not frame.columns.is_unique:
        raise TypeError(f"{place}: column names must be different strings, got {list(frame.columns)}")
    columns = {name: _encode_column(frame[name], f"{place}.{name}", tensors) for name in frame.columns}
    index = frame.index
    if isinstance(index, pd.RangeIndex):
        rows = {"range": [index.start, index.stop, index.step]}
    else:
        rows = _encode_column(index.to_series(), f"{place}.(index)", tensors)
    return {"columns": columns, "labels": str(frame.columns.dtype), "index": rows, "index_name": index.name}


def _encode_column(column, place, tensors):
    if isinstance(column.dtype, np.dtype) and column.dtype.kind in "biuf":
        return _encode(torch.from_numpy(column.to_numpy(copy=True)), place, tensors)
    if str(column.dtype) in ("object", "str"):
        values = [float("nan") if value is pd.NA else value for value in column.tolist()]
        return {"dtype": str(column.dtype), "values": _encode(values, place, {})}
    raise TypeError(
        f"{place}: cannot store a column of type {column.dtype}; allowed are numbers, bools and strings"
    )


def _decode_table(table, tensors):
    columns = {name: _decode_column(column, tensors) for name, column in table["columns"].items()}
    rows = table["index"]
    index = pd.RangeIndex(*rows["range"]) if "range" in rows else pd.Index(_decode_column(rows, tensors))
    series = {name: pd.Series(column, index=index) for name, column in columns.items()}
    frame = pd.DataFrame(series, index=index)
    frame.columns = pd.Index(list(columns), dtype=table["labels"])
    return frame.rename_axis(index=table["index_name"])


def _decode_column(column, tensors):
    if _TENSOR in column:
        return _decode(column, tensors).numpy()
    return pd.array(column["values"], dtype=column["dtype"])


def write(path, data):
    """Write bytes to ``path`` so that a reader sees the old file or the whole new one, even after a crash."""
    path = Path(path)
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex}.tmp")
    try:
        write_through(temporary, data)
        os.replace(temporary, path)
    except BaseException:
        with contextlib.suppress(OSError):
            temporary.unlink()
        raise
    sync_folder(path.parent)


def write_through(path, data):
    """Write bytes and wait until the disk has them."""
    with open(path, "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def sync_folder(folder):
    """Wait until the disk has the folder's names; without effect where a file system cannot do this."""
    with contextlib.suppress(OSError):
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
