"""A notebook as a page of the report: plumbing folded, a head with links, committed results where it has not run."""

import ast
import base64
import re
from pathlib import Path

import nbformat
from nbformat import NotebookNode, v4

OPEN = "## Method"  # the section whose code a reader should see
SUFFIXES = {"figures": ("png", "md"), "tables": ("md",)}  # md of a figure: its caption


def page(notebook: NotebookNode, *, head: str, foot: str) -> NotebookNode:
    """`notebook` with `head` below its title, `foot` at its end, and all code but the method's folded."""
    section = ""
    for cell in notebook.cells:
        headings = re.findall(r"^## .*", cell.source, re.MULTILINE) if cell.cell_type == "markdown" else []
        section = headings[-1] if headings else section
        if cell.cell_type == "code" and section != OPEN:
            cell.metadata["tags"] = [*cell.metadata.get("tags", []), "hide-input"]
    notebook.cells.insert(1, v4.new_markdown_cell(head, id="head"))
    notebook.cells.append(v4.new_markdown_cell(foot, id="foot"))
    return notebook


def with_results(notebook: NotebookNode, folder: Path, listed: set[str]) -> NotebookNode:
    """`notebook`, not executed, with the figures and tables of `folder` below the cells that save them.

    Parameters
    ----------
    notebook : NotebookNode
    folder : Path
        Results of a profile.
    listed : set of str
        Files such as "figures/continuity" that may be this notebook's where its code computes a part of the name.
    """
    for cell in notebook.cells:
        if cell.cell_type == "code":
            files = [file for kind, name in saved(cell.source) for file in _files(folder, kind, name)
                     if "*" not in name or f"{kind}/{file.stem}" in listed]  # fmt: skip
            cell.outputs = [_output(file) for file in files]
            if widths := [_width(file) for file in files if file.suffix == ".png"]:
                cell.metadata["mystnb"] = {"image": {"width": f"{max(widths)}px"}}
    return notebook


def saved(source: str) -> list[tuple[str, str]]:
    """What a cell saves: ("figures" or "tables", name), in its order; "*" stands for a part that is computed."""
    calls = [node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Call) and len(node.args) > 1]
    found = [(call.lineno, ast.unparse(call.func).partition("."), call.args[1]) for call in calls]
    return [
        (module, _text(name))
        for _, (module, _, function), name in sorted(found, key=lambda each: each[0])
        if module in SUFFIXES and function == "save"
    ]


def _text(name):
    parts = name.values if isinstance(name, ast.JoinedStr) else [name]
    return "".join(str(part.value) if isinstance(part, ast.Constant) else "*" for part in parts)


def _files(folder, kind, name):
    found = sorted((folder / kind).glob(f"{name}.{SUFFIXES[kind][0]}"))
    return [each for file in found for suffix in SUFFIXES[kind] if (each := file.with_suffix(f".{suffix}")).is_file()]


def _width(file):
    """Pixels on the screen: figures are saved at twice the resolution, the width is the third number of a png."""
    return int.from_bytes(file.read_bytes()[16:20], "big") // 2


def _output(file):
    if file.suffix == ".png":
        return v4.new_output("display_data", {"image/png": base64.b64encode(file.read_bytes()).decode()})
    return v4.new_output("display_data", {"text/markdown": file.read_text(encoding="utf-8")})


def read(path: Path) -> NotebookNode:
    """The notebook in a file."""
    return nbformat.read(path, as_version=4)
