"""What the README shows and does not say by itself: results from ``results``, the methods from the code.

``make readme`` renews the blocks between its markers, and the table of items in ``docs/items.md``; a test sees that
both are up to date.
"""

import ast
import re
import subprocess
import sys
from pathlib import Path

from lib import folders
from lib.report import claims, pages, times

README, ITEMS = folders.ROOT / "README.md", folders.ROOT / "docs" / "items.md"
SHOWN = {"lib/connectivity/reference.py": ("tick",), "lib/gossip/reference.py": ("gossip", "mix", "correct")}


def headlines() -> str:
    """The main results, one line each: the paper's words, what was measured on each data set, and whether it holds."""
    every = pages.committed()
    names = [each.data for each in every]
    lines = [("result", "the paper", *names, "laptop minutes"), ("---",) * (3 + len(names))]
    notebook_of = {row["item"]: row["notebook"].split() for row in claims.read_rows(folders.DATA / "items.csv")}
    seconds = times.read(folders.RESULTS / "laptop")
    for row in pages.headlines(every):
        cells = {each.data: f"{claims.number(verdict.ours)}{_unit(row['unit'])} ({_word(verdict)})"
                 for each, verdict in row["verdicts"]}  # fmt: skip
        known = [seconds[name] / 60 for name in notebook_of[row["item"]] if name in seconds]
        cost = f"{sum(known):.1f}" if known else ""
        title = f"**{row['title']}**: {row['measured']}"
        lines.append((title, row["says"], *(cells.get(name, "not run") for name in names), cost))
    return _table(lines)


def _unit(unit):
    return f" {unit}" if unit else ""


def _word(verdict):
    """Whether the claim of a committed value holds."""
    return "holds" if verdict.kind == "holds" else "does not hold"


def methods() -> str:
    """Both methods as code: the functions that the tests compare the library with, without their docstrings."""
    shown = [_without_docstring(folders.ROOT / file, name) for file, names in SHOWN.items() for name in names]
    return "```python\n" + "\n\n\n".join(shown) + "\n```"


def _without_docstring(file, name):
    """Source of a function of a file; decorators and docstring left out."""
    text = file.read_text(encoding="utf-8")
    function = next(node for node in ast.parse(text).body if getattr(node, "name", "") == name)
    docstring, first, *_ = function.body
    lines = text.splitlines()
    return "\n".join(lines[function.lineno - 1 : docstring.lineno - 1] + lines[first.lineno - 1 : function.end_lineno])


def items() -> str:
    """All items as a markdown table; the last column names the profiles whose results of the item are committed."""
    header = ("paper", "item", "content", "notebook", "evidence of the settings", "committed results")
    rows = claims.read_rows(folders.DATA / "items.csv")
    return _table([header, ("---",) * len(header), *(_row(row) for row in rows)])


def _row(row):
    links = ", ".join(f"[{name.rpartition('/')[2]}](../notebooks/{name}.ipynb)" for name in row["notebook"].split())
    return row["paper"], row["item"], row["content"], links, row["evidence"], _committed(row)


def _committed(row):
    """Profiles for which git has every file of the item."""
    command = ["git", "ls-files", "results"]
    there = set(subprocess.check_output(command, cwd=folders.ROOT, text=True).splitlines())
    profiles = sorted({file.split("/")[1] for file in there} - {"bench"})
    files = row["files"].split()
    return ", ".join(p for p in profiles if files and all(f"results/{p}/{file}" in there for file in files)) or "none"


def _table(lines):
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


BLOCKS = {"headlines": headlines, "methods": methods, "items": items}


def fill(text: str) -> str:
    """`text` with the blocks between its markers renewed."""

    def renewed(match):
        return f"{match[1]}\n{BLOCKS[match[2]]()}\n{match[3]}"

    return re.sub(r"(<!-- (\w+): make readme -->)\n.*?(<!-- end -->)", renewed, text, flags=re.DOTALL)


def main(files: tuple[Path, ...] = (README, ITEMS)) -> int:
    """Renew the README and the table of items."""
    for file in files:
        file.write_text(fill(file.read_text(encoding="utf-8")), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
