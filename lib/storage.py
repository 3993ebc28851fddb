"""Exact storage without pickles: nested values as JSON, tensors and numeric table columns as safetensors.

One codec serves checkpoints and the cache of runs. ``encode`` splits a nested dict into a JSON text and a
flat dict of tensors; ``decode`` puts it together again, bit by bit the same: floats through their shortest
exact decimal form, tensors and numeric columns through their bytes. Tensors are written from where they lie and
read as they are used, so that what is larger than memory can be stored. Files appear whole or not at all: they are
written to a temporary name, flushed to the disk and then renamed.
"""

import contextlib
import json
import math
import os
import re
import uuid
from pathlib import Path

import numpy as np
import pandas as pd
import safetensors
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
        Contiguous, on the CPU; copies only where the tree's tensors are not.

    Raises
    ------
    TypeError
        For any other type, with the place where it stands.
    """
    tensors = {}
    return json.dumps(_encode(tree, "", tensors)), tensors


def decode(text, tensors, *, copied_below=math.inf):
    """The nested values that ``encode`` took apart; tensors of fewer bytes than ``copied_below`` are fresh copies.

    A copy is aligned like any new tensor: products round the same way. Larger ones stay where they are.
    """
    fresh = {name: t.clone() if t.nbytes < copied_below else t for name, t in tensors.items()}
    return _decode(json.loads(text), fresh)


def _encode(value, place, tensors):
    if isinstance(value, torch.Tensor):
        name = f"{len(tensors)} {place}"  # the number makes it the only one, the place is for the reader
        tensors[name] = value.detach().cpu().contiguous()
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
        return tensors[value[_TENSOR]]
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


def write_tensors(path, tensors, metadata=None):
    """Write tensors as :func:`encode` gives them, straight from their memory, to a safetensors file on the disk.

    Raises
    ------
    OSError
        If the file cannot be written, or the disk is full.
    """
    try:
        safetensors.serialize_file(_specs(tensors), path, metadata)
    except safetensors.SafetensorError as error:
        number = re.search(r"os error (\d+)", str(error))
        raise OSError(*([int(number[1]), os.strerror(int(number[1]))] if number else [str(error)])) from None
    sync(path)


def read_tensors(path):
    """Metadata and tensors of a safetensors file; the tensors lie in the file and are read as they are used."""
    with safetensors.safe_open(path, framework="pt") as file:
        return file.metadata() or {}, file.get_tensors()


def to_bytes(tensors):
    """Tensors as :func:`encode` gives them as the bytes of a safetensors file."""
    return bytes(safetensors.serialize(_specs(tensors)))


def bytes_of(tensor):
    """The bytes of a contiguous tensor on the CPU, not copied."""
    row = tensor.as_strided((tensor.numel(),), (1,))  # a single number may have any stride and count as contiguous
    return row.view(torch.uint8).numpy()


def _specs(tensors):
    return {
        name: safetensors.TensorSpec(
            dtype=str(t.dtype).partition(".")[2], shape=t.shape, data_ptr=t.data_ptr(), data_len=t.nbytes
        )
        for name, t in tensors.items()
    }


@contextlib.contextmanager
def replacing(path):
    """A path to write to, for a file that then takes the place of ``path``: whole or not at all, even in a crash."""
    path = Path(path)
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex}.tmp")
    try:
        yield temporary
        os.replace(temporary, path)
    except BaseException:
        with contextlib.suppress(OSError):
            temporary.unlink()
        raise
    sync(path.parent)


def write(path, data):
    """Write bytes to ``path`` so that a reader sees the old file or the whole new one, even after a crash."""
    with replacing(path) as partial:
        write_through(partial, data)


def write_through(path, data):
    """Write bytes and wait until the disk has them."""
    Path(path).write_bytes(data)
    sync(path)


def sync(path):
    """Wait until the disk has a file, or the names in a folder, where a file system can do that for folders."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    except OSError:
        if not os.path.isdir(path):
            raise
    finally:
        os.close(handle)
