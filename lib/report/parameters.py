"""Parameters of a notebook: what it declares, what a profile and the user set, whether types fit.

The cell with the tag `parameters` holds lines ``name: type = value  # help`` and imports, nothing else.
Types are int, float, str, bool, dict, list[...] and Optional[...]. Papermill alone only logs an unknown parameter
and ignores types; here both are errors, found before anything runs.
"""

import ast
import difflib
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nbformat
import yaml

from lib.errors import InputError

SCALARS = {"int": int, "float": float, "str": str, "bool": bool}


@dataclass(frozen=True)
class Parameter:
    """One declared parameter: its type as an expression, and the notebook's own value."""

    name: str
    kind: ast.expr
    value: Any


def declared(notebook: nbformat.NotebookNode, *, name: str) -> dict[str, Parameter]:
    """Parameters that a notebook declares; `name` is for messages.

    Raises
    ------
    InputError
        If there is no cell with the tag `parameters`, or a line of it is not ``name: type = literal``.
    """
    cells = [cell for cell in notebook.cells if "parameters" in cell.metadata.get("tags", ())]
    if len(cells) != 1 or cells[0].cell_type != "code":
        raise InputError(f"{name}: {len(cells)} cells with the tag 'parameters': expected one code cell")
    try:
        lines = ast.parse(cells[0].source).body
    except SyntaxError as error:
        raise InputError(f"{name}: parameters cell, line {error.lineno}: {error.msg}") from None
    found = [_declaration(line, name) for line in lines if not isinstance(line, ast.Import | ast.ImportFrom)]
    return {parameter.name: parameter for parameter in found}


def _declaration(line, notebook):
    try:
        value = ast.literal_eval(line.value)
        kind = ast.parse(line.annotation.value, mode="eval").body if _quoted(line.annotation) else line.annotation
        return Parameter(line.target.id, kind, convert(line.target.id, kind, value))
    except InputError as error:
        raise InputError(f"{notebook}: {error}") from None
    except (AttributeError, ValueError, SyntaxError):
        text = ast.unparse(line)
        raise InputError(
            f"{notebook}: parameters cell: {text!r}: expected 'name: type = value' with a literal value"
        ) from None


def _quoted(annotation):
    return isinstance(annotation, ast.Constant) and isinstance(annotation.value, str)


def convert(name: str, kind: ast.expr, value: Any) -> Any:
    """`value` if it is of type `kind`; an int becomes a float where one is wanted, also inside lists."""
    match kind:
        case ast.Subscript(value=ast.Name(id="Optional"), slice=inner):
            return None if value is None else convert(name, inner, value)
        case ast.Subscript(value=ast.Name(id="list"), slice=inner):
            if isinstance(value, list | tuple):
                return [convert(f"{name}[{i}]", inner, item) for i, item in enumerate(value)]
        case ast.Name(id="list") if isinstance(value, list | tuple):
            return list(value)
        case ast.Name(id="dict") if isinstance(value, dict):
            return dict(value)
        case ast.Name(id="float"):
            if (number := _as_float(value)) is not None:
                return number
        case ast.Name(id=scalar) if scalar in SCALARS and type(value) is SCALARS[scalar]:
            return value
        case ast.Name(id=other) if other not in (*SCALARS, "list", "dict"):
            raise InputError(f"parameter {name}: type {other!r}: expected {', '.join(SCALARS)}, list, dict or Optional")
    raise InputError(f"parameter {name}={value!r}: expected {ast.unparse(kind)}")


def _as_float(value):
    """A finite float, also from an int and from the text 1e-3 (which YAML takes for a string)."""
    if isinstance(value, bool):
        return None
    try:
        return float(value) if math.isfinite(float(value)) else None
    except (TypeError, ValueError):
        return None


def apply(known: Mapping[str, Parameter], changes: Mapping[str, Any], *, notebook: str) -> dict[str, Any]:
    """The notebook's values with `changes` applied, each known and of the right type."""
    values = {name: parameter.value for name, parameter in known.items()}
    for name, value in changes.items():
        if name not in known:
            raise InputError(f"{notebook}: unknown parameter {name!r}{suggest(name, known)}")
        try:
            values[name] = convert(name, known[name].kind, value)
        except InputError as error:
            raise InputError(f"{notebook}: {error}") from None
    return values


def suggest(name: str, known: Iterable[str]) -> str:
    """`: did you mean ...`, or the list of all that is known."""
    known = sorted(known)
    close = difflib.get_close_matches(name, known, n=3)
    return f": did you mean {', '.join(close)}?" if close else f": expected one of {', '.join(known) or '(none)'}"


def read_profile(profile: str, *, folder: Path, notebooks: Iterable[str]) -> dict[str, dict[str, Any]]:
    """What `profile` sets, notebook by notebook; "laptop" is the notebooks' own values and needs no file."""
    profiles = {file.stem: file for file in sorted(folder.glob("*.yaml"))}
    if profile not in {"laptop", *profiles}:
        raise InputError(f"profile={profile!r}{suggest(profile, {'laptop', *profiles})}")
    changes = _mapping(profiles[profile]) if profile in profiles else {}
    for notebook, values in changes.items():
        if notebook not in notebooks:
            raise InputError(f"profile {profile}: unknown notebook {notebook!r}{suggest(notebook, notebooks)}")
        if not isinstance(values, dict):
            raise InputError(f"profile {profile}: {notebook}: expected 'parameter: value' lines, got {values!r}")
    return changes


def _mapping(file):
    try:
        content = yaml.safe_load(file.read_text(encoding="utf-8")) or {}
    except yaml.YAMLError as error:
        raise InputError(f"profile {file.stem}: not readable as YAML: {' '.join(str(error).split())}") from None
    if not isinstance(content, dict):
        raise InputError(f"profile {file.stem}: expected 'notebook:' with 'parameter: value' lines below it")
    return content


def parse_assignments(text: str) -> dict[str, Any]:
    """Values of ``name=value name=value``; a value is YAML, without blanks: ``alphas=[0.1,1]``."""
    changes = {}
    for word in text.split():
        name, equals, value = word.partition("=")
        if not (name.isidentifier() and equals and value):
            raise InputError(f"parameters: {word!r}: expected name=value, lists as name=[1,2] without blanks")
        try:
            changes[name] = yaml.safe_load(value)
        except yaml.YAMLError:
            raise InputError(f"parameters: {word!r}: the value is not readable as YAML") from None
    return changes
