"""What code a result depends on: a hash of the parsed source of a module and of all it imports from ``lib``.

Comments, docstrings and layout are out of the hash, so that prose never costs a run; every other change is
in. Imports are found in the syntax tree, without running anything, and followed through ``lib`` only
(installed packages are pinned). A package whose ``__init__`` does nothing but import names is a front door:
what is imported through it by name counts as imported from the module that defines it, and nothing else of
the package does, so that ``from lib.connectivity import connect`` does not depend on the baselines. Three parts
of ``lib`` are not followed: ``lib/__init__`` only loads modules on first use, ``lib.runs`` decides where and
when something is computed, never what, and ``lib.progress`` shows how far it is.
"""

import ast
import functools
import hashlib
import importlib.util
import re
import sys
import time
from pathlib import Path

from lib import folders
from lib.errors import InputError

_STARTED = time.time()


def code_hash(*subjects):
    """Hash of the code behind functions, modules or module names.

    Parameters
    ----------
    subjects : callable, module or str
        A callable stands for the module that defines it.

    Returns
    -------
    str
        64 hexadecimal digits; the same on every machine with the same version of Python.

    Raises
    ------
    InputError
        If a subject has no source file, or the file is not valid Python.
    """
    return _digest(_with_imports({name: _read(name) for name in map(_module_name, subjects)}))


def code_hash_of_source(text):
    """Hash of a piece of source, e.g. a notebook's code (IPython's ``%`` and ``!`` lines do not count)."""
    source = re.sub(r"(?m)^(\s*)[%!].*$", r"\1pass", text)
    return _digest(_with_imports({"": _parse(source, "", "source")}))


def require_current(function):
    """Refuse to run code that was edited after this process loaded it: the key would name the new code.

    Raises
    ------
    InputError
        If a loaded module of ``lib`` that the function uses has changed on the disk since then.
    """
    name = _module_name(function)
    for other in _with_imports({name: _read(name)}):
        file = _source_file(other)
        if other.startswith("lib.") and other in sys.modules and file.stat().st_mtime > _STARTED:
            raise InputError(
                f"{file.relative_to(folders.ROOT)} was changed after this process loaded it: "
                "restart the kernel or the worker"
            )


def _with_imports(modules):
    """Complete ``{name: (dump, imports)}`` by all that the modules import, directly or not."""
    waiting = list(modules)
    while waiting:
        for name in modules[waiting.pop()][1]:
            if name not in modules:
                modules[name] = _read(name)
                waiting.append(name)
    return modules


def _digest(modules):
    dumps = [f"{name}:{dump}" for name, (dump, _) in sorted(modules.items())]
    return hashlib.sha256("\n".join(dumps).encode()).hexdigest()


def _module_name(subject):
    if isinstance(subject, str):
        return subject
    return getattr(subject, "__module__", None) or subject.__name__


def _read(name):
    file = _source_file(name)
    if file is None:
        raise InputError(
            f"no source file for module {name!r}: a run's function must be defined in a module, "
            "because its source is part of the key of its results"
        )
    status = file.stat()
    return _read_version(name, file, status.st_mtime_ns, status.st_size)


@functools.lru_cache(maxsize=1024)
def _read_version(name, file, _time, _size):
    package = name if file.name == "__init__.py" else name.rpartition(".")[0]
    return _parse(file.read_text(encoding="utf-8"), package, file)


def _source_file(name):
    """The file of a module: by its place under ``lib``, else where Python found it."""
    if name.partition(".")[0] == "lib":
        stem = folders.ROOT.joinpath(*name.split("."))
        files = [stem.with_suffix(".py"), stem / "__init__.py"]
    else:
        module = sys.modules.get(name) or importlib.util.find_spec(name)
        files = [Path(getattr(module, "__file__", None) or getattr(module, "origin", None) or "/missing")]
    return next((file for file in files if file.is_file()), None)


def _parse(text, package, where):
    """The dump of a source without docstrings, and the names of the ``lib`` modules that it imports."""
    try:
        tree = ast.parse(text)
    except SyntaxError as error:
        raise InputError(f"{where}: line {error.lineno} is not valid Python: {error.msg}") from None
    for node in ast.walk(tree):
        if (
            isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef)
            and ast.get_docstring(node, clean=False) is not None
        ):
            node.body = node.body[1:]
    named = {name for node in ast.walk(tree) for name in _named_modules(node, package)}
    doors = ((module, name, _front_door(module) or {}) for module, name in named if _followed(module))
    through = [f"{module}.{name}={door[name]}" for module, name, door in doors if name in door]
    return "\n".join([ast.dump(tree), *sorted(through)]), sorted(set().union(*map(_needed_for, named)))


def _named_modules(node, package):
    """Pairs of a module and a name in it, or None, for what one node imports; ``lib.x`` after ``import lib`` too."""
    if isinstance(node, ast.Import):
        return [(alias.name, None) for alias in node.names]
    if isinstance(node, ast.ImportFrom):
        parents = package.split(".")
        start = ".".join(parents[: len(parents) - node.level + 1]) if node.level else ""
        base = ".".join(part for part in (start, node.module) if part)
        return [(base, alias.name) for alias in node.names]
    if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "lib":
        return [(f"lib.{node.attr}", None)]
    return []


def _needed_for(imported):
    """The modules that an import needs: where the name is defined, and the packages above that do more than import."""
    module, name = imported
    if not _followed(module):
        return set()
    door = _front_door(module)
    needed = {package for package in _packages_of(module) if _front_door(package) is None}
    if door is None and module != "lib" and _source_file(module):
        needed.add(module)
    if name is None or not _followed(f"{module}.{name}"):
        return needed | ({module} if door is not None else set())
    if door is not None and door.get(name, imported) != imported:
        return needed | _needed_for(door[name])
    if _source_file(f"{module}.{name}"):
        return needed | {f"{module}.{name}"}
    return needed | ({module} if door is not None else set())


def _followed(module):
    parts = module.split(".")
    return parts[0] == "lib" and parts[1:2] not in (["runs"], ["progress"])


def _packages_of(module):
    """The packages below ``lib`` that a module lies in."""
    parts = module.split(".")
    return [".".join(parts[:end]) for end in range(2, len(parts)) if _source_file(".".join(parts[:end]))]


def _front_door(package):
    """What a package imports, where its ``__init__`` does nothing else: by name, the module and the name there.

    None for a package that does more, and for other modules.
    """
    file = _source_file(package)
    if package == "lib" or file is None or file.name != "__init__.py":
        return None
    names = {}
    for node in ast.parse(file.read_text(encoding="utf-8")).body:
        imports = isinstance(node, ast.ImportFrom) and all(alias.name != "*" for alias in node.names)
        exports = isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__all__"
        docstring = isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
        if not (imports or exports or docstring):
            return None
        if imports:
            names |= {
                alias.asname or alias.name: imported
                for alias in node.names
                for imported in _named_modules(ast.ImportFrom(node.module, [alias], node.level), package)
            }
    return names
