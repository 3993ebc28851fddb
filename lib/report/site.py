"""The report: a web site from the notebooks, with verdicts, figures and pages of text, by Sphinx.

``make report`` builds ``results/<profile>/report`` from ``docs`` (text, templates, style) and from what lies in
``results``: executed notebooks where there are some, else the notebooks' sources with the committed figures and
tables. No notebook is run. It needs no network to build or to read, and is built anew only if something that it
shows has changed.
"""

import argparse
import hashlib
import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import jinja2
import nbformat

from lib import folders
from lib.errors import InputError
from lib.report import claims, notebook_pages, pages, plan
from lib.report.pages import DOCS

SPHINX_SECONDS = 900


def build(profile: str, *, states: dict[str, str], folder: Path | None = None) -> Path:
    """Build the report of a profile, unless it is up to date.

    Parameters
    ----------
    profile : str
    states : dict of str to str
        State of each notebook's results, as of :func:`lib.report.plan.states`.
    folder : Path, optional
        The profile's results; default ``results/<profile>``.

    Returns
    -------
    Path
        The first page.

    Raises
    ------
    InputError
        If there are no results, or Sphinx refuses a page.
    """
    folder = folder or folders.RESULTS / profile
    if not states:
        raise InputError(f"profile={profile}: no results; run: make reproduce PROFILE={profile}")
    report = folder / "report"
    with tempfile.TemporaryDirectory(prefix="report-", dir=folder) as work:
        source, built = Path(work, "source"), Path(work, "built")
        _lay_out(source, pages.Profile.of(profile, folder, states))
        stamp, inputs = report / ".inputs", _digest(source)
        if not stamp.is_file() or stamp.read_text() != inputs:
            _sphinx(source, built)
            (built / stamp.name).write_text(inputs)
            shutil.rmtree(report, ignore_errors=True)
            built.rename(report)
    return report / "index.html"


def executed(folder: Path) -> dict[str, Path]:
    """Executed notebooks below ``folder/executed``, by name."""
    return {name: path for name, path in plan.find(folder / "executed").items() if not name.endswith(".partial")}


def _lay_out(source, own):
    """Write the pages, and what they show, where Sphinx looks for them."""
    shutil.copytree(DOCS, source, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copytree(folders.ROOT / "lib", source / "lib", ignore=shutil.ignore_patterns("__pycache__"))
    for page in source.glob("*.md"):
        page.write_text(_inside(page.read_text(encoding="utf-8")), encoding="utf-8")
    sources = plan.find()
    ran = executed(own.folder)
    notebooks = {name: notebook_pages.read(path) for name, path in (sources | ran).items()}
    content = pages.content(own, {name: notebook.cells[0].source for name, notebook in notebooks.items()})
    for profile in content["profiles"]:
        for kind in ("figures", "tables"):
            if (profile.folder / kind).is_dir():
                shutil.copytree(profile.folder / kind, source / "extra/results" / profile.name / kind)
    for name, path in sources.items():
        _write(source / "extra/notebooks" / f"{name}.ipynb", path.read_text(encoding="utf-8"))
    environment = templates()
    for name in environment.list_templates(filter_func=lambda name: name.endswith(".md.j2") and name[0] != "_"):
        _write(source / name.removesuffix(".j2"), environment.get_template(name).render(content))
    for group in content["groups"]:
        _write(source / group / "index.md", environment.get_template("_group.md.j2").render(content, group=group))
    for each in content["notebooks"]:
        name, notebook = each["name"], notebooks[each["name"]]
        if name not in ran:
            notebook = notebook_pages.with_results(notebook, own.folder, _listed(name, content["items"]))
        concluded = [] if name in ran else pages.measured(own, name)
        head, foot = (
            environment.get_template(f"_{part}.md.j2").render(content, **each, ran=name in ran, measured=concluded)
            for part in ("head", "foot")
        )
        _write(source / f"{name}.ipynb", nbformat.writes(notebook_pages.page(notebook, head=head, foot=foot)))


def _inside(text):
    """A page of ``docs`` whose links lead to pages of the report; what lies elsewhere in the repository has no link."""
    text = re.sub(r"\]\(\.\./notebooks/([^)]+\.ipynb)\)", r"](\1)", text)
    return re.sub(r"\[([^\]]+)\]\(\.\./[^)]+\)", r"\1", text)


def _listed(name, items):
    """Files without suffix of the items that a notebook belongs to."""
    files = [file for item in items if name in item["notebook"].split() for file in item["files"].split()]
    return {file.rpartition(".")[0] for file in files}


def templates() -> jinja2.Environment:
    """The templates of the pages."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(DOCS), undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters["number"] = claims.number
    return environment


def _write(file, text):
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text, encoding="utf-8")


def _digest(folder):
    files = sorted(file for file in folder.rglob("*") if file.is_file())
    parts = [(file.relative_to(folder).as_posix(), hashlib.sha256(file.read_bytes()).hexdigest()) for file in files]
    return hashlib.sha256(repr(parts).encode()).hexdigest()


def _sphinx(source, built):
    command = [sys.executable, "-m", "sphinx", "-q", "-b", "html", "-d", str(source.parent / "doctrees")]
    try:
        done = subprocess.run(
            [*command, str(source), str(built)], capture_output=True, text=True, check=False, timeout=SPHINX_SECONDS,
            env=os.environ | {"PYTHONPATH": str(folders.ROOT)},
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        raise InputError(f"report: Sphinx did not end within {SPHINX_SECONDS} seconds and was ended") from None
    if done.returncode:
        raise InputError(f"report: {(done.stderr.strip().splitlines() or ['Sphinx failed'])[-1]}")
    (built / ".warnings").write_text(done.stderr)


def main(arguments: list[str] | None = None) -> int:
    """Build the report of a profile from the results that are there."""
    parser = argparse.ArgumentParser(prog="report", description=main.__doc__)
    parser.add_argument("--profile", default="laptop")
    parser.add_argument("--device", default="auto")
    options = parser.parse_args(arguments)
    try:
        jobs = plan.plan(options.profile, "*", {}, device=options.device)
        known = plan.states(jobs, folders.RESULTS / options.profile)
        print(f"report: {build(options.profile, states=known).relative_to(folders.ROOT)}")
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
